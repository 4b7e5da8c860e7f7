"""Checks a batch just before it is sampled, and keeps back what must not go out."""

from collections.abc import Iterator
from typing import Any

import torch

from cryptomnesia import verdict
from cryptomnesia.attached.first_step import MOST_UNLIKE
from cryptomnesia.condition import Condition
from cryptomnesia.denoiser import Denoiser
from cryptomnesia.errors import CryptomnesiaError
from cryptomnesia.memory import is_out_of_memory
from cryptomnesia.report import MemorizationReport
from cryptomnesia.signals.draws import FixedDraws

from . import models
from .job import Batch, Job

IMG2IMG = "img2img starts from an image, not from pure noise: a check says nothing there"
NO_GUIDANCE = "CFG scale 1 samples without guidance, which is what a check looks at: raise it above 1"
NOT_SEEN = "sampling was not seen to begin: this backend has no hook there, or another extension took its place"


DRAWS = FixedDraws()  # asked of the model of the moment, which is let go of in between


def judge(job: Job, p: Any, x: Any, c: Any, number: int) -> Batch:
    """Gives every image of a batch its report, once. Whatever goes wrong becomes a report that says so.

    Args:
        job: The job.
        p: The web UI's processing.
        x: What sampling starts from, (B, C, H, W).
        c: The prompts as the web UI reads them: parts by AND, each with one text or several that take turns.
        number: The batch's number.
    """
    batch = job.batch(p, number)
    if batch.reports:
        return batch
    batch.prompts, batch.negatives = list(p.prompts), list(p.negative_prompts)
    try:
        reason = job.problem or why_not(p, x)
        batch.reports = without_verdict(batch, reason) if reason else _measured(job, p, c, batch)
    except Exception as error:  # noqa: BLE001  # the web UI would swallow it, and sample unchecked
        batch.reports = without_verdict(batch, reason_of(error))
    finally:
        DRAWS.release()
    return batch


def reason_of(error: Exception) -> str:
    """Returns in one line why a check has failed."""
    if isinstance(error, CryptomnesiaError):
        return str(error)
    if is_out_of_memory(error):
        return "the device has no memory for the check: choose a smaller image, or fewer draws"
    return f"the check failed ({type(error).__name__}: {' '.join(str(error).split())[:200]})"


def why_not(p: Any, x: Any) -> str | None:
    """Returns why a check says nothing about what is about to be sampled; None where it does."""
    if getattr(p, "init_images", None) or getattr(p, "firstpass_image", None) is not None:
        return IMG2IMG
    if float(getattr(p, "cfg_scale", 0) or 0) == 1:
        return NO_GUIDANCE
    if x is not None:
        values = x.detach().float().flatten(1)
        unlike = torch.stack([values.mean(1), values.std(1) - 1]).abs()
        if not (unlike <= MOST_UNLIKE).all():
            return "sampling does not start from standard normal noise, where a check says nothing"
    return None


def without_verdict(batch: Batch, reason: str) -> list[MemorizationReport]:
    """Returns reports that say why there is no verdict."""
    reports = [
        MemorizationReport(
            prompt=prompt,
            verdict="not applicable",
            score=None,
            iso=None,
            aniso=None,
            p_value=None,
            alpha=None,
            reason=reason,
            note=None,
            seed=0,
            draws=0,
            forward_rows=0,
            fingerprint=None,
            calibration_id=None,
        )
        for prompt in batch.prompts
    ]
    return [batch.told(image, report) for image, report in enumerate(reports)]


def _measured(job: Job, p: Any, c: Any, batch: Batch) -> list[MemorizationReport]:
    denoiser = models.sampled_by(p)
    texts = [list(_texts(parts)) for parts in c.batch[: len(batch.prompts)]]
    different = {id(cond): cond for conds in texts for cond in conds}
    rows = Condition.cat([denoiser.read(cond) for cond in different.values()])
    # texts have no names here: a part of a prompt is not the prompt
    reports = checked(job, denoiser, [None] * len(rows), rows)
    by_text = dict(zip(different, reports, strict=True))
    found = []
    for image, conds in enumerate(texts):
        worst = max((by_text[id(cond)] for cond in conds), key=_gravity)
        found.append(batch.told(image, worst))
    return found


def checked(job: Job, denoiser: Denoiser, prompts: list[Any], rows: Condition) -> list[MemorizationReport]:
    """Returns reports on conditions, on private noise of the size that is sampled. Errors as in `verdict.check`."""
    draws, shape = job.choices.draws or None, denoiser.latent_shape()
    with torch.inference_mode(False), torch.no_grad():
        return verdict.check(denoiser, prompts, rows, job.calibrations, draws=draws, shape=shape, kept=DRAWS)


def _texts(parts: Any) -> Iterator[Any]:
    """Every text that draws an image towards it at some step; those with a weight of 0 or less draw it away."""
    for part in parts:
        if part.weight > 0 or len(parts) == 1:
            for schedule in part.schedules:
                yield schedule.cond


def _gravity(report: MemorizationReport) -> tuple[bool, bool, float]:
    return report.memorized, not report.verified, float("-inf") if report.score is None else report.score


def keep_back(job: Job, p: Any, batch: Batch) -> None:
    """Decides what goes out; where nothing does, no step is taken, and where something does not, no stage is saved."""
    batch.kept = [i for i, report in enumerate(batch.reports) if not job.policy.keeps_back(report)]
    if len(batch.kept) == len(batch.reports):
        return
    if not batch.kept:
        models.ui("shared").state.skipped = True  # as the button does: this batch only
    batch.saves = bool(getattr(p, "do_not_save_samples", False))
    p.do_not_save_samples = True  # e.g. what comes before hires fix; until only what goes out is left


def drop(job: Job, p: Any, pp: Any, number: int) -> Batch:
    """Takes images that must not go out from a batch, with all that lies beside them in lists."""
    batch = job.batch(p, number)
    if not batch.reports:
        batch.reports = without_verdict(batch, job.problem or NOT_SEEN)
    if batch.kept is None:
        batch.kept = [i for i, report in enumerate(batch.reports) if not job.policy.keeps_back(report)]
    if batch.saves is not None:
        p.do_not_save_samples, batch.saves = batch.saves, None
    count = len(batch.reports)
    if len(batch.kept) < count:
        # where sampling was cut short there may be fewer, and nobody knows which
        images = list(pp.images)
        pp.images[:] = [images[i] for i in batch.kept] if len(images) == count else []
        for name in ("prompts", "negative_prompts", "seeds", "subseeds"):
            values = getattr(p, name, None)
            if values is not None and len(values) == count:
                setattr(p, name, [values[i] for i in batch.kept])
    return batch
