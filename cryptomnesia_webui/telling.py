"""What a user is told: a line under the gallery, the infotext of each image, all in plain words."""

from collections.abc import Callable
from typing import Any

from cryptomnesia.printable import printable
from cryptomnesia.report import MemorizationReport

from .job import Batch, Job

KEY = "Cryptomnesia"
POLICY_KEY, UNVERIFIED_KEY, DRAWS_KEY = f"{KEY} policy", f"{KEY} unverified", f"{KEY} draws"
CALIBRATION_KEY, PROMPTS_KEY, ORIGINAL_KEY = f"{KEY} calibration", f"{KEY} prompts", f"{KEY} original prompt"
MESSAGE_KEY = f"{KEY} message"  # for programs alone, which do not see the page
_OF_IMAGES = ("Hires prompt", "Hires negative prompt")  # which the web UI looks up by the image's number


def in_short(report: MemorizationReport) -> str:
    """Returns a verdict in a few words without a comma or a colon, which an infotext would have to quote."""
    words = report.verdict if report.p_value is None else f"{report.verdict} p={report.p_value:.3g}"
    about = report.mitigation
    if about is None:
        return words
    return f"{words} (rewritten)" if about.held else f"{words} (not rewritten)"


def announce(job: Job, p: Any, *, by_call: bool) -> None:
    """Puts the job's settings, and the verdict of each image, into the infotexts that the web UI will write.

    Args:
        job: The job.
        p: The web UI's processing.
        by_call: Whether the web UI calls what it finds there; SD.Next does not, and is told image by image.
    """
    choices, extra = job.choices, p.extra_generation_params
    if by_call:
        extra[KEY] = verdict_of(job)
    extra[POLICY_KEY] = choices.policy
    if choices.unverified != "automatic":
        extra[UNVERIFIED_KEY] = choices.unverified
    if choices.draws:
        extra[DRAWS_KEY] = choices.draws
    if by_call and choices.policy == "rewrite" and choices.prompts == "plain":
        extra[ORIGINAL_KEY] = original_of(job)


def verdict_of(job: Job) -> Callable[..., str | None]:
    """Returns what the web UI calls for the infotext of one image."""

    def verdict(p: Any, index: int = 0, use_main_prompt: bool = False, **about: Any) -> str | None:
        if use_main_prompt:  # a grid's
            return summary(job)
        found = _image(job, p, index, about)
        return None if found is None else in_short(found[0].reports[found[1]])

    return verdict


def original_of(job: Job) -> Callable[..., str | None]:
    """Returns what the web UI calls for the prompt of an image as it was before it was rewritten; None for others."""

    def original(p: Any, index: int = 0, use_main_prompt: bool = False, **about: Any) -> str | None:
        found = None if use_main_prompt else _image(job, p, index, about)
        return None if found is None else found[0].originals.get(found[1])

    return original


def _image(job: Job, p: Any, index: int, about: dict[str, Any]) -> tuple[Batch, int] | None:
    """The batch and the number of the image that an infotext is about, which is numbered by batch or by job."""
    of_batch = about.get("all_seeds") is p.seeds
    number, image = (p.iteration, index) if of_batch else divmod(index, p.batch_size)
    batch = job.batches.get(number)
    if batch is None or not batch.reports:
        return None
    if of_batch and batch.kept is not None:
        image = batch.kept[image] if image < len(batch.kept) else -1
    return (batch, image) if 0 <= image < len(batch.reports) else None


def keep_numbers(job: Job, p: Any) -> None:
    """Makes what the web UI looks up by an image's number find the right one after others have been dropped."""

    def by_number(ask: Callable[..., Any]) -> Callable[..., Any]:
        def asked(p: Any, index: int = 0, **about: Any) -> Any:
            if about.get("all_seeds") is p.seeds:
                kept = job.batches[p.iteration].kept if p.iteration in job.batches else None
                index = p.iteration * p.batch_size + (kept[index] if kept and index < len(kept) else index)
            return ask(p=p, index=index, **about)

        asked.of_cryptomnesia = True  # type: ignore[attr-defined]
        return asked

    for key in _OF_IMAGES:
        ask = p.extra_generation_params.get(key)
        if callable(ask) and not hasattr(ask, "of_cryptomnesia"):
            p.extra_generation_params[key] = by_number(ask)


def plainly(job: Job) -> list[str]:
    """Returns the verdict of every image of a job, in order, as text that JSON can hold."""
    return [in_short(report) for _, batch in sorted(job.batches.items()) for report in batch.reports]


def summary(job: Job) -> str:
    """Returns how many images had which verdict: "3 images: 2 clear and 1 memorized" without marks of infotexts."""
    reports = [report for batch in job.batches.values() for report in batch.reports]
    kinds = ("memorized", "clear", "uncalibrated", "not applicable")
    counts = [(sum(report.verdict == kind for report in reports), kind) for kind in kinds]
    return " and ".join(f"{count} {kind}" for count, kind in counts if count) or "nothing checked"


def lines(job: Job, number: int, several: bool) -> list[str]:
    """Returns what to say about a batch under the gallery, without any prompt: such lines end up in logs.

    Args:
        job: The job.
        number: The batch's number.
        several: Whether there is more than one batch, so that each needs its number.
    """
    batch = job.batches[number]
    head = f"Cryptomnesia, batch {number + 1}: " if several else "Cryptomnesia: "
    count, kept = len(batch.reports), batch.kept or []
    dropped = [i for i in range(count) if i not in kept]
    found = []
    flagged = [i for i, report in enumerate(batch.reports) if report.memorized]
    if flagged:
        done = "blocked" if all(i in dropped for i in flagged) else "let out, as the policy says"
        values = [report.p_value for report in (batch.reports[i] for i in flagged) if report.p_value is not None]
        verb = "reproduces" if len(flagged) == 1 else "reproduce"
        mend = " (change the prompt, or choose the policy rewrite or warn)" if done == "blocked" else ""
        lowest = f"p = {min(values):.3g}" if values else "no p"
        found.append(f"{_images(flagged, count)} likely {verb} training data ({lowest}): {done}{mend}")
    reasons: dict[str, list[int]] = {}
    for i, report in enumerate(batch.reports):
        if not report.verified:
            reasons.setdefault(printable(report.reason or report.verdict, 400), []).append(i)
    for reason, images in reasons.items():
        done = "blocked" if all(i in dropped for i in images) else "let out"
        if job.policy.unverified != "allow":
            found.append(f"{_images(images, count)} could not be checked, {done}: {reason}")
    rewritten = sorted(batch.originals)
    if rewritten:
        found.append(f"the prompt of {_images(rewritten, count)} was rewritten")
    tried = [report.mitigation for report in batch.reports if report.memorized and report.mitigation is not None]
    failures = {about.reason for about in tried if not about.held and about.reason}
    found += [f"a prompt could not be rewritten: {printable(reason, 400)}" for reason in sorted(failures)]
    clear = [report.p_value for report in batch.reports if report.verdict == "clear" and report.p_value is not None]
    if clear and len(clear) == count:
        found.append(
            f"clear (p = {min(clear):.3g})" if count == 1 else f"{count} images clear (lowest p = {min(clear):.3g})"
        )
    return [head + line for line in found]


def _images(numbers: list[int], count: int) -> str:
    if count == 1:
        return "the image"
    names = ", ".join(str(number + 1) for number in numbers)
    return f"image {names} of {count}" if len(numbers) == 1 else f"images {names} of {count}"
