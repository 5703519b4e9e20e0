"""PNG files: what does not decide how the picture looks may be damaged or huge, and costs nothing."""

from __future__ import annotations

import io
import os
import struct
import zlib

import pytest
from PIL import Image, ImageCms

from fastfit_watch.domain.errors import ImageError
from fastfit_watch.domain.limits import Limits
from fastfit_watch.imaging.codec import open_image
from fastfit_watch.imaging.png import MAX_PROFILE_BYTES, png_is_whole, split_png

SIDE = 40
SIGNATURE = b"\x89PNG\r\n\x1a\n"


def chunk(kind: bytes, body: bytes, damage: int = 0) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body) ^ damage)


def png(bits: int, colour: int, row: bytes, *more: bytes) -> bytes:
    """A PNG whose rows are all alike. more: chunks between header and pixels."""
    header = struct.pack(">IIBBBBB", SIDE, SIDE, bits, colour, 0, 0, 0)
    pixels = zlib.compress((b"\0" + row) * SIDE)
    return b"".join((SIGNATURE, chunk(b"IHDR", header), *more, chunk(b"IDAT", pixels), chunk(b"IEND", b"")))


def picture(*more: bytes) -> bytes:
    return png(8, 2, bytes((200, 100, 50)) * SIDE, *more)


def pixel(data: bytes, x: int = 0) -> tuple[int, ...]:
    found = open_image(data, Limits()).getpixel((x, 0))
    assert isinstance(found, tuple)
    return found


PROFILE = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
NOISE = os.urandom(2**20)


@pytest.mark.parametrize(
    "added",
    [
        chunk(b"tEXt", b"Comment\0hello", damage=1),
        chunk(b"zTXt", b"Comment\0\0no zlib stream"),
        chunk(b"zTXt", b"Comment\0\0" + zlib.compress(bytes(100 * 2**20))),
        chunk(b"iTXt", b"Comment\0\1\0\0\0" + zlib.compress(bytes(100 * 2**20))),
        chunk(b"tEXt", b"Comment\0" + b"x" * 2**21),
        chunk(b"tIME", b"short"),
        chunk(b"pHYs", b""),
        chunk(b"gAMA", b"1", damage=1),
        chunk(b"cHRM", b"", damage=1),
        chunk(b"sRGB", b"\7", damage=7),
        chunk(b"bKGD", bytes(1), damage=7),
        chunk(b"acTL", b"\0\0\0\2"),
        chunk(b"prVt", NOISE, damage=3),
        chunk(b"eXIf", b"no EXIF", damage=3),
        chunk(b"iCCP", b"a name without an end"),
        chunk(b"iCCP", b"broken\0\0no zlib stream"),
        chunk(b"iCCP", b"", damage=1),
    ],
    ids=lambda added: added[4:8].decode(),
)
def test_what_decides_nothing_costs_nothing(added: bytes) -> None:
    assert pixel(picture(added)) == (200, 100, 50)


@pytest.mark.parametrize("size", [2**20, 3 * 2**20, MAX_PROFILE_BYTES - len(PROFILE)])
def test_a_large_profile_is_used(size: int) -> None:
    # A profile names its own length; what comes behind it is no part of it.
    body = b"ICC\0\0" + zlib.compress(PROFILE + bytes(size))
    data, profile = split_png(picture(chunk(b"iCCP", body, damage=1)))
    assert len(profile) == len(PROFILE) + size and b"iCCP" not in data
    assert pixel(picture(chunk(b"iCCP", body))) == (200, 100, 50)


def test_a_profile_without_end_is_said() -> None:
    with pytest.raises(ImageError, match="its colour profile is larger than 16 MB"):
        pixel(picture(chunk(b"iCCP", b"ICC\0\0" + zlib.compress(bytes(MAX_PROFILE_BYTES + 1)))))


def test_the_orientation_is_kept_wherever_it_stands() -> None:
    upright = Image.linear_gradient("L").resize((60, SIDE))
    exif = Image.Exif()
    exif[0x0112] = 6
    data = io.BytesIO()
    upright.save(data, "PNG", exif=exif)
    assert open_image(data.getvalue(), Limits()).size == (SIDE, 60)
    packet = (
        b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
        b'<rdf:Description xmlns:tiff="http://ns.adobe.com/tiff/1.0/" tiff:Orientation="6"/></rdf:RDF></x:xmpmeta>'
    )
    plain = io.BytesIO()
    upright.save(plain, "PNG")
    at = len(SIGNATURE) + 25
    with_xmp = plain.getvalue()[:at] + chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + packet) + plain.getvalue()[at:]
    assert open_image(with_xmp, Limits()).size == (SIDE, 60)


@pytest.mark.parametrize(
    ("bits", "colour", "first", "others", "key", "wanted"),
    [
        (1, 0, b"\x7f", b"\xff", struct.pack(">H", 0), (255, 255, 255)),
        (2, 0, b"\x1b", b"\x1b", struct.pack(">H", 0), (85, 85, 85)),
        (4, 0, b"\x02", b"\x22", struct.pack(">H", 0), (34, 34, 34)),
        (8, 0, b"\x00", b"\x07", struct.pack(">H", 0), (7, 7, 7)),
        (16, 0, b"\x00\x00", b"\x07\x01", struct.pack(">H", 0), (7, 7, 7)),
        (16, 0, b"\x07\x00", b"\x07\x01", struct.pack(">H", 0x0700), (7, 7, 7)),
        (8, 2, b"\x00\x00\x00", b"\x01\x02\x03", struct.pack(">3H", 0, 0, 0), (1, 2, 3)),
        (16, 2, bytes(6), b"\x01\x00\x02\x00\x03\x00", struct.pack(">3H", 0, 0, 0), (1, 2, 3)),
    ],
)
def test_one_clear_tone_is_laid_on_white(
    bits: int, colour: int, first: bytes, others: bytes, key: bytes, wanted: tuple[int, ...]
) -> None:
    length = (SIDE * bits * (3 if colour == 2 else 1) + 7) // 8
    data = png(bits, colour, (first + others * length)[:length], chunk(b"tRNS", key, damage=1))
    assert pixel(data, 0) == (255, 255, 255)
    assert pixel(data, 1) == wanted


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (SIGNATURE + chunk(b"IHDR", b"short") + chunk(b"IEND", b""), "damaged PNG picture ("),
        (SIGNATURE + chunk(b"IEND", b""), "damaged PNG picture ("),
        (SIGNATURE + chunk(b"IDAT", b"") + chunk(b"IEND", b""), "damaged PNG picture ("),
        (picture().replace(b"IHDR", b"IHDX"), "damaged PNG picture ("),
        (png(8, 2, b"\0" * 3), "damaged PNG picture ("),
        (png(3, 2, b"\0" * 3), "damaged PNG picture ("),
        (picture(chunk(b"PLTE", b"", damage=1)), "damaged PNG picture ("),
    ],
)
def test_a_sentence_has_no_address_of_an_object(data: bytes, words: str) -> None:
    with pytest.raises(ImageError) as caught:
        open_image(data, Limits(), "shirt.png")
    assert words in str(caught.value) and " at 0x" not in str(caught.value) and "<" not in str(caught.value)
    assert "'shirt.png'" in str(caught.value)


def test_a_file_is_whole_with_its_end_alone() -> None:
    data = picture()
    assert png_is_whole(data) and png_is_whole(data + b"more")
    assert not any(png_is_whole(data[:length]) for length in range(len(data)))
