"""Does a folder hold images that a model was trained on? A test of suspects against references of the same kind."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ..comparability import Comparability, comparability
from ..denoiser import Denoiser
from ..errors import InputError, require
from ..finite import require_finite
from ..progress import Progress
from ..two_samples import auc, auc_interval, detectable_auc, images_needed, permutation_p, rank_sum_p
from .measure import Measured, Settings, feature_names, measure
from .store import Store

ALPHA = 0.05
FEWEST = 10  # images per folder; less is refused
ENOUGH = 70  # less costs confidence
LIKELY, NO_EVIDENCE, CONFOUNDED = "likely trained on some of these", "no evidence", "confounded"


@dataclass(frozen=True)
class MembershipTest:
    """What the comparison of suspects with references amounts to.

    Attributes:
        verdict: LIKELY if the p-value is at most alpha and suspects do look more trained on, NO_EVIDENCE otherwise;
            CONFOUNDED where plain image features tell the two sets apart, whatever the p-value.
        p_value: The larger one of the next two, so that both must agree.
        permutation_p: One-sided p-value of a permutation test on the mean statistics, in [0, 1]; small = suspects look
            more trained on.
        rank_sum_p: One-sided p-value of Wilcoxon's rank-sum test, in [0, 1]; small = suspects look more trained on.
        auc: Share of pairs in which the suspect looks more trained on; .5 = no difference.
        interval: 95 % confidence interval of the AUC.
        images_needed: Images per folder that find an effect of this size in 80 % of all cases; None where there is
            no effect.
        detectable_auc: The smallest AUC that these folders find in 80 % of all cases; None if none.
        comparability: Whether the two sets are of one kind.
        alpha: Share of folders without training images that may be called LIKELY.
        suspects, references: The images with their numbers.
        settings: How the model was measured.
        fingerprint: The model's fingerprint.
    """

    verdict: str
    p_value: float
    permutation_p: float
    rank_sum_p: float
    auc: float
    interval: tuple[float, float]
    images_needed: int | None
    detectable_auc: float | None
    comparability: Comparability
    alpha: float
    suspects: Measured
    references: Measured
    settings: Settings
    fingerprint: str

    @property
    def cliffs_delta(self) -> float:
        """2 AUC - 1, in [-1, 1]: how much oftener a suspect looks more trained on than less."""
        return 2 * self.auc - 1

    def headline(self) -> str:
        """Returns the outcome in a few words."""
        return {
            LIKELY: "Likely trained on some of these images",
            NO_EVIDENCE: "No evidence of training on these images",
            CONFOUNDED: "Confounded: the two sets of images differ in kind",
        }[self.verdict]

    def notes(self) -> list[str]:
        """Returns sentences on what the verdict rests on, and on what it does not say."""
        low, high = self.interval
        sentences = [
            f"{len(self.suspects)} suspects against {len(self.references)} references: p = {self.p_value:.2g} "
            f"(permutation {self.permutation_p:.2g}, rank sum {self.rank_sum_p:.2g}); at {self.alpha:g} or less "
            "the verdict is likely.",
            f"In {100 * self.auc:.0f} % of pairs the suspect looks more trained on (95 % interval {100 * low:.0f} to "
            f"{100 * high:.0f} %; 50 % = no difference).",
            *self._about_kind(),
            *self._about_numbers(),
            *(_left_out(side, images) for side, images in self._sides() if images.skipped),
            *(_sizes(side, images) for side, images in self._sides() if images.sizes > 1),
            "A likelihood about the folder as a whole, no proof, and nothing about any single image.",
        ]
        return sentences

    def to_dict(self) -> dict[str, Any]:
        """Returns plain data for JSON, and for a sidecar's findings."""
        kind = self.comparability
        return {
            "kind": "membership",
            "verdict": self.verdict,
            "p_value": self.p_value,
            "permutation_p": self.permutation_p,
            "rank_sum_p": self.rank_sum_p,
            "alpha": self.alpha,
            "auc": self.auc,
            "interval": list(self.interval),
            "cliffs_delta": self.cliffs_delta,
            "images_needed": self.images_needed,
            "detectable_auc": self.detectable_auc,
            "comparability": {
                "comparable": kind.comparable,
                "auc": kind.auc,
                "p_value": kind.p_value,
                "alpha": kind.alpha,
                "differs_most": kind.differs_most,
            },
            "settings": self.settings.to_dict(),
            "fingerprint": self.fingerprint,
            **{
                side: {
                    "images": len(images),
                    "skipped": images.skipped,
                    "statistics": dict(zip(images.names, images.statistic.tolist(), strict=True)),
                }
                for side, images in self._sides()
            },
        }

    def plot(self, width: int = 680) -> Any:
        """Returns a Pillow image: both sets as histograms over one scale. Raises MissingPackage without Pillow."""
        from .plots import membership_plot

        return membership_plot(self, width=width)

    def _sides(self) -> tuple[tuple[str, Measured], ...]:
        return ("suspects", self.suspects), ("references", self.references)

    def _about_kind(self) -> list[str]:
        kind = self.comparability
        score = f"plain image features tell the sets apart with AUC {kind.auc:.2f}, p = {kind.p_value:.2g}"
        if kind.comparable:
            return [f"The two sets look alike: {score}. Other differences between them cannot be ruled out."]
        return [
            f"The two sets are not of one kind: {score}; they differ most in {kind.differs_most}.",
            "So a difference may come from that: give references of the same source, style, size and quality.",
        ]

    def _about_numbers(self) -> list[str]:
        sentences, fewest = [], min(len(self.suspects), len(self.references))
        if fewest < ENOUGH:
            sentences.append(
                f"Fewer than {ENOUGH} images in a folder: small effects are missed, and so are differences in kind."
            )
        if self.verdict == LIKELY and self.images_needed is not None:
            sentences.append(
                f"An effect of this size is found in 80 % of all cases with {self.images_needed} per folder."
            )
        if self.verdict == NO_EVIDENCE:
            sentences.append(self._missed())
        return sentences

    def _missed(self) -> str:
        if self.detectable_auc is None:
            return "With so few images no effect would be found reliably."
        return (
            "With these numbers an effect is found in 80 % of all cases from "
            f"{100 * self.detectable_auc:.0f} % of pairs on; smaller ones may be there."
        )


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
    kind as the suspects in every other way.

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
        progress: Called with the numbers of images done and of all, of the suspects first.

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
    model = to_denoiser(denoiser)
    settings = (settings or Settings()).complete(model, bool(suspect_prompts))
    sets = []
    for images, prompts in ((suspects, suspect_prompts), (references, reference_prompts)):
        sets.append(measure(model, images, prompts, settings, size=size, store=store, progress=progress))
    return compare(*sets, settings=settings, fingerprint=model.fingerprint, alpha=alpha)


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
    low, high = suspects.statistic, references.statistic
    kind = comparability(suspects.features, references.features, feature_names(suspects), seed=seed)
    permuted, ranked, effect = permutation_p(low, high, seed), rank_sum_p(low, high), auc(low, high)
    p_value, needed = max(permuted, ranked), images_needed(effect, alpha)
    # a rate beyond one half must not accuse both sides of one comparison
    verdict = LIKELY if p_value <= alpha and effect > 0.5 else NO_EVIDENCE
    return MembershipTest(
        verdict=verdict if kind.comparable else CONFOUNDED,
        p_value=p_value,
        permutation_p=permuted,
        rank_sum_p=ranked,
        auc=effect,
        interval=auc_interval(effect, len(low), len(high)),
        images_needed=None if needed is None else max(FEWEST, needed),
        detectable_auc=detectable_auc(len(low), len(high), alpha),
        comparability=kind,
        alpha=alpha,
        suspects=suspects,
        references=references,
        settings=settings,
        fingerprint=fingerprint,
    )


def check_alpha(alpha: float) -> None:
    """Raises InputError unless alpha is a rate between 0 and 1."""
    if not 0 < alpha < 1:
        raise InputError(f"alpha is a false-alarm rate between 0 and 1, not {alpha}")


def check_sets(suspects: Measured, references: Measured) -> None:
    """Raises InputError for too few images, one that is in both sets, or numbers that are not finite."""
    for name, images in (("suspects", suspects), ("references", references)):
        require_finite(images.statistic, f"the statistics of the {name}")
        if len(images) < FEWEST:
            left_out = f" ({len(images.skipped)} left out, e.g. {_example(images)})" if images.skipped else ""
            raise InputError(
                f"the {name} are {len(images)} images{left_out}, and less than {FEWEST} say nothing about a folder: "
                f"give {ENOUGH} or more"
            )
    shared = set(suspects.digests) & set(references.digests)
    if shared:
        name = suspects.names[suspects.digests.index(sorted(shared)[0])]
        raise InputError(f"{len(shared)} pictures are in both sets, e.g. {name}: take them out of one")


def _left_out(side: str, images: Measured) -> str:
    return f"Of the {side}, {len(images.skipped)} files were left out, e.g. {_example(images)}."


def _sizes(side: str, images: Measured) -> str:
    return f"The {side} have {images.sizes} different sizes; all were brought to the model's own."


def _example(images: Measured) -> str:
    """The first that was left out; reasons name their file as a rule."""
    name, reason = next(iter(images.skipped.items()))
    return reason if reason.startswith(name) else f"{name}: {reason}"
