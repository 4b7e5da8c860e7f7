"""What else was asked about an image, as it goes into a sidecar: plain data, each with its kind.

A new kind is one entry in KINDS, and its shape in schema.json.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from ..errors import InputError
from ..printable import printable

MOST_NAMES = 8  # that one line can tell
MOST_TOLD = 16


@dataclass(frozen=True)
class Kind:
    """What is kept of a finding, what it does not mean, and how it is told.

    Attributes:
        kept: Its values by name, in the order of the file; of "images.count" only that part of images is kept.
        limit: One sentence.
        told: From such a finding, as read from a file, half a sentence.
    """

    kept: tuple[str, ...]
    limit: str
    told: Callable[[Mapping[str, Any]], str]


def _attribution(found: Mapping[str, Any]) -> str:
    names = ", ".join(printable(name, 80) for name in list(found["distances"])[:MOST_NAMES])
    decision, p_value = found["decision"], found["p_value"]
    probability = found["probabilities"].get(decision)
    if probability is None:
        return f"no verdict on which of the models {names} made the image"
    sure = "likely" if probability >= 0.5 else "not clear, perhaps"
    odd = "" if p_value is None else f"; p = {p_value:.3g} that an image by one of them looks so odd"
    return f"of the models {names}, {sure} made by {printable(decision, 80)} ({100 * probability:.0f} %{odd})"


def _signature(found: Mapping[str, Any]) -> str:
    return (
        f"the spectral signature of {printable(found['name'], 80)} was measured on {found['images']} images, plan "
        f"{printable(found['plan'], 20)}, sha256 {found['sha256'][:12]}"
    )


def _membership(found: Mapping[str, Any]) -> str:
    about = f"a set of {found['suspects']} images"
    if found["verdict"] == "confounded":
        return f"no verdict on training on {about}: the references are of another kind"
    rate = f"p = {found['p_value']:.2g} against {found['references']} references"
    if found["verdict"] == "no evidence":
        return f"no evidence that the model was trained on {about}; {rate}"
    wrong = f"at most {100 * found['alpha']:.3g} % of sets without training images are called so"
    return f"the model was likely trained on some of {about}; {rate}, {wrong}"


def _lineage(found: Mapping[str, Any]) -> str:
    near = sorted(found["distances"], key=lambda name: found["distances"][name])
    names = ", ".join(printable(name, 80) for name in near[:MOST_NAMES])
    decision, confidence, prompts = found["decision"], found["confidence"], sum(found["votes"].values())
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
    """The part of a statement about one finding.

    Args:
        finding: A mapping with `kind` and the values of that kind, or an object whose to_dict gives one.

    Raises:
        InputError: No finding, or of an unknown kind.
    """
    values = finding.to_dict() if hasattr(finding, "to_dict") else finding
    kind = values.get("kind") if isinstance(values, Mapping) else None
    if kind not in KINDS:
        raise InputError(f"a finding is plain data of the kind {' or '.join(KINDS)}, not {kind!r}: give such a one")
    return {"kind": kind, **{path.partition(".")[0]: _at(values, path) for path in KINDS[kind].kept}}


def _at(values: Any, path: str) -> Any:
    """What lies there, or None."""
    for name in path.split("."):
        values = values.get(name) if isinstance(values, Mapping) else None
    return values


def limits(findings: Iterable[Mapping[str, Any]]) -> list[str]:
    """What each kind among them does not mean, once."""
    return [KINDS[kind].limit for kind in dict.fromkeys(finding["kind"] for finding in findings)]


def told(findings: Iterable[Mapping[str, Any]]) -> list[str]:
    """A sentence on each, of findings as read from a file, but on no more than one can read."""
    findings = list(findings)
    more = [f"It says {len(findings) - MOST_TOLD} things more."] if len(findings) > MOST_TOLD else []
    return [*(f"It also says: {KINDS[finding['kind']].told(finding)}." for finding in findings[:MOST_TOLD]), *more]
