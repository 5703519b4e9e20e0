"""Colours: a profile is applied by what it does, on every kind of picture that it fits, and never by its name."""

from __future__ import annotations

import io
import struct
from collections.abc import Callable

import pillow_heif
import pytest
from PIL import Image, ImageCms

from fastfit_watch.domain.limits import Limits
from fastfit_watch.imaging.codec import open_image
from fastfit_watch.imaging.colour import adobe_rgb_profile

SIZE = (40, 40)
pillow_heif.register_heif_opener()
SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def saved(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    data = io.BytesIO()
    image.save(data, kind, **options)
    return data.getvalue()


def colour_of(data: bytes) -> tuple[int, ...]:
    found = open_image(data, Limits()).getpixel((20, 20))
    assert isinstance(found, tuple)
    return found


def near(found: tuple[int, ...], wanted: tuple[int, ...], most: int = 2) -> bool:
    return max(abs(a - b) for a, b in zip(found, wanted, strict=True)) <= most


def curve_of(profile: bytes, gamma: float) -> bytes:
    """The profile with curves of this gamma in place of its own, under its old name."""
    curve = b"curv" + struct.pack(">IIH", 0, 1, round(gamma * 256)) + bytes(2)
    changed, at = bytearray(profile), len(profile)
    for number in range(struct.unpack(">I", profile[128:132])[0]):
        entry = 132 + 12 * number
        if profile[entry : entry + 4] in (b"rTRC", b"gTRC", b"bTRC", b"kTRC"):
            changed[entry + 4 : entry + 12] = struct.pack(">II", at, len(curve))
    changed += curve
    changed[:4] = struct.pack(">I", len(changed))
    return bytes(changed)


def exchanged(profile: bytes) -> bytes:
    """The profile with red and blue exchanged, under its old name: who ignores it sees the wrong colour."""
    swapped = profile.replace(b"rXYZ", b"tmp!").replace(b"bXYZ", b"rXYZ").replace(b"tmp!", b"bXYZ")
    assert b"s\0R\0G\0B" in swapped, "the description is still sRGB's"
    return swapped


def grey_profile(gamma: float) -> bytes:
    curve = b"curv" + struct.pack(">IIH", 0, 1, round(gamma * 256)) + bytes(2)
    white = b"XYZ " + bytes(4) + struct.pack(">3i", 63190, 65536, 54061)
    table = struct.pack(">I", 2) + b"wtpt" + struct.pack(">II", 156, 20) + b"kTRC" + struct.pack(">II", 176, 16)
    header = struct.pack(">I4sI4s4s4s", 192, bytes(4), 0x02100000, b"mntr", b"GRAY", b"XYZ ")
    header += bytes(12) + b"acsp" + bytes(28) + struct.pack(">3i", 63190, 65536, 54061)
    return header.ljust(128, b"\0") + table + white + curve


LINEAR = curve_of(SRGB, 1.0)
LINEAR_GREY = grey_profile(1.0)
# 64/255 of the light, and 128/255, in sRGB's curve (IEC 61966-2-1).
LIGHT_64, LIGHT_128 = 137, 188


def test_srgb_changes_nothing() -> None:
    for profile in (b"", SRGB, b"no profile at all", SRGB[:200]):
        assert colour_of(saved(Image.new("RGB", SIZE, (200, 100, 50)), icc_profile=profile)) == (200, 100, 50)


def test_a_profile_called_srgb_is_applied_if_it_is_another() -> None:
    picture = Image.new("RGB", SIZE, (64, 128, 255))
    assert near(colour_of(saved(picture, icc_profile=LINEAR)), (LIGHT_64, LIGHT_128, 255))
    other = Image.new("RGB", SIZE, (200, 100, 50))
    assert near(colour_of(saved(other, icc_profile=exchanged(SRGB))), (50, 100, 200), 3)


@pytest.mark.parametrize(
    ("make", "profile", "wanted"),
    [
        (lambda: Image.new("RGB", SIZE, (64, 64, 64)), LINEAR, LIGHT_64),
        (lambda: Image.new("RGBA", SIZE, (64, 64, 64, 255)), LINEAR, LIGHT_64),
        (lambda: Image.new("RGB", SIZE, (64, 64, 64)).quantize(), LINEAR, LIGHT_64),
        (lambda: Image.new("L", SIZE, 64), LINEAR, LIGHT_64),
        (lambda: Image.new("L", SIZE, 64), LINEAR_GREY, LIGHT_64),
        (lambda: Image.new("LA", SIZE, (64, 255)), LINEAR_GREY, LIGHT_64),
        (lambda: Image.new("I;16", SIZE, 64 * 257), LINEAR_GREY, LIGHT_64),
        (lambda: Image.new("RGB", SIZE, (64, 64, 64)), LINEAR_GREY, LIGHT_64),
        (lambda: Image.new("RGBA", SIZE, (64, 64, 64, 0)), LINEAR, 255),
        (lambda: Image.new("LA", SIZE, (64, 0)), LINEAR_GREY, 255),
    ],
    ids=["RGB", "RGBA", "P", "L+RGB", "L", "LA", "I;16", "RGB+grey", "RGBA-clear", "LA-clear"],
)
def test_a_profile_is_applied_to_every_mode_that_it_fits(
    make: Callable[[], Image.Image], profile: bytes, wanted: int
) -> None:
    assert near(colour_of(saved(make(), icc_profile=profile)), (wanted,) * 3)


@pytest.mark.parametrize("kind", ["JPEG", "WEBP", "AVIF", "HEIF"])
def test_a_profile_is_applied_in_every_format(kind: str) -> None:
    assert near(colour_of(saved(Image.new("RGB", SIZE, (64, 64, 64)), kind, icc_profile=LINEAR)), (LIGHT_64,) * 3, 3)
    assert near(colour_of(saved(Image.new("L", SIZE, 64), "JPEG", icc_profile=LINEAR_GREY)), (LIGHT_64,) * 3, 3)


def test_a_profile_of_other_channels_leaves_the_colours() -> None:
    assert colour_of(saved(Image.new("RGB", SIZE, (200, 100, 50)), icc_profile=LINEAR_GREY)) == (200, 100, 50)
    red = colour_of(saved(Image.new("CMYK", SIZE, (0, 255, 255, 0)), "JPEG", quality=95, icc_profile=LINEAR))
    assert red[0] > 240 and max(red[1:]) < 15


def exif_of(colour_space: int, index: str = "") -> Image.Exif:
    exif = Image.Exif()
    exif[0x8769] = {0xA001: colour_space}
    if index:
        exif[0x8769][0xA005] = {1: index}
    return exif


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize(
    ("exif", "wanted"),
    [
        (exif_of(65535, "R03"), (220, 30, 40)),
        (exif_of(2), (220, 30, 40)),
        (exif_of(65535), (189, 35, 44)),
        (exif_of(1, "R98"), (189, 35, 44)),
        (Image.Exif(), (189, 35, 44)),
    ],
    ids=["R03", "space-2", "uncalibrated", "R98", "none"],
)
def test_adobe_rgb_is_known_by_exif_alone(kind: str, exif: Image.Exif, wanted: tuple[int, ...]) -> None:
    options = {} if kind == "PNG" else {"quality": 100}
    picture = Image.new("RGB", SIZE, (189, 35, 44))
    assert near(colour_of(saved(picture, kind, exif=exif, **options)), wanted, 3)


def test_an_embedded_profile_counts_before_exif() -> None:
    picture = Image.new("RGB", SIZE, (189, 35, 44))
    assert colour_of(saved(picture, icc_profile=SRGB, exif=exif_of(65535, "R03"))) == (189, 35, 44)


def test_the_adobe_rgb_profile_is_one() -> None:
    profile = ImageCms.ImageCmsProfile(io.BytesIO(adobe_rgb_profile())).profile
    assert profile.xcolor_space.strip() == "RGB" and profile.connection_space.strip() == "XYZ"
    # The specification's primaries, (x, y) before their adaptation to D50.
    for name, x, y in (("red", 0.64, 0.33), ("green", 0.21, 0.71), ("blue", 0.15, 0.06)):
        _, (found_x, found_y, _) = getattr(profile, f"{name}_primary")
        assert abs(found_x - x) < 0.03 and abs(found_y - y) < 0.03
