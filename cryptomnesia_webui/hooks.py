"""What each of the web UI's hooks does; the script in scripts/ only passes them on.

The web UIs swallow what a hook raises and go on, so that nothing may end there: it becomes a line under the gallery,
and images that were not checked are treated as such.
"""

from collections.abc import Sequence
from typing import Any

from cryptomnesia.errors import CryptomnesiaError

from . import attaching, judging, models, options, rewriting, telling
from .choices import AXES, Choices
from .job import ATTRIBUTE, Job, job_of


def begin(p: Any, args: Sequence[Any], img2img: bool) -> None:
    """Begins a job (`process`): reads what the user has chosen. Off, it leaves nothing behind."""
    old = job_of(p)
    if old is not None:  # X/Y/Z plot copies p
        attaching.detach(old)
    setattr(p, ATTRIBUTE, None)
    for key in [key for key in p.extra_generation_params if key.startswith(telling.KEY)]:
        del p.extra_generation_params[key]
    if img2img:
        return
    try:
        choices = Choices.of(args, options.defaults(), getattr(p, AXES, {}))
        if choices.policy == "off":
            return
        job = Job.of(choices)
    except CryptomnesiaError as error:
        job = Job.refused(str(error))
    setattr(p, ATTRIBUTE, job)
    telling.announce(job, p, by_call=not models.is_pipeline(p.sd_model))


def before_reading(p: Any, number: int) -> None:
    """Rewrites prompts that are about to be read (`process_batch`), and in SD.Next puts the guard on."""
    job = job_of(p)
    if job is None:
        return
    if job.policy.method == "rewrite":
        rewriting.rewrite(job, p, number)
    if models.is_pipeline(p.sd_model):
        attaching.attach(job, p, number)


def before_sampling(p: Any, x: Any, c: Any) -> None:
    """Checks a batch (`process_before_every_sampling`), at the first of its passes only."""
    job = job_of(p)
    if (
        job is None
        or getattr(p, "is_hr_pass", False)
        or (p.iteration in job.batches and job.batches[p.iteration].reports)
    ):
        return
    batch = judging.judge(job, p, x, c, p.iteration)
    judging.keep_back(job, p, batch)


def after_sampling(p: Any, number: int) -> None:
    """Takes the guard off again (`postprocess_batch`)."""
    job = job_of(p)
    if job is not None and models.is_pipeline(p.sd_model):
        attaching.sampled(job, p, number)


def before_saving(p: Any, pp: Any, number: int) -> None:
    """Takes out what must not go out (`postprocess_batch_list`), and says so."""
    job = job_of(p)
    if job is None:
        return
    judging.drop(job, p, pp, number)
    telling.keep_numbers(job, p)
    for line in telling.lines(job, number, several=p.n_iter > 1):
        p.comment(line)


def of_image(p: Any) -> None:
    """Puts the verdict of the image that is about to be saved into its infotext, where that takes plain text only."""
    job = job_of(p)
    if job is None or not models.is_pipeline(p.sd_model):
        return
    batch, index = job.batches.get(p.iteration), getattr(p, "batch_index", 0)
    if batch is not None and batch.kept is not None and index < len(batch.kept):
        image = batch.kept[index]
        p.extra_generation_params[telling.KEY] = telling.in_short(batch.reports[image])
        original = batch.originals.get(image) if job.choices.prompts == "plain" else None
        if original is None:
            p.extra_generation_params.pop(telling.ORIGINAL_KEY, None)
        else:
            p.extra_generation_params[telling.ORIGINAL_KEY] = original


def end(p: Any, processed: Any) -> None:
    """Leaves what programs read (`postprocess`): the verdicts of all images as plain text."""
    job = job_of(p)
    if job is None:
        return
    attaching.detach(job)
    extra = getattr(processed, "extra_generation_params", None)
    if isinstance(extra, dict):
        extra[telling.KEY] = telling.plainly(job)
        extra[telling.MESSAGE_KEY] = [
            line for number in sorted(job.batches) for line in telling.lines(job, number, several=p.n_iter > 1)
        ]
        if telling.ORIGINAL_KEY in extra:
            originals = [batch.originals.get(i) for batch in job.batches.values() for i in range(len(batch.reports))]
            extra[telling.ORIGINAL_KEY] = originals
