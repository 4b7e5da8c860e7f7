"""A verification in plain words. Texts from the sidecar are shown as one harmless line each."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..printable import printable
from .findings import told

if TYPE_CHECKING:
    from .c2pa import Signature
    from .verification import Verification

_UNSIGNED = "The sidecar is not signed: anyone could have written or changed it."
_VERDICTS = {
    "memorized": "likely memorized",
    "clear": "clear",
    "uncalibrated": "no verdict, since there was no calibration",
    "not applicable": "no verdict, since the check could not be made",
}


def lines(
    found: "Verification", document: dict[str, Any] | None, signed: "Signature | None", problem: str | None
) -> Iterator[str]:
    """One sentence or two per question."""
    if document is None:
        yield "There is no sidecar of this image." if problem is None else f"{problem[0].upper()}{problem[1:]}."
    else:
        yield _image(found, document)
        yield from _evidence(found)
    yield from _signature(found, signed)
    if document is not None:
        if found.clock == "ahead":
            yield (
                f"Warning: the sidecar says it was made at {document['predicate']['created']}, which is in the future: "
                "a clock was wrong, there or here."
            )
        yield _claims(found)
        yield from told((found.claims or {})["findings"])


def _image(found: "Verification", document: dict[str, Any]) -> str:
    name = document["subject"][0]["name"]
    renamed = f" It was called {printable(name)} then." if name != Path(found.image).name else ""
    if found.file == "intact" and found.pixels == "same":
        return "The image is byte for byte the one that the sidecar tells of." + renamed
    if found.file == "intact":
        return (
            "The file is the one that the sidecar tells of, but its pixels are not: the sidecar was edited, or another "
            "version of Pillow decodes the image differently."
        )
    if found.pixels == "same":
        return (
            "The pixels are the same, the file is not: its metadata were changed or stripped, or it was saved again."
            + renamed
        )
    if found.pixels == "unreadable":
        return "The file was changed, and cannot be decoded any more." + renamed
    if renamed:
        return f"The pixels are not those that the sidecar tells of: it tells of another image, {printable(name)}."
    return "The pixels are not those that the sidecar tells of: the image was changed, or it is another one."


def _evidence(found: "Verification") -> Iterator[str]:
    for name, state in found.evidence:
        if state != "same":
            yield f"The file {printable(name)} that belongs to it is {state}."


def _signature(found: "Verification", signed: "Signature | None") -> Iterator[str]:
    if found.signature == "none":
        if found.sidecar == "found":
            yield _UNSIGNED
        return
    if signed is None:
        yield "There is a signature, not checked: pip install c2pa-python; until then it vouches for nothing."
        return
    signer = printable(signed.signer or "a signer without a name", 80)
    if found.signature == "trusted":
        yield f"The signature is good, by {signer}, whom you trust."
    elif found.signature == "valid, signer unknown":
        yield (
            f"The signature is good, by a signer you have not said you trust, who goes by {signer}: anyone can choose "
            "that name. Check it with --trust and the signer's root certificate."
        )
    else:
        yield f"The signature is invalid: {printable(signed.reason)}."
    yield from _agreement(found, signed)


def _agreement(found: "Verification", signed: "Signature") -> Iterator[str]:
    if found.agreement == "differs" and signed.statement is None:
        yield "The signature does not cover the sidecar: anyone could have written or changed it."
    elif found.agreement == "differs":
        yield "The sidecar does not say what was signed: it was edited, or written anew."
    elif found.agreement == "same" and found.signature == "invalid":
        yield "The sidecar says what was signed for the file as it was then."
    elif found.agreement is None and found.sidecar == "found":
        yield _UNSIGNED.replace("is not signed", "has no valid signature")


def _claims(found: "Verification") -> str:
    claims = found.claims or {}
    models = ", ".join(printable(name, 80) for name in claims["models"][:8]) or "no model named"
    text = f"It says: made by {printable(claims['host'], 80)} with {models}, at {claims['created']}; "
    verdict = claims["verdict"]
    text += "not checked for memorization" if verdict is None else _VERDICTS[verdict]
    if claims["p_value"] is not None:
        text += f" (p = {claims['p_value']:.3g}"
        text += ")" if claims["alpha"] is None else f", at a false-alarm rate of {claims['alpha']:.3g})"
    return f"{text}; prompts: {claims['prompt_mode']}."
