"""What a picture says of itself: an XMP packet that calls it made by a trained model and says how it was made.

Source of the property: IPTC Photo Metadata Standard, "Digital Source Type". Source of the value: IPTC NewsCodes,
Digital Source Type, for a photograph of which a part was generated (inpainting).
"""

from __future__ import annotations

import html
import io
import re
from collections.abc import Mapping
from pathlib import Path

SOURCE_TYPE = "http://cv.iptc.org/newscodes/digitalsourcetype/compositeWithTrainedAlgorithmicMedia"
_PACKET = """\
<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?>
<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">
<rdf:Description rdf:about="" xmlns:xmp="http://ns.adobe.com/xap/1.0/"
 xmlns:Iptc4xmpExt="http://iptc.org/std/Iptc4xmpExt/2008-02-29/" xmlns:fastfit="urn:fastfit-watch:marks:"
 xmp:CreatorTool="fastfit-watch" Iptc4xmpExt:DigitalSourceType="{source_type}"{marks}/>
</rdf:RDF></x:xmpmeta>
<?xpacket end="r"?>"""
_NAME = re.compile(r"[a-z][a-z0-9_]*")
_MARK = re.compile(r'\bfastfit:([a-z][a-z0-9_]*)="([^"]*)"')
_NOT_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
# Line breaks inside an attribute would be read back as spaces.
_BREAKS = str.maketrans({"\t": "&#9;", "\n": "&#10;", "\r": "&#13;"})


def xmp_packet(marks: Mapping[str, str]) -> bytes:
    """Return the XMP packet (UTF-8) of a result. Equal marks give equal bytes, in whatever order they come.

    Raises ValueError for a mark whose name is not lower-case letters, digits and `_`. Characters that XML cannot hold
    become U+FFFD.
    """
    fields = ""
    for name, value in sorted(marks.items()):
        if not _NAME.fullmatch(name):
            raise ValueError(f"{name!r} cannot be the name of a mark")
        text = html.escape(_NOT_XML.sub("\ufffd", value)).translate(_BREAKS)
        fields += f'\n fastfit:{name}="{text}"'
    return _PACKET.format(source_type=SOURCE_TYPE, marks=fields).encode()


def read_marks(source: bytes | Path) -> dict[str, str]:
    """Return the marks that `encode_image` wrote into a picture, given as its bytes or its path; none: an empty dict.

    Only the header is read. Raises OSError for what is no picture.
    """
    from PIL import Image

    with Image.open(io.BytesIO(source) if isinstance(source, bytes) else source) as image:
        packet = image.info.get("xmp") or image.info.get("XML:com.adobe.xmp") or b""
    text = packet.decode("utf-8", "replace") if isinstance(packet, bytes) else str(packet)
    return {name: html.unescape(value) for name, value in _MARK.findall(text)}
