"""SD.Next samples with a diffusers pipeline: the library's own guard is put around it for as long as a batch takes."""

import warnings
from collections.abc import Callable
from typing import Any

from cryptomnesia.attached.attachment import Attachment
from cryptomnesia.errors import MemorizationBlocked, MemorizationWarning, UnverifiedWarning
from cryptomnesia.report import MemorizationReport

from . import models
from .job import Job
from .judging import reason_of, why_not, without_verdict


class HostAttachment(Attachment):
    """A guard that notes what it finds, and stops a call as SD.Next expects it.

    Attributes:
        reports: One per image of the first call that was seen; None before it.
    """

    reports: list[MemorizationReport] | None = None

    def _call(self, call: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if self.reports is not None:  # a later stage of the same images
            return call(self._host.pipe, *args, **kwargs)
        try:
            with warnings.catch_warnings():  # they are said under the gallery
                warnings.simplefilter("ignore", MemorizationWarning)
                warnings.simplefilter("ignore", UnverifiedWarning)
                out = super()._call(call, args, kwargs)
        except MemorizationBlocked as blocked:
            self.reports = list(blocked.reports)  # type: ignore[arg-type]
            models.ui("shared").state.skipped = True
            # which SD.Next takes for an interruption: no images, and no page of errors
            raise AssertionError("Cryptomnesia: blocked before the first step") from blocked
        self.reports = list(out.memorization)
        return out


def attach(job: Job, p: Any, number: int) -> None:
    """Puts the guard around the pipeline that is loaded; what prevents that becomes the batch's reports."""
    detach(job)
    batch = job.batch(p, number)
    batch.prompts, batch.negatives = list(p.prompts), list(p.negative_prompts)
    reason = job.problem or why_not(p, None)
    if reason is None:
        try:
            attachment = HostAttachment(models.pipeline_denoiser(p.sd_model), job.calibrations, job.policy)
            attachment.attach()
            job.attachment = attachment
            return
        except Exception as error:  # noqa: BLE001  # SD.Next would swallow it, and sample unchecked
            reason = reason_of(error)
    batch.reports = without_verdict(batch, reason)


def detach(job: Job) -> None:
    """Takes the guard off again, if there is one."""
    if job.attachment is not None:
        job.attachment.detach()
        job.attachment = None


def sampled(job: Job, p: Any, number: int) -> None:
    """Takes over what the guard has found, once a batch is sampled or stopped."""
    attachment = job.attachment
    detach(job)
    batch = job.batch(p, number)
    if attachment is None or batch.reports:
        return
    found = attachment.reports
    if found is None or len(found) != len(batch.prompts):
        return  # told as not seen
    batch.reports = [batch.told(image, report) for image, report in enumerate(found)]
    if all(job.policy.keeps_back(report) for report in batch.reports):
        models.ui("shared").state.skipped = False  # else SD.Next leaves out the next batch as well
