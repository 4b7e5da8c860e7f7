"""What travels between the nodes, and how it looks to a person."""

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from comfy_api.latest import io

from ..guard.errors import NotApplicable
from ..guard.report import MemorizationReport

CATEGORY = "Cryptomnesia"
OFF_TEXT = "off: nothing was measured, and all passes as it came"
Signature = io.Custom("CRYPTOMNESIA_SIGNATURE")  # a Signatures object
Candidate = io.Custom("CRYPTOMNESIA_CANDIDATE")  # a model with images of its own
PoolModel = io.Custom("CRYPTOMNESIA_POOL_MODEL")  # a name, and images by prompt
Finding = io.Custom("CRYPTOMNESIA_FINDING")  # plain data for a sidecar: a list of one, or of one per image
Report = io.Custom(
    "CRYPTOMNESIA_REPORT"
)  # MemorizationReport.to_dict(): plain data, equal for every copy of the library


def read_report(report: dict[str, Any]) -> MemorizationReport:
    """Returns a report that came over a wire. Raises InputError for anything else."""
    return MemorizationReport.from_dict(report)


def start_shape(model: Any, latent: dict[str, Any]) -> tuple[int, int, int]:
    """Returns the shape (C, H, W) that sampling from an empty latent starts at, as ComfyUI's samplers fit it.

    Raises:
        NotApplicable: Sampling would start from an image, or the latent is a video's or a sound's.
    """
    import comfy.sample
    import torch

    samples = latent["samples"]
    if latent.get("noise_mask") is not None or torch.count_nonzero(samples):
        raise NotApplicable("sampling starts from an image, not from pure noise: a check says nothing there")
    ratios = (latent.get("downscale_ratio_spacial"), latent.get("downscale_ratio_temporal"))
    fitted = comfy.sample.fix_empty_latent_channels(model, samples, *ratios)
    return tuple(still(fitted).shape[1:])


def still(samples: Any) -> Any:
    """Returns latents of images, (B, C, H, W); of models that keep an image as a film, of their one frame.

    Raises NotApplicable for latents of videos and sound.
    """
    if samples.ndim == 5 and samples.shape[2] == 1:
        return samples.squeeze(2)
    if samples.ndim != 4:
        raise NotApplicable("this is the latent of a video or of sound: checks are for images")
    return samples


def worst_of(reports: Sequence[MemorizationReport]) -> MemorizationReport:
    """Returns the report with the highest score: several rows are several prompts for one batch of images."""
    return max(reports, key=lambda report: -math.inf if report.score is None else report.score)


def noted(report: MemorizationReport, note: str | None) -> MemorizationReport:
    """Returns a report that also says what a note does; None for nothing."""
    notes = [text for text in (report.note, note) if text]
    return replace(report, note="; ".join(notes)) if notes else report


def described(report: dict[str, Any], *, words: bool = True) -> str:
    """Returns a report in a few plain lines; without words of the prompt where they are not wanted."""
    lines = [_verdict(report)]
    if report["score"] is not None:
        lines.append(f"score {report['score']:.3f} from {report['draws']} noise draws (higher: more likely memorized)")
    lines += [text for text in (report["reason"], report["note"]) if text]
    if report["mitigation"]:
        lines += mitigation_lines(report["mitigation"], words=words)
    return "\n".join(lines)


def _verdict(report: dict[str, Any]) -> str:
    verdict, p_value, alpha = report["verdict"], report["p_value"], report["alpha"]
    if verdict == "memorized":
        return (
            f"LIKELY MEMORIZED: p = {p_value:.3g}. At most {alpha:.3g} of benign prompts look like this; "
            "it is a likelihood, no proof."
        )
    if verdict == "clear":
        return f"clear: p = {p_value:.3g}, like a benign prompt"
    return str(verdict)


def mitigation_lines(about: dict[str, Any], *, words: bool = True) -> list[str]:
    """Returns lines that say what was tried, what became of it, and each word that was changed, where wanted."""
    lines = [f"{about['method']}: held on fresh noise" if about["held"] else f"{about['method']}: {about['reason']}"]
    if about["p_before"] is not None:
        lines.append(f"p {about['p_before']:.3g} -> {about['p_after']:.3g}")
    if not words:
        return lines
    if about["original"] != about["rewritten"]:
        lines += [f"before: {about['original']}", f"after:  {about['rewritten']}"]
    return lines + [_change(change) for change in about["words"]]


def _change(change: dict[str, Any]) -> str:
    if change["kind"] == "insert":
        return f"  + {change['became']}"
    return f"  - {change['word']}" if change["kind"] == "drop" else f"  {change['word']} -> {change['became']}"
