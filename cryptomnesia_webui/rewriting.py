"""Rewrites the prompts of a batch that are likely memorized, before the web UI reads them."""

import re
from typing import Any

from cryptomnesia.denoiser import Denoiser
from cryptomnesia.errors import CalibrationError, CryptomnesiaError
from cryptomnesia.memory import is_out_of_memory
from cryptomnesia.mitigation.mitigate import failed, mitigate
from cryptomnesia.protocols import encoder_of
from cryptomnesia.report import Mitigation

from . import models
from .job import Batch, Job
from .judging import DRAWS, checked, reason_of, why_not

TAG = re.compile(r"<[^<>:\s]+:[^<>]*>")  # <lora:name:1>, which the web UI takes out of a prompt before it is read
_PARTS = re.compile(r"\bAND\b|\bBREAK\b")
_SCHEDULE = re.compile(r"(?<!\\)\[[^\[\]]*(?::[^\[\]]*:\s*[\d.]+|\|)[^\[\]]*\]|(?<!\\)\[[^\[\]]*:\s*[\d.]+\s*\]")
COMPOSED = "the prompt is composed of several (AND, BREAK, [from:to:when]): such are not rewritten"


def rewrite(job: Job, p: Any, number: int) -> None:
    """Puts rewritten prompts in the place of memorized ones, for images, hires fix and infotext.

    What could not be rewritten stays, and is judged again when it is sampled. Nothing is raised: why it could not be
    is told in the report.

    Args:
        job: A job with the policy "rewrite".
        p: The web UI's processing, whose prompts hold no LoRA tags any more.
        number: The batch's number.
    """
    batch = job.batch(p, number)
    batch.prompts, batch.negatives = list(p.prompts), list(p.negative_prompts)
    if job.problem or why_not(p, None):
        return
    try:
        done = _rewritten(job, p, batch)
    except Exception as error:  # noqa: BLE001  # the web UI would swallow it; the batch is judged all the same
        done = {prompt: failed("rewrite", prompt, reason_of(error)).mitigation for prompt in batch.prompts}
    finally:
        DRAWS.release()
    for image, prompt in enumerate(batch.prompts):
        if prompt in done:
            batch.mitigations[image] = done[prompt]
            if done[prompt].held:
                _put_in(p, batch, image, number, str(done[prompt].rewritten))


def _rewritten(job: Job, p: Any, batch: Batch) -> dict[str, Mitigation]:
    """What was tried for each flagged prompt; the same for every image of one."""
    texts = list(dict.fromkeys(batch.prompts))
    plain = [text for text in texts if not _composed(text)]
    found = {text: failed("rewrite", text, COMPOSED).mitigation for text in texts if _composed(text)}
    if not plain:
        return found
    pipeline = models.is_pipeline(p.sd_model)
    denoiser: Denoiser = models.pipeline_denoiser(p.sd_model) if pipeline else models.sampled_by(p)
    shape = denoiser.latent_shape(p.height, p.width) if pipeline else denoiser.latent_shape()
    rows = encoder_of(denoiser).encode(plain)
    reports = checked(job, denoiser, plain, rows)
    for image, report in enumerate(reports):
        if not report.memorized:
            continue
        calibration, reason = job.calibrations.find(denoiser, shape)
        if calibration is None:
            raise CalibrationError(str(reason))
        try:
            about = mitigate("rewrite", denoiser, calibration, plain[image], rows[[image]], shape=shape).mitigation
            found[plain[image]] = about
        except (CryptomnesiaError, RuntimeError) as error:
            if not isinstance(error, CryptomnesiaError) and not is_out_of_memory(error):
                raise
            found[plain[image]] = failed("rewrite", plain[image], str(error)).mitigation
    return found


def _composed(text: str) -> bool:
    return bool(_PARTS.search(text) or _SCHEDULE.search(text))


def _put_in(p: Any, batch: Batch, image: int, number: int, text: str) -> None:
    """Writes a rewritten prompt wherever the web UI looks for it from now on, with its LoRA tags where it had any."""
    before = batch.prompts[image]
    place = number * p.batch_size + image
    batch.originals[image] = p.all_prompts[place] if place < len(p.all_prompts or ()) else before
    batch.prompts[image] = p.prompts[image] = text
    for name, position in (
        ("all_prompts", place),
        ("_all_prompts_c", place),
        ("all_hr_prompts", place),
        ("hr_prompts", image),
    ):
        texts = getattr(p, name, None)
        if isinstance(texts, list) and position < len(texts) and isinstance(texts[position], str):
            old = texts[position]
            if name in ("all_prompts", "_all_prompts_c") or _plain(old) == _plain(before):
                texts[position] = _tagged(text, old)


def _plain(text: str) -> str:
    return " ".join(TAG.sub("", text).split())


def _tagged(text: str, like: str) -> str:
    """The text with the tags of another, which the web UI has taken out of what it reads."""
    return " ".join([text, *TAG.findall(like)])
