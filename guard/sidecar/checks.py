"""What a report says, as it goes into a sidecar."""

from collections.abc import Mapping
from typing import Any

from ..errors import SidecarError
from .privacy import Privacy

_HIGHER = "higher = more likely memorized"
# name, at which noise level it is measured, how to read it
_SIGNALS = (
    ("score", "the first sampling step, from pure noise", _HIGHER),
    ("iso", "the first sampling step, from pure noise", _HIGHER),
    ("aniso", "near the end of the schedule, from pure noise", "depends on the model; takes part in no verdict"),
)
_KEPT = ("p_value", "alpha", "draws", "forward_rows", "reason", "note", "fingerprint", "calibration_id")
_MITIGATED = ("score_before", "score_after", "p_before", "p_after", "recall", "similarity", "forward_rows")
_LOCATED = ("share", "peak", "sigma", "probes", "smoothing", "forward_rows")

_ALWAYS = (
    "The verdict is a likelihood drawn from a statistical test, not proof about this image.",
    "It says nothing about rights, and nothing about the person who made the image or where it was published.",
    "Unless a signature beside it vouches for it, anyone could have written or changed this file.",
)
_MEANING = {
    "clear": "Clear means that the prompt looks like a benign one; memorization that leaves no trace in the model's "
    "guidance is not found.",
    "uncalibrated": "There was no calibration for this model, so there is a score but no verdict and no false-alarm "
    "rate.",
    "not applicable": "The check could not be made, for the reason given; nothing follows from that either way.",
}


def check_of(report: Mapping[str, Any], privacy: Privacy, calibration: Any) -> dict[str, Any]:
    """Returns the part of the statement about the check, as plain data; its prompts are treated as `privacy` says.

    Raises SidecarError if the calibration is not the one that the report names.
    """
    threshold, benign = _calibrated(report, calibration)
    seed = report.get("seed")
    return {
        "verdict": report.get("verdict"),
        "signals": [
            {"name": name, "value": report.get(name), "level": level, "direction": direction}
            for name, level, direction in _SIGNALS
        ],
        **{key: privacy.quoted(report.get(key)) for key in _KEPT},
        "noise_seed": None if seed is None else str(seed),
        "threshold": threshold,
        "benign_prompts": benign,
        "mitigation": _mitigation(report.get("mitigation"), privacy),
        **({} if report.get("reference") is None else {"reference": report["reference"]}),
        **({} if report.get("region") is None else {"region": _region(report["region"])}),
    }


def _calibrated(report: Mapping[str, Any], calibration: Any) -> tuple[float | None, int | None]:
    """The score above which this calibration flags, and how many benign prompts it rests on."""
    if calibration is None or report.get("calibration_id") is None:
        return None, None
    if calibration.identity != report["calibration_id"]:
        raise SidecarError("the report was made with another calibration than the one given: give that one, or none")
    return calibration.threshold, calibration.n


def _mitigation(about: Mapping[str, Any] | None, privacy: Privacy) -> dict[str, Any] | None:
    if about is None:
        return None
    return {
        "method": about.get("method"),
        "held": about.get("held"),
        "reason": privacy.quoted(about.get("reason")),
        "original": privacy.text(about.get("original")),
        "rewritten": privacy.text(about.get("rewritten")),
        "changes": [_change(change, privacy) for change in about.get("words") or []],
        **{key: about.get(key) for key in _MITIGATED},
    }


def _region(about: Mapping[str, Any]) -> dict[str, Any]:
    return {key: about.get(key) for key in _LOCATED}


def _change(change: Mapping[str, Any], privacy: Privacy) -> dict[str, Any]:
    # single words are left out even where prompts are hashed: a dictionary would find them in no time
    words = ("word", "became") if privacy.mode == "plain" else ()
    return {key: change.get(key) for key in ("kind", "significance", *words)}


def limitations(report: Mapping[str, Any] | None) -> list[str]:
    """Returns plain sentences on what the verdict of a report (None: nothing was checked) means and does not mean."""
    if report is None:
        return ["No check was made: nothing is said about memorization.", *_ALWAYS[1:]]
    verdict, alpha = report.get("verdict"), report.get("alpha")
    lines = [_ALWAYS[0]]
    if verdict == "memorized" and alpha is not None:
        lines.append(
            f"Likely memorized means that at most {alpha:.3g} of benign prompts like those of the calibration would be "
            "flagged; it is not the probability that this image reproduces training data."
        )
    elif verdict in _MEANING:
        lines.append(_MEANING[verdict])
    if (report.get("region") or {}).get("share"):
        lines.append(
            "The marked area is an estimate of where the prompt pins the image down most; its border is not exact."
        )
    return [*lines, *_ALWAYS[1:]]
