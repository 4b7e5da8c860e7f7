"""XMP: what an image says about itself to every program that reads metadata, in IPTC's terms.

Whoever can open the file can change it: it vouches for nothing, and where a manifest signs the file it is written
before that. References: IPTC Photo Metadata Standard 2025.1; XMP Specification Part 1; PLUS LDF for data mining.
"""

import re
from collections.abc import Mapping
from xml.etree import ElementTree
from xml.sax.saxutils import escape

from ..errors import SidecarError

RDF = "http://www.w3.org/1999/02/22-rdf-syntax-ns#"
IPTC = "http://iptc.org/std/Iptc4xmpExt/2008-02-29/"
XMP = "http://ns.adobe.com/xap/1.0/"
PLUS = "http://ns.useplus.org/ldf/xmp/1.0/"
OURS = "urn:cryptomnesia:xmp:1:"
_PREFIXES = {"Iptc4xmpExt": IPTC, "xmp": XMP, "plus": PLUS, "cryptomnesia": OURS}
_UNFIT = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\ud800-\udfff\ufffe\uffff]")  # XML 1.0 has no way to write these
_DECLARED = re.compile(rb"<!(DOCTYPE|ENTITY)", re.IGNORECASE)
_END = b"</rdf:RDF>"


def packet(properties: Mapping[str, str | None], existing: bytes | None = None) -> bytes:
    """Returns an XMP packet.

    Args:
        properties: Values by name with prefix, e.g. "Iptc4xmpExt:AISystemUsed"; what is None is left out.
        existing: A packet that the image has: all that it says is kept, save what these properties say anew.

    Raises:
        SidecarError: The existing packet cannot be read, or is spelt so that nothing can be added to it.
    """
    lines = [
        f"  <{name}>{escape(_UNFIT.sub(chr(0xFFFD), value))}</{name}>"
        for name, value in properties.items()
        if value is not None
    ]
    spaces = "".join(f'\n    xmlns:{prefix}="{uri}"' for prefix, uri in _PREFIXES.items())
    block = "\n".join([f' <rdf:Description rdf:about=""{spaces}>', *lines, " </rdf:Description>"]).encode()
    if existing is not None:
        return _extended(existing, block)
    return b"\n".join(
        [
            '<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?>'.encode(),
            f'<x:xmpmeta xmlns:x="adobe:ns:meta/">\n<rdf:RDF xmlns:rdf="{RDF}">'.encode(),
            block,
            b'</rdf:RDF>\n</x:xmpmeta>\n<?xpacket end="w"?>',
        ]
    )


def _extended(existing: bytes, block: bytes) -> bytes:
    """The packet with one more block; blocks that this library wrote before are taken out."""
    read(existing)
    ours = re.compile(
        rb' <rdf:Description rdf:about=""[^>]*' + OURS.encode() + rb'"[^>]*>.*?</rdf:Description>\n?', re.S
    )
    existing = ours.sub(b"", existing)
    before, found, after = existing.rpartition(_END)
    if not found:
        raise SidecarError("the image has XMP that nothing can be added to: save it without its metadata")
    return before + block + b"\n" + found + after


def read(data: bytes) -> dict[str, str]:
    """Returns the plain texts in a packet, by name with the usual prefix; what else is in it is passed over.

    Raises SidecarError for what is no XML, and for XML that declares entities, which may unpack without end.
    """
    if _DECLARED.search(data):
        raise SidecarError("the XMP declares entities, so it is not read")
    try:
        root = ElementTree.fromstring(data.strip(b"\0 \r\n\t"))
    except (ElementTree.ParseError, ValueError, LookupError, RecursionError) as error:
        raise SidecarError(f"the XMP is no XML that can be read ({error})") from error
    names = {uri: prefix for prefix, uri in _PREFIXES.items()}
    found: dict[str, str] = {}
    for description in root.iter(f"{{{RDF}}}Description"):
        pairs = [
            *description.attrib.items(),
            *((child.tag, child.text or "") for child in description if not len(child)),
        ]
        for tag, value in pairs:
            uri, _, name = str(tag).removeprefix("{").rpartition("}")
            if uri in names:
                found[f"{names[uri]}:{name}"] = value
    return found
