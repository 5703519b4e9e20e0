"""Brings the colours of a picture to sRGB, by its embedded ICC profile or by what its EXIF says. Pillow does the work.

A profile is judged by what it does to colours, never by its name: there are linear profiles called "sRGB".
"""

from __future__ import annotations

import io
import itertools
import struct
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from PIL import Image, ImageCms

_EXIF_IFD, _INTEROPERABILITY_IFD = 0x8769, 0xA005
_COLOUR_SPACE, _INTEROPERABILITY_INDEX = 0xA001, 0x0001
_PROBES = (0, 32, 64, 96, 128, 160, 192, 224, 255)
_ROUNDING = 1  # of 255: a profile that moves no probe further is sRGB
_D50 = (0.9642, 1.0, 0.8249)


def to_srgb(image: Image.Image, profile: bytes) -> Image.Image:
    """Return a picture of mode L, RGB or CMYK as RGB in sRGB colours.

    A profile that is empty, broken, sRGB itself, or of other channels than the picture leaves the colours as they are.
    """
    from PIL import ImageCms

    if profile:
        try:
            source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
            fitting = _fit(image, source.profile.xcolor_space.strip())
            if fitting is not None:
                transform = ImageCms.buildTransform(source, ImageCms.createProfile("sRGB"), fitting.mode, "RGB")
                if fitting.mode != "RGB" or not _is_identity(transform):
                    converted = ImageCms.applyTransform(fitting, transform)
                    if converted is not None:
                        return converted
        except (ImageCms.PyCMSError, OSError):
            pass
    return image.convert("RGB")


def is_adobe_rgb(exif: Image.Exif) -> bool:
    """Does EXIF say that the colours are Adobe RGB (1998)?

    Cameras embed no profile then: the interoperability index is R03 (DCF 2.0, Exif 3.0, section 4.6.9), or the colour
    space is 2, which some write.
    """
    index = str(exif.get_ifd(_INTEROPERABILITY_IFD).get(_INTEROPERABILITY_INDEX, ""))
    return index.startswith("R03") or exif.get_ifd(_EXIF_IFD).get(_COLOUR_SPACE) == 2


def adobe_rgb_profile() -> bytes:
    """Return an ICC profile (version 2.1, ICC.1:1998-09) of Adobe RGB (1998).

    Source of the numbers: Adobe RGB (1998) Color Image Encoding, version 2005-05: gamma 2.19921875, and the primaries
    adapted to D50.
    """
    gamma = b"curv" + struct.pack(">IIH", 0, 1, 0x0233) + bytes(2)
    tags = {
        b"wtpt": _xyz(0.9505, 1.0, 1.0891),
        b"rXYZ": _xyz(0.60974, 0.31111, 0.01947),
        b"gXYZ": _xyz(0.20528, 0.62567, 0.06087),
        b"bXYZ": _xyz(0.14919, 0.06322, 0.74457),
        b"rTRC": gamma,
        b"gTRC": gamma,
        b"bTRC": gamma,
    }
    table, bodies = struct.pack(">I", len(tags)), b""
    first = 128 + 4 + 12 * len(tags)
    for name, body in tags.items():
        table += name + struct.pack(">II", first + len(bodies), len(body))
        bodies += body
    header = struct.pack(">I4sI4s4s4s", first + len(bodies), bytes(4), 0x02100000, b"mntr", b"RGB ", b"XYZ ")
    header += bytes(12) + b"acsp" + bytes(28) + struct.pack(">3i", *map(_fixed, _D50))
    return header.ljust(128, b"\0") + table + bodies


def _fit(image: Image.Image, space: str) -> Image.Image | None:
    """The picture in the channels of a profile's colour space, or None if it has others."""
    if space == "RGB" and image.mode in ("L", "RGB"):
        return image.convert("RGB")
    if space == "GRAY" and (image.mode == "L" or (image.mode == "RGB" and _is_grey(image))):
        return image.convert("L")
    return image if space == "CMYK" and image.mode == "CMYK" else None


def _is_grey(image: Image.Image) -> bool:
    from PIL import ImageChops

    red, green, blue = image.split()
    return ImageChops.difference(red, green).getbbox() is None and ImageChops.difference(red, blue).getbbox() is None


def _is_identity(transform: ImageCms.ImageCmsTransform) -> bool:
    """Does a transform from RGB to RGB leave a grid of colours as it is, up to rounding?"""
    from PIL import Image, ImageChops, ImageCms

    colours = itertools.product(_PROBES, repeat=3)
    probe = Image.frombytes("RGB", (len(_PROBES), len(_PROBES) ** 2), bytes(itertools.chain.from_iterable(colours)))
    moved = ImageCms.applyTransform(probe, transform)
    return moved is not None and max(ImageChops.difference(probe, moved).tobytes()) <= _ROUNDING


def _xyz(*values: float) -> bytes:
    return b"XYZ " + bytes(4) + struct.pack(">3i", *map(_fixed, values))


def _fixed(value: float) -> int:
    """A number as the ICC's s15Fixed16Number."""
    return round(value * 65536)
