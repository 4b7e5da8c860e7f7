"""DSSE envelopes: what lies in one, before anybody asks who signed it.

Reference: DSSE 1.0.2, https://github.com/secure-systems-lab/dsse, envelope.md.
"""

import base64
import binascii
from collections.abc import Mapping
from typing import Any

PAYLOAD_TYPE = "application/vnd.in-toto+json"
_KEYS = {"payload", "payloadType", "signatures"}


def is_envelope(document: Any) -> bool:
    """Returns whether a JSON document is an envelope rather than what lies in one."""
    return isinstance(document, dict) and "payload" in document and "signatures" in document


def payload(document: Mapping[str, Any]) -> bytes:
    """Returns what lies in an envelope around an in-toto statement, unchecked. Raises ValueError for anything else."""
    if set(document) != _KEYS or document["payloadType"] != PAYLOAD_TYPE:
        raise ValueError("it is no envelope of an in-toto statement")
    signatures = document["signatures"]
    if not isinstance(signatures, list) or len(signatures) != 1 or not isinstance(signatures[0], dict):
        raise ValueError("it does not have exactly one signature")
    try:
        return base64.b64decode(document["payload"], validate=True)
    except (TypeError, ValueError, binascii.Error) as error:
        raise ValueError("what lies in its envelope is no base64") from error
