"""Reads the chunks of a PNG file: whether they reach its end, and which of them decide how the picture looks.

A decoder gets those alone: texts and other additions may be damaged or huge, and change nothing of the picture.
Source: PNG specification (third edition), section 5 for chunks, section 11.3 for the ancillary ones.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator

SIGNATURE = b"\x89PNG\r\n\x1a\n"
MAX_PROFILE_BYTES = 16 * 1024**2
"""Largest colour profile, uncompressed."""
_CRC_BYTES = 4
_HEAD_BYTES = 8  # length and kind of a chunk
_ANCILLARY = 0x20  # of the first letter of a kind: the chunk may be left out
# The orientation may stand in an XMP packet, or in the texts in which ImageMagick keeps EXIF.
_ORIENTATION_TEXTS = (b"XML:com.adobe.xmp\0", b"Raw profile type exif\0", b"Raw profile type APP1\0")
_GREY, _COLOUR = 0, 2


def png_is_whole(data: bytes) -> bool:
    """Does the chain of chunks reach IEND?"""
    return any(kind == b"IEND" for kind, _, _ in _chunks(data))


def split_png(data: bytes) -> tuple[bytes, bytes]:
    """Return the file with nothing but what decides how the picture looks, and its ICC profile, empty if it has none.

    The checksums of ancillary chunks are not judged. A profile that cannot be decompressed counts as none. Raises
    ValueError for one that is too large.
    """
    kept, profile = [SIGNATURE], b""
    bits, colour = 8, _COLOUR
    for kind, start, end in _chunks(data):
        body = data[start:end]
        if kind == b"IHDR" and len(body) >= 10:
            bits, colour = body[8], body[9]
        if not kind[0] & _ANCILLARY:
            kept.append(data[start - _HEAD_BYTES : end + _CRC_BYTES])
        elif kind == b"iCCP":
            profile = _decompress_profile(body)
        elif kind == b"tRNS":
            kept.append(_chunk(kind, _scale_transparency(body, bits, colour)))
        elif kind == b"eXIf" or body.startswith(_ORIENTATION_TEXTS):
            kept.append(_chunk(kind, body))
    return b"".join(kept), profile


def _chunks(data: bytes) -> Iterator[tuple[bytes, int, int]]:
    """Each chunk up to IEND as (kind, start of its body, end of its body), as far as they are there and sound."""
    at = len(SIGNATURE)
    while at + _HEAD_BYTES + _CRC_BYTES <= len(data):
        length, kind = int.from_bytes(data[at : at + 4], "big"), data[at + 4 : at + _HEAD_BYTES]
        start = at + _HEAD_BYTES
        at = start + length + _CRC_BYTES
        if not kind.isalpha() or at > len(data):
            return
        yield kind, start, start + length
        if kind == b"IEND":
            return


def _chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def _decompress_profile(body: bytes) -> bytes:
    """The profile of an iCCP chunk: a name, a zero, the method 0, then a zlib stream."""
    stream = zlib.decompressobj()
    try:
        profile = stream.decompress(body[body.index(b"\0") + 2 :], MAX_PROFILE_BYTES)
    except (ValueError, zlib.error):
        return b""
    if stream.unconsumed_tail:
        raise ValueError(f"its colour profile is larger than {MAX_PROFILE_BYTES // 1024**2} MB")
    return profile


def _scale_transparency(body: bytes, bits: int, colour: int) -> bytes:
    """The transparent tone or colour, in the 8 bits of a channel to which Pillow scales pixels but not this chunk.

    16-bit grey keeps its 16 bits, as Pillow does.
    """
    if colour == _GREY and bits in (2, 4) and len(body) == 2:
        return struct.pack(">H", int.from_bytes(body, "big") * 255 // (2**bits - 1))
    if colour == _COLOUR and bits == 16 and len(body) == 6:
        return struct.pack(">3H", *(value >> 8 for value in struct.unpack(">3H", body)))
    return body
