"""Signs images by C2PA: into their own file, or into a file beside them. Nothing is fetched, but for a time-stamp.

Our statement goes under our own label, as data that every C2PA reader can show, with the digest of its JSON, which
ties the JSON sidecar to the signature. What is embedded is bound to all other bytes of the file.
Reference: C2PA Technical Specification 2.4.
"""

import io
import json
from collections.abc import Mapping, Sequence
from typing import Any

from .. import __version__
from ..errors import SidecarError, require
from . import c2pa
from . import manifest as embedded
from .keys import Signer
from .manifest import Parent
from .marking import GENERATED
from .statement import digest
from .time_stamp import relayed

_SETTINGS = {
    "builder": {"thumbnail": {"enabled": False}},
    "verify": {"remote_manifest_fetch": False, "ocsp_fetch": False},  # a parent may point anywhere
}
_CREATED = {"action": "c2pa.created", "digitalSourceType": GENERATED}


def sign(statement: dict[str, Any], image: bytes, media_type: str, signer: Signer) -> bytes:
    """Signs an image and its statement. Sign last: any later change of the image makes the signature invalid.

    Args:
        statement: What the sidecar says.
        image: All bytes of the image.
        media_type: The image's media type, e.g. "image/png".
        signer: What signs.

    Returns:
        The bytes of the .c2pa file.

    Raises:
        SidecarError: The library refuses the image, the certificate or the key.
        MissingPackage: c2pa-python is not installed.
    """
    definition = {
        "claim_generator_info": [{"name": "cryptomnesia", "version": __version__}],
        "format": media_type,
        "title": statement["subject"][0]["name"],
        "assertions": [
            {"label": "c2pa.actions", "data": {"actions": [_CREATED]}},
            {"label": c2pa.LABEL, "data": {"json_sha256": digest(statement), "statement": safe(statement)}},
        ],
    }
    return _signed_by(signer, definition, (), image, media_type, None)[1]


def embed(
    statement: Mapping[str, Any],
    image: bytes,
    media_type: str,
    signer: Signer,
    *,
    parent: Parent | None = None,
    time_authority: str | None = None,
) -> tuple[bytes, str | None]:
    """Returns the image's file with a signed manifest in it. Embed last: any later change makes it invalid.

    Args:
        statement: What the sidecar says; it tells a marking.
        image: All bytes of the image, with all metadata that it shall have.
        media_type: The image's media type, e.g. "image/png".
        signer: What signs.
        parent: The file that the image was made from; its manifest is kept in this one.
        time_authority: Address that stamps the signature; see `time_stamp`.

    Returns:
        The bytes of the file; and why the signature has no time-stamp although one was asked for, or None.

    Raises:
        SidecarError: The library refuses the image, the certificate or the key.
        MissingPackage: c2pa-python is not installed.
    """
    predicate = statement["predicate"]
    definition = embedded.manifest(statement["subject"][0]["name"], media_type, statement, parent)
    parts = embedded.ingredients(predicate, parent)
    arguments = (signer, definition, parts, image, media_type)
    if time_authority is None:
        return _signed_by(*arguments, None, inside=True)[0], None
    with relayed(time_authority) as relay:
        try:
            return _signed_by(*arguments, relay.address, inside=True)[0], None
        except SidecarError:
            if not relay.asked:  # the fault lies elsewhere
                raise
            reason = relay.reason or "the time authority's answer is no time-stamp of this signature"
    return _signed_by(*arguments, None, inside=True)[0], reason


def _signed_by(
    signer: Signer,
    definition: Mapping[str, Any],
    parts: Sequence[embedded.Ingredient],
    image: bytes,
    media_type: str,
    time_authority: str | None,
    *,
    inside: bool = False,
) -> tuple[bytes, bytes]:
    """The file with the manifest in it where it shall be `inside`, and the manifest."""
    library = require("c2pa", "c2pa")
    info = library.C2paSignerInfo(signer.algorithm, signer.certificates, signer.key, time_authority)
    out = io.BytesIO()
    try:
        with (
            library.Settings.from_dict(_SETTINGS) as settings,
            library.Context(settings) as context,
            library.Signer.from_info(info) as native,
            library.Builder(json.dumps(definition), context) as builder,
        ):
            if not inside:
                builder.set_no_embed()
            for part in parts:
                builder.add_ingredient(json.dumps(part.description), part.media_type, io.BytesIO(part.data))
            written = builder.sign(native, media_type, io.BytesIO(image), out)
            return out.getvalue(), written
    except (library.C2paError, ValueError):
        pass
    # outside the except clause: no part of the key may travel with the cause
    raise SidecarError("the image cannot be signed: the certificate or the key is none that C2PA accepts")


def safe(value: Any) -> Any:
    """Returns the same data as C2PA keeps it: numbers in plain lists as texts, which would else turn into base64."""
    if isinstance(value, dict):
        return {key: safe(item) for key, item in value.items()}
    if isinstance(value, list):
        numbers = value and all(isinstance(item, int | float) for item in value)
        return [str(item) for item in value] if numbers else [safe(item) for item in value]
    return value
