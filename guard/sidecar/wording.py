"""A verification in plain words. Texts from the sidecar are shown as one harmless line each."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ..printable import printable
from .c2pa import Signature
from .dsse import Sealed
from .findings import sentences
from .result import UNCHECKED, Verification
from .store import Match

MOST = 8  # of each kind of line
_UNSIGNED = "The sidecar is not signed: anyone could have written or changed it."
_PIXELS = "only the picture that Pillow decodes was compared, without colour profile and orientation"
_TRAINING = {"allowed": "allowed", "notAllowed": "not allowed", "constrained": "allowed under conditions"}
_VERDICTS = {
    "memorized": "likely memorized",
    "clear": "clear",
    "uncalibrated": "no verdict, since there was no calibration",
    "not applicable": "no verdict, since the check could not be made",
}


class Aside(NamedTuple):
    """What words need beside the states.

    Attributes:
        problem: What is wrong with the sidecar or the metadata.
        signed: The C2PA signature.
        unread: Why the pixels cannot be read.
        more: Whether the image file holds more than the picture that was compared.
        sealed: The signature of the JSON sidecar.
        said: What the XMP says, where there is nothing else.
        found: Records of a store that look like the image.
        inside: Whether the statement is the one in the image's own file.
    """

    problem: str | None
    signed: Signature | None
    unread: str | None = None
    more: bool = False
    sealed: Sealed | None = None
    said: Mapping[str, str] = {}
    found: Sequence[Match] = ()
    inside: bool = False


def lines(verification: Verification, document: dict[str, Any] | None, aside: Aside) -> Iterator[str]:
    """Yields one sentence or two per question.

    Args:
        verification: The states, without lines.
        document: The statement; None where there is none that can be read.
        aside: What the states alone do not say.
    """
    if document is None:
        problem = None if aside.problem is None else printable(aside.problem, 400)
        if problem is not None:
            yield f"{problem[0].upper()}{problem[1:]}."
        elif verification.embedded == "none":
            yield "There is no provenance in this image, and no sidecar beside it."
        if aside.said:
            yield from _metadata(verification, aside.said)
    else:
        yield _image(verification, document, aside)
        yield from files_that_differ(verification.evidence)
    yield from _signature(verification, aside)
    if document is not None:
        if verification.clock == "ahead":
            yield (
                f"Warning: the sidecar says it was made at {document['predicate']['created']}, which is in the future: "
                "a clock was wrong, there or here."
            )
        yield from _marking(document["predicate"].get("marking"))
        yield _claims(verification)
        yield from _rewriting(verification, document["predicate"])
        yield from sentences((verification.claims or {})["findings"])
    elif aside.signed is not None and aside.signed.embedded and aside.signed.state != "invalid":
        yield from _foreign(aside.signed)
    if document is None or verification.result == "changed":  # else it is no news that there are images like it
        yield from _records(aside.found)


def _image(verification: Verification, document: dict[str, Any], aside: Aside) -> str:
    name = document["subject"][0]["name"]
    current_name = Path(verification.image).name.encode("utf-8", "replace").decode()
    renamed = f" It was called {printable(name)} then." if name != current_name else ""
    if aside.inside:
        return _image_inside(verification, aside)
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


def _image_inside(verification: Verification, aside: Aside) -> str:
    """As `_image`, of a statement in the image's own file."""
    if verification.file == "same" and verification.pixels == "same":
        return "The file is as it was signed."
    if verification.pixels == "unreadable":
        return f"The pixels cannot be compared: {printable(aside.unread, 300)}."
    if verification.pixels == "same":
        return f"The pixels are those that were signed, the file is not: its metadata were changed; {_PIXELS}."
    return "The pixels are not those that the provenance in the file tells of: the image was changed."


def files_that_differ(evidence: Sequence[tuple[str, str]]) -> Iterator[str]:
    """Yields a sentence on each of the files, by name and state, that is not as it was; on a few, if there are many."""
    odd = [(name, state) for name, state in evidence if state != "same"]
    for name, state in odd[:MOST]:
        if not name:
            yield "The evidence was not checked: the sidecar names too many files."
        elif state == "not checked":
            yield f"The file {printable(name)} that belongs to it was not checked: the files are too large together."
        else:
            yield f"The file {printable(name)} that belongs to it is {state}."
    if len(odd) > MOST:
        yield f"So it is with {len(odd) - MOST} more files."


def _signature(verification: Verification, aside: Aside) -> Iterator[str]:
    signed = aside.signed
    if verification.signature == UNCHECKED:
        yield "There is a signature, not checked: pip install c2pa-python; until then it vouches for nothing."
    elif signed is not None:
        where = " in the file" if signed.embedded else ""
        yield _judged(f"The signature{where}", signed.state, signed.signer, signed.reason)
        yield from _agreement(verification, signed)
        if signed.stamped is not None:
            whose = "you trust" if signed.stamp_trusted else "you have not said you trust"
            yield f"A time authority that {whose} stamped it at {printable(signed.stamped, 40)}."
    elif verification.sidecar == "found" and verification.envelope == "none":
        yield _UNSIGNED
    if verification.envelope != "none":
        yield from signed_envelope(verification.envelope, aside.sealed)


def signed_envelope(state: str, sealed: Sealed | None, what: str = "sidecar") -> Iterator[str]:
    """Yields a sentence on the signature of an envelope, by its state and what was found; `what` lies in it."""
    if sealed is not None:
        yield _judged(f"The signature of the {what}", sealed.state, sealed.signer, sealed.reason)
    elif state == "not checked":
        yield f"The {what} is signed, not checked: pip install cryptography; until then it vouches for nothing."
    else:
        yield _UNSIGNED.replace("sidecar", what)


def _judged(what: str, state: str, signer: str | None, reason: str | None) -> str:
    name = printable(signer or "a signer without a name", 80)
    if state == "trusted":
        return f"{what} is good, by {name}, whom you trust."
    if state == "valid, signer unknown":
        return (
            f"{what} is good, by a signer you have not said you trust, who goes by {name}: anyone can choose that "
            "name. Check it with --trust and the signer's root certificate."
        )
    if state == "refused":
        return f"{what} is not accepted, since {printable(reason)}; its signer goes by {name}."
    return f"{what} is invalid: {printable(reason)}."


def _agreement(verification: Verification, signed: Signature) -> Iterator[str]:
    if signed.embedded:
        if verification.agreement == "differs":
            yield "The sidecar does not say what was signed in the file: it was edited, or written anew."
        elif verification.agreement is None and verification.sidecar == "found":
            yield "The signature in the file says nothing of the sidecar."
        return
    if verification.agreement == "differs" and signed.statement is None:
        yield "The signature does not cover the sidecar: anyone could have written or changed it."
    elif verification.agreement == "differs":
        yield "The sidecar does not say what was signed: it was edited, or written anew."
    elif verification.agreement == "same" and verification.signature == "invalid":
        yield "The sidecar says what was signed for the file as it was then."
    elif verification.agreement is None and verification.sidecar == "found":
        yield _UNSIGNED.replace("is not signed", "has no valid signature")


def _marking(marking: Mapping[str, Any] | None) -> Iterator[str]:
    """What the image says of itself."""
    if marking is None:
        return
    provider = "" if marking["provider"] is None else f", provided by {printable(marking['provider'], 80)}"
    kind = (
        "made in part by AI" if marking["source_type"].endswith("compositeWithTrainedAlgorithmicMedia") else "AI-made"
    )
    system = printable(f"{marking['system']} {marking['system_version']}", 120)
    yield f"It says: {kind}, by {system}{provider}; its id is {printable(marking['content_id'], 60)}."
    if marking["training"] is not None:
        yield f"Training on it: {_TRAINING[marking['training']]}, as it says."
    if marking["parent"] is not None:
        yield f"It was made from {printable(marking['parent'], 80)}, as it says."


def _metadata(verification: Verification, said: Mapping[str, str]) -> Iterator[str]:
    """What XMP says where there is nothing else."""
    if verification.pixels == "changed":
        yield "The pixels are not those that its metadata tell of: the image was changed or saved anew."
    elif verification.pixels == "same":
        yield "The pixels are those that its metadata tell of."
    kind = said.get("Iptc4xmpExt:DigitalSourceType", "").rpartition("/")[2]
    system = " ".join(
        said[name] for name in ("Iptc4xmpExt:AISystemUsed", "Iptc4xmpExt:AISystemVersionUsed") if said.get(name)
    )
    about = [f"source type {printable(kind, 60)}" if kind else "", f"by {printable(system, 120)}" if system else ""]
    identity = said.get("Iptc4xmpExt:DigImageGUID")
    about.append(f"its id is {printable(identity, 60)}" if identity else "")
    yield f"Its metadata say: {', '.join(part for part in about if part) or 'nothing of how it was made'}."
    yield "They are not signed: anyone could have written or changed them."


def _foreign(signed: Signature) -> Iterator[str]:
    """What the manifest of another program says."""
    about = [f"written by {printable(signed.generator, 80)}" if signed.generator else ""]
    about.append(f"source type {printable(', '.join(signed.source_types[:MOST]), 200)}" if signed.source_types else "")
    about.append(f"made from {printable(', '.join(signed.parents[:MOST]), 200)}" if signed.parents else "")
    yield f"Its manifest says: {', '.join(part for part in about if part) or 'nothing that is shown here'}."


def _records(found: Sequence[Match]) -> Iterator[str]:
    for match in found[:MOST]:
        identity = "" if match.content_id is None else f", id {match.content_id}"
        how = "the very same pixels" if match.same_pixels else f"distance {match.distance} of 256 bits"
        made = match.statement["predicate"]["created"]
        yield (
            f"It matches the record of {printable(match.name, 80)}, saved at {made}{identity} ({how}, by content, not "
            "by signature)."
        )


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
