"""What a test of membership amounts to: numbers, a verdict, and the words for both."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from ..comparability import Comparability
from ..two_samples import images_needed, power
from .measure import Measured
from .round_trip import Generated, share
from .settings import Settings

ALPHA = 0.05
FEWEST = 10  # images per folder; less is refused
ENOUGH = 70  # less costs confidence
LIKELY, NO_EVIDENCE, CONFOUNDED = "likely trained on some of these", "no evidence", "confounded"
GENERATED = "generated, not trained on"
UNDECIDED = (CONFOUNDED, GENERATED)
"""Verdicts that say nothing about training on these images, either way."""
PRETRAINED = {"statistic": 0.538, "gradients": 0.60}
"""AUC per image on pretrained models, by what is measured: scores that others published of Stable Diffusion 1.4 for
members and others of one kind (CopyMark, arXiv 2410.03640); the best of three statistics, and gradient norms."""


@dataclass(frozen=True)
class MembershipTest:
    """What the comparison of suspects with references amounts to.

    Attributes:
        verdict: LIKELY if the p-value is at most alpha and suspects do look more trained on, NO_EVIDENCE otherwise;
            CONFOUNDED where plain image features tell the two sets apart, whatever the p-value; GENERATED where it
            would be LIKELY or CONFOUNDED, but many suspects look as if a model had made them, and the others alone do
            not look trained on.
        p_value: The largest of the next three, so that all must agree.
        permutation_p: One-sided p-value of a permutation test on the mean statistics, in [0, 1]; small = suspects look
            more trained on.
        rank_sum_p: One-sided p-value of Wilcoxon's rank-sum test, in [0, 1]; small = suspects look more trained on. Of
            learned scores by permutation, too; see `learned`.
        auc: Share of pairs in which the suspect looks more trained on; .5 = no difference.
        interval: 95 % confidence interval of the AUC.
        images_needed: Images per folder that find an effect of this size in 80 % of all cases; None where there is
            no effect.
        detectable_auc: The smallest AUC that these folders find in 80 % of all cases; None if none.
        comparability: Whether the two sets are of one kind.
        alpha: Share of folders without training images that may be called LIKELY.
        suspects, references: The images with their numbers; of gradients with the learned scores as statistic.
        settings: How the model was measured.
        fingerprint: The model's fingerprint.
        generated: Which suspects look generated; None where there is no evidence anyway, so that it was not measured.
        others_p: The p-value without those; None where they are no more than chance allows, or too few are left.
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
    generated: Generated | None = None
    others_p: float | None = None

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
            GENERATED: "Generated, not trained on: these images look like a model's own",
        }[self.verdict]

    def notes(self) -> list[str]:
        """Returns sentences on what the verdict rests on, and on what it does not say."""
        low, high = self.interval
        return [
            f"{len(self.suspects)} suspects against {len(self.references)} references: p = {self.p_value:.2g} "
            f"(permutation {self.permutation_p:.2g}, rank sum {self.rank_sum_p:.2g}); at {self.alpha:g} or less "
            "the verdict is likely.",
            f"In {100 * self.auc:.0f} % of pairs the suspect looks more trained on (95 % interval {100 * low:.0f} to "
            f"{100 * high:.0f} %; 50 % = no difference).",
            *self._about_generated(),
            *self._about_kind(),
            *self._about_numbers(),
            *(_left_out(side, images) for side, images in self._sides() if images.skipped),
            *(_sizes(side, images) for side, images in self._sides() if images.sizes > 1),
            "A likelihood about the folder as a whole, no proof, and nothing about any single image.",
        ]

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
            **({} if self.generated is None else {"generated": self._generated(self.generated)}),
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

    def _generated(self, found: Generated) -> dict[str, Any]:
        names = [self.suspects.names[row] for row in found.rows]
        return {"images": names, "limit": found.limit, "p_value": found.p_value, "others_p": self.others_p}

    def _sides(self) -> tuple[tuple[str, Measured], ...]:
        return ("suspects", self.suspects), ("references", self.references)

    def _about_generated(self) -> Iterator[str]:
        if self.generated is None or not self.generated.many:
            return
        yield (
            f"Of the suspects, {share(self.generated.rows, len(self.suspects))} have been through this autoencoder "
            "before: this model made them, or another one that shares it. A model may find its own images as easy as "
            "those that it was trained on."
        )
        if self.others_p is not None:
            yield f"Without them p = {self.others_p:.2g}."
        elif self.verdict == GENERATED:
            yield f"Fewer than {FEWEST} others are left, which say nothing."

    def _about_kind(self) -> list[str]:
        kind = self.comparability
        score = f"plain image features tell the sets apart with AUC {kind.auc:.2f}, p = {kind.p_value:.2g}"
        if kind.comparable:
            return [f"The two sets look alike: {score}. Other differences between them cannot be ruled out."]
        return [
            f"The two sets are not of one kind: {score}; they differ most in {kind.differs_most}.",
            "So a difference may come from that: give references of the same source, style, size and quality.",
        ]

    def _about_numbers(self) -> Iterator[str]:
        fewest = min(len(self.suspects), len(self.references))
        if fewest < ENOUGH:
            yield f"Fewer than {ENOUGH} images in a folder: small effects are missed, and so are differences in kind."
        if self.verdict == LIKELY and self.images_needed is not None:
            yield f"An effect of this size is found in 80 % of all cases with {self.images_needed} per folder."
        if self.verdict == NO_EVIDENCE:
            yield self._missed()
            yield self._pretrained()

    def _missed(self) -> str:
        if self.detectable_auc is None:
            return "With so few images no effect would be found reliably."
        return (
            "With these numbers an effect is found in 80 % of all cases from "
            f"{100 * self.detectable_auc:.0f} % of pairs on; smaller ones may be there."
        )

    def _pretrained(self) -> str:
        effect = PRETRAINED[self.settings.features]
        found = power(effect, len(self.suspects), len(self.references), self.alpha)
        needed = images_needed(effect, self.alpha, 0.9) or 0
        return (
            f"A large pretrained model betrays its training images in about {100 * effect:.0f} % of pairs: folders as "
            f"large as these would be found in {100 * found:.0f} % of cases, and about {round(needed / 50) * 50:,} "
            "images in each are needed for 90 %."
        )


def _left_out(side: str, images: Measured) -> str:
    return f"Of the {side}, {len(images.skipped)} files were left out, e.g. {example(images)}."


def _sizes(side: str, images: Measured) -> str:
    return f"The {side} have {images.sizes} different sizes; all were brought to the model's own."


def example(images: Measured) -> str:
    """Returns why the first image was left out; reasons name their file as a rule."""
    name, reason = next(iter(images.skipped.items()))
    return reason if reason.startswith(name) else f"{name}: {reason}"
