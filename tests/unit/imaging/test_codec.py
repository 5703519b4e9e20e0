"""Pictures nobody vouches for: what is accepted comes out right, what is not is said in a sentence."""

from __future__ import annotations

import importlib.util
import io
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import pillow_heif
import pytest
from PIL import Image, ImageCms, features

from fastfit_watch.domain.errors import ImageError
from fastfit_watch.domain.limits import Limits
from fastfit_watch.domain.look import ImageFormat
from fastfit_watch.imaging.codec import MAX_SIDE, ImageFacts, encode_image, measure, open_image
from fastfit_watch.imaging.xmp import SOURCE_TYPE, read_marks

LIMITS = Limits()
pillow_heif.register_heif_opener()
MARKS = {"job": "spring", "look": "anna.casual", "seed": "7"}


def photograph(size: tuple[int, int] = (48, 64)) -> Image.Image:
    """A picture without symmetry; size is Pillow's (width, height)."""
    channels = [Image.linear_gradient("L").rotate(turn).resize(size) for turn in (0, 90, 180)]
    return Image.merge("RGB", channels)


def saved(image: Image.Image, kind: str, **options: object) -> bytes:
    data = io.BytesIO()
    image.save(data, kind, **options)
    return data.getvalue()


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def flat_png(width: int, height: int, bits: int = 1, colour: int = 0) -> bytes:
    """A PNG of one colour, written without holding its pixels."""
    channels = 3 if colour == 2 else 1
    row = bytes(1 + (width * bits * channels + 7) // 8)
    packer = zlib.compressobj(9)
    rows = b"".join(packer.compress(row) for _ in range(height)) + packer.flush()
    header = struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def sentence(data: bytes, limits: Limits | None = LIMITS) -> str:
    with pytest.raises(ImageError) as caught:
        open_image(data, limits, "anna.jpg")
    assert "\n" not in str(caught.value)
    assert "anna.jpg" in str(caught.value)
    return str(caught.value)


def middle(image: Image.Image) -> tuple[int, ...]:
    value = image.getpixel((image.width // 2, image.height // 2))
    assert isinstance(value, tuple)
    return value


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "AVIF", "HEIF"])
def test_the_formats_are_known_by_content(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "anna.txt"
    path.write_bytes(saved(photograph(), kind))
    assert measure(path, LIMITS) == ImageFacts(kind, 64, 48)
    with path.open("rb") as file:
        assert measure(file, LIMITS) == ImageFacts(kind, 64, 48)
    assert open_image(path, LIMITS).mode == "RGB"


def test_a_missing_file_is_an_os_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        open_image(tmp_path / "anna.jpg", LIMITS)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "AVIF", "HEIF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(kind: str, orientation: int) -> None:
    upright = photograph((96, 128))
    # What the camera stores is the inverse of what the orientation asks for.
    stored = {
        1: upright,
        2: upright.transpose(Image.Transpose.FLIP_LEFT_RIGHT),
        3: upright.transpose(Image.Transpose.ROTATE_180),
        4: upright.transpose(Image.Transpose.FLIP_TOP_BOTTOM),
        5: upright.transpose(Image.Transpose.TRANSPOSE),
        6: upright.transpose(Image.Transpose.ROTATE_90),
        7: upright.transpose(Image.Transpose.TRANSVERSE),
        8: upright.transpose(Image.Transpose.ROTATE_270),
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    given = exif.tobytes() if kind == "HEIF" else exif  # of Pillow's own record its writer takes no orientation
    opened = open_image(saved(stored, kind, exif=given, **({} if kind == "PNG" else {"quality": 95})), LIMITS)
    assert opened.size == upright.size
    for x, y in ((8, 8), (88, 8), (8, 120), (88, 120)):
        wanted, found = upright.getpixel((x, y)), opened.getpixel((x, y))
        assert isinstance(wanted, tuple) and isinstance(found, tuple)
        assert max(abs(a - b) for a, b in zip(wanted, found, strict=True)) < 16
    assert opened.info == {} and not opened.getexif()


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")
def test_broken_exif_does_not_cost_the_picture() -> None:
    data = saved(photograph(), "JPEG", exif=b"Exif\0\0II*\0\xff\xff\xff\xff broken")
    assert open_image(data, LIMITS).size == (48, 64)


def test_sixteen_bit_gray_keeps_its_tones() -> None:
    image = Image.frombytes("I;16", (64, 32), struct.pack("<64H", *range(0, 65536, 1024)) * 32)
    opened = open_image(saved(image, "PNG"), LIMITS)
    assert [opened.getpixel((x, 3)) for x in (0, 1, 32, 63)] == [(4 * x,) * 3 for x in (0, 1, 32, 63)]


def test_sixteen_bit_colour_is_read() -> None:
    assert measure(flat_png(40, 35, bits=16, colour=2), LIMITS) == ImageFacts("PNG", 35, 40)


@pytest.mark.parametrize(
    "clear",
    [
        Image.new("RGBA", (40, 40), (255, 0, 0, 0)),
        Image.new("LA", (40, 40), (0, 0)),
        Image.new("RGBA", (40, 40), (255, 0, 0, 0)).convert("P"),
    ],
    ids=["RGBA", "LA", "palette"],
)
def test_transparency_is_laid_on_white(clear: Image.Image) -> None:
    options = {"transparency": clear.getpixel((0, 0))} if clear.mode == "P" else {}
    assert middle(open_image(saved(clear, "PNG", **options), LIMITS)) == (255, 255, 255)


def test_half_transparency_is_blended() -> None:
    red = middle(open_image(saved(Image.new("RGBA", (40, 40), (255, 0, 0, 128)), "PNG"), LIMITS))
    assert red[0] == 255 and 125 <= red[1] <= 129


@pytest.mark.parametrize("mode", ["1", "L", "P", "CMYK", "YCbCr"])
def test_other_modes_keep_their_colours(mode: str) -> None:
    white = Image.new("RGB", (40, 40), "white").convert(mode)
    kind = "JPEG" if mode in ("CMYK", "YCbCr") else "PNG"
    assert min(middle(open_image(saved(white, kind), LIMITS))) >= 254


def test_cmyk_red_stays_red() -> None:
    red = middle(open_image(saved(Image.new("CMYK", (40, 40), (0, 255, 255, 0)), "JPEG", quality=95), LIMITS))
    assert red[0] > 240 and max(red[1:]) < 15


@pytest.mark.parametrize("kind", ["PNG", "WEBP"])
def test_of_an_animation_the_first_frame_is_taken(kind: str) -> None:
    frames = [Image.new("RGB", (40, 50), colour) for colour in ("red", "blue")]
    data = saved(frames[0], kind, save_all=True, append_images=frames[1:])
    first = middle(open_image(data, LIMITS))
    assert first[0] > 240 and first[2] < 15


def test_a_phone_jpeg_of_several_pictures_is_a_jpeg() -> None:
    data = saved(photograph(), "MPO", save_all=True, append_images=[photograph((24, 32))])
    assert measure(data, LIMITS) == ImageFacts("JPEG", 64, 48)


def test_a_small_file_of_many_pixels_is_refused_by_its_header() -> None:
    bomb = flat_png(13_000, 13_000)
    assert len(bomb) < 40_000
    assert "more than 52 million pixels" in sentence(bomb)
    assert "more than" in sentence(flat_png(15_000, 15_000))
    assert "more than 0.003 million pixels" in sentence(flat_png(64, 48), Limits(picture_pixels=3000))
    # A size that Pillow itself refuses, whatever the settings say.
    assert "more than" in sentence(flat_png(15_000, 15_000), None)


def test_the_pixel_limit_is_exact() -> None:
    assert measure(flat_png(64, 50), Limits(picture_pixels=3200)).height == 50
    sentence(flat_png(64, 50), Limits(picture_pixels=3199))


def test_sides_have_limits() -> None:
    assert f"a side may have {MAX_SIDE}" in sentence(flat_png(MAX_SIDE + 1, 20))
    assert "only 300 x 31 pixels; a side must have 32" in sentence(flat_png(300, 31))
    assert "only 16 x 16 pixels" in sentence(flat_png(16, 16))
    assert measure(flat_png(32, 32), LIMITS) == ImageFacts("PNG", 32, 32)


@pytest.mark.parametrize(("width", "height"), [(4000, 50), (50, 4000), (401, 40), (40, 401)])
def test_a_strip_is_refused(width: int, height: int) -> None:
    assert f"is {width} x {height} pixels; a side may be 10 times as long" in sentence(flat_png(width, height))
    assert measure(flat_png(400, 40), LIMITS) == ImageFacts("PNG", 40, 400)


def test_what_was_measured_or_made_here_may_be_small() -> None:
    assert open_image(flat_png(500, 8)).size == (500, 8)


@pytest.mark.parametrize(("width", "height"), [(8160, 6144), (8192, 6144), (8688, 5792), (8660, 5773)])
def test_what_cameras_call_fifty_megapixels_is_taken(width: int, height: int) -> None:
    assert measure(flat_png(width, height), LIMITS) == ImageFacts("PNG", height, width)


def test_a_large_file_is_refused() -> None:
    data = saved(photograph(), "PNG")
    assert "larger than" in sentence(data, Limits(picture_bytes=len(data) - 1))
    assert measure(data, Limits(picture_bytes=len(data))).width == 48


def progressive(image: Image.Image) -> bytes:
    return saved(image, "JPEG", progressive=True)


@pytest.mark.parametrize(
    "encode",
    [
        lambda image: saved(image, "JPEG"),
        progressive,
        lambda image: saved(image, "PNG"),
        lambda image: saved(image, "WEBP"),
        lambda image: saved(image, "WEBP", lossless=True),
        lambda image: saved(image, "AVIF"),
        lambda image: saved(image, "HEIF"),
    ],
    ids=["jpeg", "progressive", "png", "webp", "webp-lossless", "avif", "heic"],
)
def test_truncated_and_zero_filled_files_end_early(encode: Callable[[Image.Image], bytes]) -> None:
    data = encode(Image.effect_noise((400, 300), 60).convert("RGB"))
    for length in (*range(1, 40), *range(40, len(data), len(data) // 60), len(data) - 1):
        assert "ends early" in sentence(data[:length]), f"cut at {length} of {len(data)}"
    # In WebP and AVIF nothing marks the end of the coded data: there only a beginning of zeros tells.
    holes = (0, 6) if data.startswith(b"RIFF") or data[4:8] == b"ftyp" else (0, 6, 100, len(data) // 2, len(data) - 600)
    for length in holes:
        assert "ends early" in sentence(data[:length] + bytes(len(data) - length)), f"zeros from {length}"
    assert open_image(data + bytes(8), LIMITS).size == (400, 300)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "AVIF", "HEIF"])
def test_a_picture_of_one_colour_is_whole(kind: str) -> None:
    assert measure(saved(Image.new("RGB", (2000, 2000)), kind), LIMITS).height == 2000


def test_an_empty_file_ends_early() -> None:
    assert "ends early" in sentence(b"")


@pytest.mark.parametrize(
    ("data", "word"),
    [
        (b"<!DOCTYPE html><html><body>Not found</body></html>", "a web page"),
        (b"\n  <html>404</html>", "a web page"),
        (b"GIF89a" + bytes(30), "a GIF"),
        (saved(photograph(), "TIFF"), "a TIFF"),
        (b"MZ\x90\x00 and so on", "not a JPEG, PNG, WebP or AVIF picture."),
    ],
    ids=["html", "html-short", "gif", "tiff", "exe"],
)
def test_what_is_no_picture_is_called_by_its_name(data: bytes, word: str) -> None:
    assert word in sentence(data)


def test_a_heic_is_called_one_where_its_library_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert "but a HEIC picture" in sentence(saved(photograph(), "HEIF"))


def test_an_avif_is_called_one_where_pillow_cannot_read_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(features, "check", lambda feature: False)
    assert "but an AVIF picture" in sentence(saved(photograph(), "AVIF"))


def test_damage_inside_is_named() -> None:
    data = bytearray(saved(Image.effect_noise((200, 200), 60), "PNG"))
    data[len(data) // 2] ^= 0xFF
    assert "damaged PNG" in sentence(bytes(data))


def test_a_name_with_control_characters_stays_on_one_line() -> None:
    with pytest.raises(ImageError) as caught:
        open_image(b"nothing of a picture", LIMITS, "a\nb\x1b[31m\u202e.jpg")
    assert str(caught.value).isprintable()


@pytest.mark.parametrize("format", list(ImageFormat))
def test_results_are_deterministic_and_marked(format: ImageFormat) -> None:
    data = encode_image(photograph((96, 128)), format, MARKS)
    assert data == encode_image(photograph((96, 128)), format, dict(reversed(MARKS.items())))
    assert data != encode_image(photograph((96, 128)), format, {**MARKS, "seed": "8"})
    assert read_marks(data) == MARKS
    with Image.open(io.BytesIO(data)) as image:
        packet = image.info.get("xmp") or image.info.get("XML:com.adobe.xmp")
        text = packet.decode() if isinstance(packet, bytes) else str(packet)
        assert f'Iptc4xmpExt:DigitalSourceType="{SOURCE_TYPE}"' in text
        assert image.size == (96, 128)
    assert (measure(data, LIMITS).format == "JPEG") == (format is ImageFormat.JPG)


def test_png_results_are_lossless() -> None:
    image = Image.effect_noise((96, 128), 90).convert("RGB")
    assert open_image(encode_image(image, ImageFormat.PNG, {})).tobytes() == image.tobytes()


@pytest.mark.parametrize("format", list(ImageFormat))
def test_nothing_of_the_source_is_carried_over(format: ImageFormat) -> None:
    exif = Image.Exif()
    exif[0x010E] = "SECRET"
    exif[0x8825] = {1: "N", 2: (52.0, 30.0, 0.0)}
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    source = saved(photograph(), "JPEG", exif=exif, icc_profile=profile, comment=b"SECRET", xmp=b"<x>SECRET</x>")
    with Image.open(io.BytesIO(source)) as image:
        image.load()
        # Even a caller who keeps the photograph's metadata cannot pass it on.
        data = encode_image(image, format, {})
    assert b"SECRET" not in data and b"Exif" not in data
    with Image.open(io.BytesIO(data)) as result:
        assert not result.getexif() and "icc_profile" not in result.info


def test_marks_survive_any_text(tmp_path: Path) -> None:
    marks = {"job": "a\"b'c<d>&e\tf\ng &amp; &#10; ü 試", "look": ""}
    path = tmp_path / "result.webp"
    path.write_bytes(encode_image(photograph(), ImageFormat.WEBP, marks))
    assert read_marks(path) == marks
    assert read_marks(encode_image(photograph(), ImageFormat.PNG, {"job": "\x00\udcff"})) == {"job": "\ufffd\ufffd"}
    assert read_marks(saved(photograph(), "PNG")) == {}


def test_a_mark_with_an_impossible_name_is_refused() -> None:
    with pytest.raises(ValueError, match="cannot be the name"):
        encode_image(photograph(), ImageFormat.PNG, {"two words": "x"})


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"quality": 30}, {"subsampling": 0}])
def test_a_jpeg_that_lacks_its_end_mark_alone_is_used_where_a_sum_proves_it_whole(options: dict[str, object]) -> None:
    data = saved(Image.effect_noise((400, 300), 60).convert("RGB"), "JPEG", **options)
    assert data.endswith(b"\xff\xd9")
    assert "ends early" in sentence(data[:-2])
    assert measure(data[:-2], LIMITS, is_whole=True) == ImageFacts("JPEG", 300, 400)
    assert measure(data[:-1], LIMITS, is_whole=True) == ImageFacts("JPEG", 300, 400)
    assert open_image(data[:-2]).tobytes() == open_image(data).tobytes()


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_a_picture_without_its_end_is_refused_though_a_sum_proves_it(kind: str) -> None:
    data = saved(Image.effect_noise((400, 300), 60).convert("RGB"), kind)
    for length in (len(data) // 3, len(data) // 2, len(data) - 200):
        with pytest.raises(ImageError) as caught:
            measure(data[:length], LIMITS, "anna.jpg", is_whole=True)
        assert "anna.jpg" in str(caught.value) and "ends early" not in str(caught.value)
        assert "anew" in str(caught.value)
