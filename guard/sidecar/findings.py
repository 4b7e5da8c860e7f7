"""Further findings about an image, as they go into a sidecar: plain data, each with its kind.

A new kind is one entry in KINDS, and its shape in schema.json.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from ..errors import InputError
from ..printable import printable

MOST_NAMES = 8  # that one line can name
MOST_SENTENCES = 16


@dataclass(frozen=True)
class Kind:
    """What is kept of a finding, what it does not mean, and how it is put into words.

    Attributes:
        kept: Names of the values that are kept, in the order of the file; of "images.count" only that part of images.
        limit: One sentence on what such a finding does not mean.
        clause: Turns such a finding, as read from a file, into half a sentence.
    """

    kept: tuple[str, ...]
    limit: str
    clause: Callable[[Mapping[str, Any]], str]


def _attribution(finding: Mapping[str, Any]) -> str:
    names = ", ".join(printable(name, 80) for name in list(finding["distances"])[:MOST_NAMES])
    decision, p_value = finding["decision"], finding["p_value"]
    probability = finding["probabilities"].get(decision)
    if probability is None:
        return f"no verdict on which of the models {names} made the image"
    sure = "likely" if probability >= 0.5 else "not clear, perhaps"
    odd = "" if p_value is None else f"; p = {p_value:.3g} that an image by one of them looks so odd"
    return f"of the models {names}, {sure} made by {printable(decision, 80)} ({100 * probability:.0f} %{odd})"


def _signature(finding: Mapping[str, Any]) -> str:
    return (
        f"the spectral signature of {printable(finding['name'], 80)} was measured on {finding['images']} images, plan "
        f"{printable(finding['plan'], 20)}, sha256 {finding['sha256'][:12]}"
    )


def _membership(finding: Mapping[str, Any]) -> str:
    about = f"a set of {finding['suspects']} images"
    if finding["verdict"] == "confounded":
        return f"no verdict on training on {about}: the references are of another kind"
    if finding["verdict"] == "generated, not trained on":
        return f"no verdict on training on {about}: many of them look like a model's own"
    rate = f"p = {finding['p_value']:.2g} against {finding['references']} references"
    if finding["verdict"] == "no evidence":
        return f"no evidence that the model was trained on {about}; {rate}"
    wrong = f"at most {100 * finding['alpha']:.3g} % of sets without training images are called so"
    return f"the model was likely trained on some of {about}; {rate}, {wrong}"


def _comparison(finding: Mapping[str, Any]) -> str:
    of = f"{finding['references']} reference{'s' if finding['references'] != 1 else ''}"
    rate = "" if finding["p_value"] is None else f"; p = {finding['p_value']:.2g} among unrelated pictures"
    if finding["decision"] == "none":
        if finding["reason"] is not None:
            return f"no verdict on whether the image is a copy of one of {of}"
        return f"not found to be a copy of one of {of}{rate}"
    name = printable(finding["nearest"], 80)
    flipped = ", flipped" if finding["flipped"] else ""
    share = "" if finding["share"] is None else f", {100 * finding['share']:.0f} % of the image"
    what = {"same picture": "the same picture as", "same part": "a part is the same as in", "similar": "similar to"}
    return f"{what[finding['decision']]} {name}{flipped}{share}, of {of}{rate}"


def _lineage(finding: Mapping[str, Any]) -> str:
    near = sorted(finding["distances"], key=lambda name: finding["distances"][name])
    names = ", ".join(printable(name, 80) for name in near[:MOST_NAMES])
    decision, confidence, prompts = finding["decision"], finding["confidence"], sum(finding["votes"].values())
    if confidence is None:
        return f"not tested which of the models {names} another one comes from"
    if decision == "no majority":
        return f"no majority on which of the models {names} another one comes from"
    sure = "likely" if confidence >= 0.9 else "perhaps"
    rests = f"{100 * confidence:.0f} % of bootstrap draws, {prompts} prompt{'s' if prompts > 1 else ''}"
    return f"of the models {names}, the parent of another one is {sure} {printable(decision, 80)} ({rests})"


KINDS = {
    "attribution": Kind(
        ("decision", "probabilities", "p_value", "alpha", "distances", "evidence", "fingerprints"),
        "Which model made the image is a likelihood among the models that were named, and for an unaltered image.",
        _attribution,
    ),
    "signature": Kind(
        ("name", "fingerprint", "plan", "seed", "author_compat", "images", "sha256"),
        "A spectral signature tells whose denoiser was measured, not who made the image.",
        _signature,
    ),
    "comparison": Kind(
        ("decision", "p_value", "alpha", "references", "reason", "nearest", "similarity", "flipped", "share"),
        "A likeness to a reference is no proof of copying, and tells nothing of who made which first.",
        _comparison,
    ),
    "membership": Kind(
        (
            *("verdict", "p_value", "alpha", "auc", "interval", "suspects.images", "references.images"),
            *("comparability", "settings", "fingerprint"),
        ),
        "Membership is a likelihood about a set of images as a whole, which is not in this file; it says nothing about "
        "any single image, and rests on references of the same kind that were not trained on.",
        _membership,
    ),
    "lineage": Kind(
        ("decision", "confidence", "votes", "distances", "null_threshold", "margin", "fewest"),
        "Lineage is a likelihood from images alone, among the models that were named; no proof of what was trained on "
        "what.",
        _lineage,
    ),
}


def finding_of(finding: Any) -> dict[str, Any]:
    """Returns the part of a statement about one finding: its kind, and the values that are kept of it.

    Args:
        finding: A mapping with `kind` and the values of that kind, or an object whose to_dict gives one.

    Raises:
        InputError: It is no finding, or one of an unknown kind.
    """
    values = finding.to_dict() if hasattr(finding, "to_dict") else finding
    kind = values.get("kind") if isinstance(values, Mapping) else None
    if kind not in KINDS:
        raise InputError(f"a finding is plain data of the kind {' or '.join(KINDS)}, not {kind!r}: give such a one")
    return {"kind": kind, **{path.partition(".")[0]: _at(values, path) for path in KINDS[kind].kept}}


def _at(values: Any, path: str) -> Any:
    """The value at a path of names with dots between them, or None."""
    for name in path.split("."):
        values = values.get(name) if isinstance(values, Mapping) else None
    return values


def limits(findings: Iterable[Mapping[str, Any]]) -> list[str]:
    """Returns a sentence on what each kind among the findings does not mean, once per kind."""
    return [KINDS[kind].limit for kind in dict.fromkeys(finding["kind"] for finding in findings)]


def sentences(findings: Iterable[Mapping[str, Any]]) -> list[str]:
    """Returns a sentence on each of the findings, as read from a file, but no more than anyone would read."""
    findings = list(findings)
    more = [f"It says {len(findings) - MOST_SENTENCES} things more."] if len(findings) > MOST_SENTENCES else []
    return [
        *(f"It also says: {KINDS[finding['kind']].clause(finding)}." for finding in findings[:MOST_SENTENCES]),
        *more,
    ]
