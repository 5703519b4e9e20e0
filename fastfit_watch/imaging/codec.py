"""Opens untrusted pictures, and encodes results. Pillow is loaded on first use.

Opened pictures are RGB, upright, without metadata. Sizes are `(height, width)`; Pillow's own are not.
"""

from __future__ import annotations

import importlib.util
import io
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Protocol

from fastfit_watch.domain.errors import ConfigError, ImageError
from fastfit_watch.domain.look import ImageFormat
from fastfit_watch.imaging.colour import adobe_rgb_profile, is_adobe_rgb, to_srgb
from fastfit_watch.imaging.png import png_is_whole, split_png
from fastfit_watch.imaging.xmp import xmp_packet

if TYPE_CHECKING:
    from PIL import Image

MAX_SIDE = 16_000
"""Longest side in pixels; WebP, one of our own formats, cannot hold more than 16383."""
MIN_SIDE = 32
"""Shortest side in pixels; below that the engine finds nobody."""
MAX_ASPECT = 10
"""The longer side may be so many times as long as the shorter one."""
_SIGNATURES = {
    "PNG": rb"\x89PNG\r\n\x1a\n",
    "JPEG": rb"\xff\xd8\xff",
    "WEBP": rb"RIFF....WEBP",
    "AVIF": rb"....ftyp(avi[fs]|(mif|msf)1.{4,64}avif)",
    "HEIF": rb"....ftyp(hei|hev|mif1|msf1)",
}
_LONGEST_SIGNATURE = 12
_BEGINNING = 512
# What people send by mistake, so that the sentence can say it.
_STRANGERS = (
    (rb"....ftyp(hei|hev|mif|msf)", "a HEIC picture, as phones take them", "Export it as JPEG."),
    (rb"....ftypavi[fs]", "an AVIF picture", "Export it as JPEG."),
    (rb"....ftyp", "a video", "Upload a photograph."),
    (rb"GIF8", "a GIF", "Save it as PNG."),
    (rb"(II\*\x00|MM\x00\*)", "a TIFF or camera raw file", "Export it as JPEG."),
    (rb"BM", "a BMP", "Save it as PNG."),
    (rb"%PDF", "a PDF", "Export its picture as JPEG or PNG."),
    (rb"\s*<(!doctype|html|\?xml|svg)", "a web page or a drawing in XML", "Download the picture itself."),
)
# A JPEG marker: 0xFF and a code. 0xFF00 and RST0..RST7 belong to the coded data, 0xFFFF is padding (ITU-T T.81, B.1.1).
_JPEG_MARKER = re.compile(rb"\xff[^\x00\xff\xd0-\xd7]", re.DOTALL)
_JPEG_START, _JPEG_END, _JPEG_TEM = 0xD8, 0xD9, 0x01
_END_MARK = b"\xff\xd9"
_ADDRESS = re.compile(r"<[^<>]* at 0x[0-9a-fA-F]+>")
_ORIENTATION = 0x0112
_EXTENSIONS = {".png": ImageFormat.PNG, ".jpg": ImageFormat.JPG, ".jpeg": ImageFormat.JPG, ".webp": ImageFormat.WEBP}
_SAVE_OPTIONS: Mapping[ImageFormat, Mapping[str, Any]] = {
    # Level 1 makes photographs a seventh larger than 6, in less than half the time; 2 and 3 save nothing.
    ImageFormat.PNG: {"format": "PNG", "compress_level": 1},
    ImageFormat.JPG: {"format": "JPEG", "quality": 95, "subsampling": "4:4:4"},
    ImageFormat.WEBP: {"format": "WEBP", "quality": 95, "method": 4},
}


class PictureLimits(Protocol):
    """The settings that bound one picture."""

    @property
    def picture_bytes(self) -> int:
        """Largest file, in bytes."""

    @property
    def picture_pixels(self) -> int:
        """Largest height times width."""


@dataclass(frozen=True)
class ImageFacts:
    """What a picture is: JPEG, PNG, WEBP, AVIF or HEIF, and its size in pixels, upright."""

    format: str
    height: int
    width: int


def open_image(file: BinaryIO | Path | bytes, limits: PictureLimits | None = None, name: str = "") -> Image.Image:
    """Return a picture as RGB, upright, its first frame only, without metadata.

    Transparency is laid on white, an embedded colour profile is applied (the result is sRGB), 16 bits become 8.
    limits: None for a picture that was measured before. name: for the sentences; a path has its own.

    Raises ImageError with a sentence for people; OSError where the file cannot be read; MemoryError.
    """
    title, data = _read(file, limits, name)
    return _decode(title, data, limits, is_whole=limits is None)[1]


def measure(
    file: BinaryIO | Path | bytes, limits: PictureLimits | None = None, name: str = "", is_whole: bool = False
) -> ImageFacts:
    """Return what a picture is, after doing everything to it that `open_image` does. Raises what it raises.

    is_whole: a sum proves that all of the file has come; a JPEG that lacks nothing but its end mark is decoded then.
    """
    title, data = _read(file, limits, name)
    kind, image = _decode(title, data, limits, is_whole)
    return ImageFacts(kind, image.height, image.width)


def format_of(output: Path) -> ImageFormat:
    """Return the format that the extension of a path names, in any case. Raises ConfigError if it names none."""
    found = _EXTENSIONS.get(output.suffix.lower())
    if found is None:
        raise ConfigError(f"The picture {output} must end in one of {', '.join(_EXTENSIONS)}.")
    return found


def encode_image(image: Image.Image, format: ImageFormat, marks: Mapping[str, str]) -> bytes:
    """Return the file of a result: equal pixels and marks give equal bytes.

    PNG is lossless; JPEG has quality 95 and full colour resolution; WebP has quality 95. The only metadata is the XMP
    packet of `marks`.
    """
    from PIL.PngImagePlugin import PngInfo

    plain = image.convert("RGB")  # always a copy: what came with the caller's picture stays behind
    plain.info.clear()
    options = dict(_SAVE_OPTIONS[format])
    packet = xmp_packet(marks)
    if format is ImageFormat.PNG:
        # Pillow ignores `xmp=` for PNG. XMP specification, part 3: an iTXt chunk with this keyword.
        options["pnginfo"] = PngInfo()
        options["pnginfo"].add_itxt("XML:com.adobe.xmp", packet.decode())
    else:
        options["xmp"] = packet
    data = io.BytesIO()
    plain.save(data, **options)
    return data.getvalue()


def _read(file: BinaryIO | Path | bytes, limits: PictureLimits | None, name: str) -> tuple[str, bytes]:
    """Return how to call the picture, and its bytes, of which no more are read than allowed."""
    most = -1 if limits is None else limits.picture_bytes + 1
    if isinstance(file, bytes):
        title, data = name, file
    elif isinstance(file, Path):
        title = name or file.name
        with file.open("rb") as opened:
            data = opened.read(most)
    else:
        title, data = name, file.read(most)
    title = repr(title) if title else "The picture"
    if limits is not None and len(data) > limits.picture_bytes:
        raise ImageError(f"{title} is larger than {limits.picture_bytes / 1e6:.3g} MB.", hint="Save it smaller.")
    return title, data


def _decode(title: str, data: bytes, limits: PictureLimits | None, is_whole: bool) -> tuple[str, Image.Image]:
    """Judge the bytes from the cheapest question to the dearest, then decode them whole."""
    from PIL import Image

    kind = _kind(title, data)
    lacks_end = not _IS_WHOLE[kind](data)
    if lacks_end and not is_whole:
        raise ImageError(f"{title} ends early.", hint="Upload it again.")
    try:
        profile = b""
        if kind == "PNG":
            data, profile = split_png(data)
        elif lacks_end:
            data = data.rstrip(_END_MARK[:1])  # half of a mark
        _prepare_reader(kind)
        # Reads the header only.
        image = Image.open(io.BytesIO(data + _END_MARK if lacks_end else data), formats=[kind])
        _refuse_size(title, image.size, limits)
        image.load()
        if lacks_end and not (kind == "JPEG" and _has_all_rows(data, image)):
            raise ImageError(f"{title} is a damaged {kind} picture: its end is missing.", hint="Save it anew.")
        return kind, to_upright_rgb(image, profile)
    except (ImageError, MemoryError):
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise _too_many_pixels(title, limits) from error
    except Exception as error:  # broken pictures raise nearly anything from inside Pillow
        raise ImageError(
            f"{title} is a damaged {kind} picture ({_reason(error)}).", hint="Upload it again, or save it anew."
        ) from error


def _reason(error: Exception) -> str:
    """What Pillow says is wrong, on one line and without the addresses of objects."""
    from PIL import UnidentifiedImageError

    if isinstance(error, UnidentifiedImageError):
        return "its header cannot be read"
    text = "".join(letter if letter.isprintable() else "?" for letter in _ADDRESS.sub("the file", str(error)))
    return text or type(error).__name__


def _has_all_rows(data: bytes, image: Image.Image) -> bool:
    """Does a JPEG lack nothing but its end mark? Only then do other bytes behind it change nothing of the picture."""
    from PIL import Image, ImageChops

    with Image.open(io.BytesIO(data + b"\x55" * 64 + _END_MARK), formats=["JPEG"]) as other:
        other.load()
        difference = ImageChops.difference(image, other)
    return difference.getbbox() is None


def _kind(title: str, data: bytes) -> str:
    """Return JPEG, PNG, WEBP, AVIF or HEIF, by content; the last two where their libraries are there."""
    if data[4:8] == b"ftyp" and len(data) < _LONGEST_SIGNATURE:
        raise ImageError(f"{title} ends early: there is no picture in it yet.", hint="Upload it again.")
    for kind, signature in _SIGNATURES.items():
        if re.match(signature, data, re.DOTALL) and _is_readable(kind):
            return kind
    for signature, word, hint in _STRANGERS:
        if re.match(signature, data, re.DOTALL | re.IGNORECASE):
            raise ImageError(f"{title} is not a JPEG, PNG, WebP or AVIF picture but {word}.", hint=hint)
    if not data[_LONGEST_SIGNATURE:_BEGINNING].strip(b"\0"):
        raise ImageError(f"{title} ends early: there is no picture in it yet.", hint="Upload it again.")
    raise ImageError(f"{title} is not a JPEG, PNG, WebP or AVIF picture.", hint="Save it as one of them.")


def _is_readable(kind: str) -> bool:
    """Are the libraries there that read a format?"""
    if kind == "HEIF":
        return importlib.util.find_spec("pillow_heif") is not None
    from PIL import features

    return kind != "AVIF" or bool(features.check("avif"))


def _prepare_reader(kind: str) -> None:
    """Let Pillow read a format in one thread: each takes of the memory that a decoding process may use."""
    if kind == "AVIF":
        from PIL import AvifImagePlugin

        AvifImagePlugin.DEFAULT_MAX_THREADS = 1
    elif kind == "HEIF":
        import pillow_heif

        pillow_heif.register_heif_opener(thumbnails=False, decode_threads=1)


def _jpeg_is_whole(data: bytes) -> bool:
    """Does the chain of segments reach the end of the image? (ITU-T T.81, section B.1)

    libjpeg decodes a file whose second half is zeros without complaint; this notices it.
    """
    at = 0
    while found := _JPEG_MARKER.search(data, at):
        at, code = found.end(), data[found.end() - 1]
        if code == _JPEG_END:
            return True
        if code not in (_JPEG_START, _JPEG_TEM):
            at += max(2, int.from_bytes(data[at : at + 2], "big"))
    return False


def _webp_is_whole(data: bytes) -> bool:
    """Is the file as long as its header says? (RFC 9649, section 2.4)

    Nothing marks the end of the coded data, and that of a picture of one colour may well be zeros.
    """
    return len(data) >= 8 + int.from_bytes(data[4:8], "little")


def _boxes_are_whole(data: bytes) -> bool:
    """Does the chain of boxes end with the file, behind the media data? (ISO/IEC 14496-12, section 4.2)"""
    at, has_media = 0, False
    while at + 8 <= len(data):
        size, kind = int.from_bytes(data[at : at + 4], "big"), data[at + 4 : at + 8]
        if size == 1:
            size = int.from_bytes(data[at + 8 : at + 16], "big")
        has_media |= kind == b"mdat"
        if size == 0 or size < 8 or not kind.isascii():  # to the end of the file, or what was added behind it
            break
        at += size
    return has_media and at <= len(data)


_IS_WHOLE = {
    "PNG": png_is_whole,
    "JPEG": _jpeg_is_whole,
    "WEBP": _webp_is_whole,
    "AVIF": _boxes_are_whole,
    "HEIF": _boxes_are_whole,
}


def _refuse_size(title: str, pillow_size: tuple[int, int], limits: PictureLimits | None) -> None:
    """Refuse by the header what is too large to decode, and of uploads what is too small or narrow to show anything."""
    width, height = pillow_size
    size = f"{width} x {height} pixels"
    if max(height, width) > MAX_SIDE:
        raise ImageError(f"{title} is {size}; a side may have {MAX_SIDE}.", hint="Save it with fewer pixels.")
    if limits is None:
        return
    if height * width > limits.picture_pixels:
        raise _too_many_pixels(title, limits)
    if min(height, width) < MIN_SIDE:
        hint = "Upload the picture in its full size."
        raise ImageError(f"{title} is only {size}; a side must have {MIN_SIDE}.", hint=hint)
    if max(height, width) > MAX_ASPECT * min(height, width):
        hint = "Cut it to what it shows."
        raise ImageError(f"{title} is {size}; a side may be {MAX_ASPECT} times as long as the other.", hint=hint)


def _too_many_pixels(title: str, limits: PictureLimits | None) -> ImageError:
    most = "this program can decode" if limits is None else f"{limits.picture_pixels / 1e6:.3g} million pixels"
    return ImageError(f"{title} has more than {most}.", hint="Save it with fewer pixels.")


def to_upright_rgb(image: Image.Image, profile: bytes = b"") -> Image.Image:
    """Return RGB in sRGB colours, turned as the EXIF orientation says, with nothing else left of the source.

    profile: the ICC profile of the colours; without one, the picture's own counts.
    """
    from PIL import Image

    turns = {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_270,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_90,
    }
    orientation, in_adobe_rgb = _read_exif(image)
    profile = profile or image.info.get("icc_profile") or (adobe_rgb_profile() if in_adobe_rgb else b"")
    colours, alpha = _split_alpha(image)
    upright = to_srgb(colours, profile)
    if alpha is not None:
        background = Image.new("RGB", upright.size, "white")
        background.paste(upright, mask=alpha)
        upright = background
    if orientation in turns:
        upright = upright.transpose(turns[orientation])
    upright.info.clear()
    return upright


def _split_alpha(image: Image.Image) -> tuple[Image.Image, Image.Image | None]:
    """Return the colours of a picture as L, RGB or CMYK, and its opacity as L; None if it is opaque everywhere."""
    if image.mode.startswith("I"):
        tones = image.convert("I").point([value >> 8 for value in range(2**16)], "L")
        key = image.info.get("transparency")
        if key is None:
            return tones, None
        return tones, image.convert("I").point([0 if value == key else 255 for value in range(2**16)], "L")
    is_grey = image.mode in ("1", "L", "LA", "La")
    if image.has_transparency_data:
        clear = image.convert("RGBA")
        return clear.convert("L" if is_grey else "RGB"), clear.getchannel("A")
    return image if image.mode in ("L", "RGB", "CMYK") else image.convert("L" if is_grey else "RGB"), None


def _read_exif(image: Image.Image) -> tuple[int, bool]:
    """The EXIF orientation, 1..8, and whether the colours are Adobe RGB; 1 and False where EXIF cannot be read."""
    try:
        exif = image.getexif()
        orientation = exif.get(_ORIENTATION)
        return orientation if isinstance(orientation, int) else 1, is_adobe_rgb(exif)
    except Exception:  # noqa: BLE001 - EXIF is often broken, in as many ways as there are cameras; the pixels are not
        return 1, False
