"""A verification in plain words. Texts from the sidecar are shown as one harmless line each."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from ..printable import printable
from .c2pa import Signature
from .findings import sentences
from .result import Verification

MOST = 8  # of each kind of line
_UNSIGNED = "The sidecar is not signed: anyone could have written or changed it."
_PIXELS = "only the picture that Pillow decodes was compared, without colour profile and orientation"
_VERDICTS = {
    "memorized": "likely memorized",
    "clear": "clear",
    "uncalibrated": "no verdict, since there was no calibration",
    "not applicable": "no verdict, since the check could not be made",
}


class Aside(NamedTuple):
    """What words need beside the states: what is wrong with the sidecar, who signed, why the pixels cannot be read,
    and whether the image file holds more than the picture that was compared."""

    problem: str | None
    signed: Signature | None
    unread: str | None = None
    more: bool = False


def lines(verification: Verification, document: dict[str, Any] | None, aside: Aside) -> Iterator[str]:
    """Yields one sentence or two per question.

    Args:
        verification: The states, without lines.
        document: The statement; None where there is none that can be read.
        aside: What the states alone do not say.
    """
    if document is None:
        problem = None if aside.problem is None else printable(aside.problem, 400)
        yield "There is no sidecar of this image." if problem is None else f"{problem[0].upper()}{problem[1:]}."
    else:
        yield _image(verification, document, aside)
        yield from _evidence(verification)
    yield from _signature(verification, aside.signed)
    if document is not None:
        if verification.clock == "ahead":
            yield (
                f"Warning: the sidecar says it was made at {document['predicate']['created']}, which is in the future: "
                "a clock was wrong, there or here."
            )
        yield _claims(verification)
        yield from _rewriting(verification, document["predicate"])
        yield from sentences((verification.claims or {})["findings"])


def _image(verification: Verification, document: dict[str, Any], aside: Aside) -> str:
    name = document["subject"][0]["name"]
    current_name = Path(verification.image).name.encode("utf-8", "replace").decode()
    renamed = f" It was called {printable(name)} then." if name != current_name else ""
    if verification.file == "same" and verification.pixels == "same":
        return "The image is byte for byte the one that the sidecar describes." + renamed
    if verification.pixels == "unreadable":
        state = "is the one that the sidecar describes" if verification.file == "same" else "was changed"
        return f"The file {state}; its pixels cannot be compared: {printable(aside.unread, 300)}.{renamed}"
    if verification.file == "same":
        return (
            "The file is the one that the sidecar describes, but its pixels are not: the sidecar was edited, or "
            "another version of Pillow decodes the image differently."
        )
    if verification.pixels == "same":
        more = " Further pictures or data in the file were not compared." if aside.more else ""
        return (
            "The pixels are the same, the file is not: its metadata were changed or stripped, or it was saved again; "
            f"{_PIXELS}.{more}{renamed}"
        )
    if renamed:
        return f"The pixels are not those that the sidecar describes: it describes another image, {printable(name)}."
    return "The pixels are not those that the sidecar describes: the image was changed, or it is another one."


def _evidence(verification: Verification) -> Iterator[str]:
    odd = [(name, state) for name, state in verification.evidence if state != "same"]
    for name, state in odd[:MOST]:
        if not name:
            yield "The evidence was not checked: the sidecar names too many files."
        elif state == "not checked":
            yield f"The file {printable(name)} that belongs to it was not checked: the files are too large together."
        else:
            yield f"The file {printable(name)} that belongs to it is {state}."
    if len(odd) > MOST:
        yield f"So it is with {len(odd) - MOST} more files."


def _signature(verification: Verification, signed: Signature | None) -> Iterator[str]:
    if verification.signature == "none":
        if verification.sidecar == "found":
            yield _UNSIGNED
        return
    if signed is None:
        yield "There is a signature, not checked: pip install c2pa-python; until then it vouches for nothing."
        return
    signer = printable(signed.signer or "a signer without a name", 80)
    if verification.signature == "trusted":
        yield f"The signature is good, by {signer}, whom you trust."
    elif verification.signature == "valid, signer unknown":
        yield (
            f"The signature is good, by a signer you have not said you trust, who goes by {signer}: anyone can choose "
            "that name. Check it with --trust and the signer's root certificate."
        )
    else:
        yield f"The signature is invalid: {printable(signed.reason)}."
    yield from _agreement(verification, signed)


def _agreement(verification: Verification, signed: Signature) -> Iterator[str]:
    if verification.agreement == "differs" and signed.statement is None:
        yield "The signature does not cover the sidecar: anyone could have written or changed it."
    elif verification.agreement == "differs":
        yield "The sidecar does not say what was signed: it was edited, or written anew."
    elif verification.agreement == "same" and verification.signature == "invalid":
        yield "The sidecar says what was signed for the file as it was then."
    elif verification.agreement is None and verification.sidecar == "found":
        yield _UNSIGNED.replace("is not signed", "has no valid signature")


def _claims(verification: Verification) -> str:
    claims = verification.claims or {}
    names = claims["models"]
    models = ", ".join(printable(name, 80) for name in names[:MOST]) or "no model named"
    models += f" and {len(names) - MOST} more" if len(names) > MOST else ""
    text = f"It says: made by {printable(claims['host'], 80)} with {models}, at {claims['created']}; "
    verdict = claims["verdict"]
    text += "not checked for memorization" if verdict is None else _VERDICTS[verdict]
    if claims["p_value"] is not None:
        text += f" (p = {claims['p_value']:.3g}"
        text += ")" if claims["alpha"] is None else f", at a false-alarm rate of {claims['alpha']:.3g})"
    return f"{text}; prompts: {claims['prompt_mode']}."


def _rewriting(verification: Verification, predicate: dict[str, Any]) -> Iterator[str]:
    """A sentence where another prompt than the user's own was used."""
    prompt, mitigation = predicate["prompt"], (predicate["check"] or {}).get("mitigation") or {}
    if (verification.claims or {})["rewritten"]:
        before, after = (
            mitigation.get("original") or prompt["original"],
            prompt["rewritten"] or mitigation.get("rewritten"),
        )
        if prompt["mode"] == "plain" and before is not None and after is not None:
            yield f'It also says: the prompt "{printable(before)}" had been rewritten to "{printable(after)}".'
        else:
            yield "It also says: the prompt had been rewritten; the texts are not in the sidecar."
    elif mitigation.get("held"):
        yield f"It also says: memorization was mitigated by the method {printable(mitigation['method'], 40)}."
