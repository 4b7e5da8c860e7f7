"""Learns who makes images like which, from images whose makers are known, and sees whether that can be learned."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from ..errors import InputError, require
from ..pixels import digest_of, read_picture
from ..progress import Progress
from ..prompts.recorded import known_prompts
from .candidates import Candidate, check_candidates
from .combination import ALPHA, AttributionCalibration, check_counts, learn
from .confounding import confounded, unchecked
from .evidence import gather
from .likeness import Seen


def calibrate_attribution(
    images: Mapping[str, Sequence[Any]],
    candidates: Sequence[Candidate] | Mapping[str, Any],
    *,
    prompts: Mapping[str, Sequence[str]] | None = None,
    subjects: Mapping[str, Sequence[str]] | None = None,
    groups: Sequence[str] | None = None,
    alpha: float = ALPHA,
    progress: Progress | None = None,
) -> AttributionCalibration:
    """Learns from images whose makers are known: at least 8 of each candidate, better 30, all of the same prompts.

    Args:
        images: Images by the name of their maker, as in `attribute`. Copies of an image count once.
        candidates: The models that come into question, as in `attribute`.
        prompts: The images' prompts by the name of their maker; then prompts are needed for attribution, too.
        subjects: What the images were to show, by the name of their maker, e.g. their prompts where these shall be no
            evidence: only to see that it is the same for all. By default prompts, or else what the image files say;
            see `prompts.recorded`.
        groups: Groups of evidence to measure; see `evidence`.
        alpha: Share of the candidates' own images that may be called "none of these".
        progress: Called with the numbers of candidates done and of all.

    Returns:
        The calibration, which `save_calibration` writes to a file.

    Raises:
        InputError: A single candidate, two that are one model, too few images, one that is by two makers, of unknown
            makers, or unusable ones.
        NotApplicable: A candidate cannot read images or prompts.
        NonFiniteError: A model answered with NaN or infinity.
        OutOfMemory: The device has no memory for a single image.
        MissingPackage: scikit-learn or scipy is not installed.
    """
    pool = check_candidates(candidates)
    names = [candidate.name for candidate in pool]
    for package in ("sklearn", "scipy"):  # before anything is measured
        require(package, "audit")
    for given in (images, prompts, subjects):
        if given is not None and sorted(given) != sorted(names):
            raise InputError(
                f"images of known makers are needed for each of {', '.join(names)}, not {', '.join(given)}"
            )
    check_counts({name: len(images[name]) for name in names}, alpha)
    for texts in (prompts or {}, subjects or {}):
        for name, listed in texts.items():
            if len(listed) != len(images[name]):
                raise InputError(
                    f"{len(listed)} prompts do not fit {len(images[name])} images by {name!r}: give one for each"
                )
    pictures = [read_picture(image, f"an image by {name}") for name in names for image in images[name]]
    makers = [number for number, name in enumerate(names) for _ in images[name]]
    kept = _once(pictures, makers, names)
    copies, makers, pictures = len(pictures) - len(kept), [makers[i] for i in kept], [pictures[i] for i in kept]
    check_counts({name: makers.count(number) for number, name in enumerate(names)}, alpha)
    texts = _in_order(prompts, names, kept)
    shown = texts or _in_order(subjects, names, kept) or known_prompts([i for name in names for i in images[name]])
    shown = shown if shown is None or len(shown) == len(kept) else [shown[i] for i in kept]
    evidence = gather(pictures, pool, texts, groups=groups, progress=progress)
    calibration = learn(evidence, makers, [candidate.denoiser.fingerprint for candidate in pool], alpha=alpha)
    return replace(
        calibration,
        seen=Seen.of(pictures),
        copies=copies,
        confounded=confounded(evidence, torch.tensor(makers), pictures, shown),
        unchecked=unchecked(torch.tensor(makers), names, pictures) if shown is None else {},
    )


def _once(pictures: Sequence[Tensor], makers: Sequence[int], names: Sequence[str]) -> list[int]:
    """Numbers of the pictures, without copies. Raises InputError for one that is given as two makers'."""
    first: dict[str, int] = {}
    for number, picture in enumerate(pictures):
        known = first.setdefault(digest_of(picture), number)
        if makers[known] != makers[number]:
            a, b = names[makers[known]], names[makers[number]]
            raise InputError(f"the same image is given as by {a!r} and as by {b!r}: take it out of one")
    return list(first.values())


def _in_order(texts: Mapping[str, Sequence[str]] | None, names: Sequence[str], kept: Sequence[int]) -> list[str] | None:
    if texts is None:
        return None
    all_texts = [text for name in names for text in texts[name]]
    return [all_texts[i] for i in kept]
