"""Does a folder hold images that a model was trained on? A test of suspects against references of the same kind."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..comparability import comparability
from ..denoiser import Denoiser
from ..errors import InputError, require
from ..finite import require_finite
from ..progress import Progress
from ..two_samples import auc, auc_interval, detectable_auc, images_needed, permutation_p, rank_sum_p
from .learned import learn
from .measure import Measured, feature_names, measure
from .result import ALPHA, CONFOUNDED, ENOUGH, FEWEST, GENERATED, LIKELY, NO_EVIDENCE, MembershipTest, example
from .round_trip import Generated, look_generated
from .settings import Settings
from .store import Store


def membership_test(
    denoiser: Denoiser,
    suspects: Any,
    references: Any,
    *,
    suspect_prompts: Sequence[str] | bool | None = None,
    reference_prompts: Sequence[str] | bool | None = None,
    settings: Settings | None = None,
    alpha: float = ALPHA,
    size: tuple[int, int] | None = None,
    store: Store | None = None,
    progress: Progress | None = None,
) -> MembershipTest:
    """Tests whether a model was trained on some of these images.

    Each image gets a number, see `measure`; a permutation and a rank-sum test compare the two sets, as in CDI (Dubinski
    et al. 2025, arXiv 2411.12858). The verdict is right only if the references were not trained on, and are of the same
    kind as the suspects in every other way. Before anybody is accused, or the two sets are said to differ, both are
    looked at once more: images that the model itself made look like ones that it was trained on, and are told apart by
    its autoencoder.

    Args:
        denoiser: The model, or a pipeline.
        suspects: A folder, or a list of images; at least 10, better 70.
        references: A folder or list of at least 10 images of the same kind that were certainly not trained on.
        suspect_prompts, reference_prompts: One per image, or True for IMAGE.txt beside each; both or neither. With
            the prompts that it was trained with, a model betrays far more.
        settings: How the model is measured.
        alpha: Share of folders without training images that may be called likely.
        size: Height and width in pixels that images are brought to; the model's own by default.
        store: Where numbers are kept, and looked up first.
        progress: Called with the numbers of images done and of all: of the suspects, of the references, and of both
            once more unless there is no evidence.

    Returns:
        The verdict with all that it rests on.

    Raises:
        InputError: Too few images, one that is in both sets, prompts for one set only, unknown settings.
        NotApplicable: The model reads no images, or no prompts.
        NonFiniteError: The model answered with NaN or infinity.
        OutOfMemory: The device has no memory for a single image.
        MissingPackage: scikit-learn or scipy is not installed.
    """
    from ..adapters import to_denoiser

    check_alpha(alpha)
    if bool(suspect_prompts) != bool(reference_prompts):
        raise InputError("prompts were given for one of the two sets only: give both, or neither")
    for package in ("sklearn", "scipy"):  # before everything is measured
        require(package, "audit")
    model, store = to_denoiser(denoiser), store or Store()
    settings = (settings or Settings()).complete(model, bool(suspect_prompts))
    given = [
        (images if isinstance(images, str | Path) else list(images), prompts)
        for images, prompts in ((suspects, suspect_prompts), (references, reference_prompts))
    ]

    def compared(round_trip: bool) -> MembershipTest:
        watch: Any = {"size": size, "store": store, "progress": progress, "round_trip": round_trip}
        sets = [measure(model, images, prompts, settings, **watch) for images, prompts in given]
        return compare(*sets, settings=settings, fingerprint=model.fingerprint, alpha=alpha)

    found = compared(False)
    return found if found.verdict == NO_EVIDENCE else compared(True)


def compare(
    suspects: Measured,
    references: Measured,
    *,
    settings: Settings,
    fingerprint: str,
    alpha: float = ALPHA,
    seed: int = 0,
) -> MembershipTest:
    """Compares two sets of images that were measured alike; their order plays no part.

    Args:
        suspects: The images in question.
        references: Images of the same kind that were not trained on.
        settings: How both were measured.
        fingerprint: The model's fingerprint.
        alpha: Share of folders without training images that may be called likely.
        seed: Seed of the permutations, and of the test whether both sets are of one kind.

    Returns:
        The verdict with all that it rests on.

    Raises:
        InputError: Too few images, one that is in both sets, or numbers that are NaN or infinity.
        MissingPackage: scikit-learn or scipy is not installed.
    """
    check_alpha(alpha)
    check_sets(suspects, references)
    kind = comparability(suspects.features, references.features, feature_names(suspects), seed=seed)
    found = _difference(suspects, references, seed)
    effect, p_value = auc(found.low, found.high), max(found.permuted, found.ranked)
    needed = images_needed(effect, alpha)
    # a rate beyond one half must not accuse both sides of one comparison
    likely = p_value <= alpha and effect > 0.5
    others_p: float | None = None
    alike = kind.comparable
    generated = _generated(suspects, references)
    if generated is not None and generated.many:
        others = suspects.subset(np.setdiff1d(np.arange(len(suspects)), generated.rows))
        if len(others) >= FEWEST:
            kind = comparability(others.features, references.features, feature_names(others), seed=seed)
            left = _difference(others, references, seed)
            others_p = max(left.permuted, left.ranked)
            p_value = max(p_value, others_p)
    nothing_else = others_p is None or others_p > alpha
    made = (likely or not alike) and generated is not None and generated.many and nothing_else
    verdict = GENERATED if made else CONFOUNDED if not kind.comparable else LIKELY if likely else NO_EVIDENCE
    return MembershipTest(
        verdict=verdict,
        p_value=p_value,
        permutation_p=found.permuted,
        rank_sum_p=found.ranked,
        auc=effect,
        interval=auc_interval(effect, len(suspects), len(references)),
        images_needed=None if needed is None else max(FEWEST, needed),
        detectable_auc=detectable_auc(len(suspects), len(references), alpha),
        comparability=kind,
        alpha=alpha,
        suspects=replace(suspects, statistic=found.low),
        references=replace(references, statistic=found.high),
        settings=settings,
        fingerprint=fingerprint,
        generated=generated,
        others_p=others_p,
    )


class _Difference(NamedTuple):
    """The numbers that were compared, smaller = more member-like, and both p-values."""

    low: NDArray[np.float64]
    high: NDArray[np.float64]
    permuted: float
    ranked: float


def _difference(suspects: Measured, references: Measured, seed: int) -> _Difference:
    """The difference of their statistics, or of what is learned from gradients where both have some."""
    low, high = suspects.statistic, references.statistic
    one, other = suspects.gradients, references.gradients
    if one is None or other is None:
        if one is not other:
            raise InputError("one of the two sets has gradients, the other has none: measure both alike")
        return _Difference(low, high, permutation_p(low, high, seed), rank_sum_p(low, high))
    learned = learn(one, other, low, high, suspects.features, references.features, seed=seed)
    return _Difference(learned.suspects, learned.references, learned.permutation_p, learned.rank_sum_p)


def _generated(suspects: Measured, references: Measured) -> Generated | None:
    if suspects.round_trips is None and references.round_trips is None:
        return None
    if suspects.round_trips is None or references.round_trips is None:
        raise InputError("round trips are known of one of the two sets only: measure both alike")
    return look_generated(suspects.round_trips, references.round_trips)


def check_alpha(alpha: float) -> None:
    """Raises InputError unless alpha is a rate between 0 and 1."""
    if not 0 < alpha < 1:
        raise InputError(f"alpha is a false-alarm rate between 0 and 1, not {alpha}")


def check_sets(suspects: Measured, references: Measured) -> None:
    """Raises InputError for too few images, one that is in both sets, or numbers that are not finite."""
    for name, images in (("suspects", suspects), ("references", references)):
        require_finite(images.statistic, f"the statistics of the {name}")
        if len(images) < FEWEST:
            left_out = f" ({len(images.skipped)} left out, e.g. {example(images)})" if images.skipped else ""
            count = "1 image" if len(images) == 1 else f"{len(images)} images"
            raise InputError(
                f"the {name} are {count}{left_out}, and less than {FEWEST} say nothing about a folder: "
                f"give {ENOUGH} or more"
            )
    shared = set(suspects.digests) & set(references.digests)
    if shared:
        one, other = (side.names[side.digests.index(min(shared))] for side in (suspects, references))
        count = "1 picture is" if len(shared) == 1 else f"{len(shared)} pictures are"
        raise InputError(f"{count} in both sets, e.g. {one}, which is {other}: take them out of one")
