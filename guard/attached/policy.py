"""What an attached guard does about memorized prompts and about images without a verdict."""

from dataclasses import dataclass
from pathlib import Path

from ..errors import InputError
from ..mitigation.mitigate import METHODS
from ..mitigation.rewrite import Rewriter
from ..report import MemorizationReport, Method

POLICIES = ("warn", "block", *METHODS)
UNVERIFIED = ("allow", "warn", "block")


@dataclass(frozen=True)
class Policy:
    """What follows from a verdict, or from none; see `Guard` for what each word does.

    Attributes:
        name: One of POLICIES: about images that are likely memorized.
        fallback: "warn" or "block": what to do where the mitigation did not hold.
        unverified: One of UNVERIFIED: about images that could not be checked.
        per_image: Whether images that must not go out are blanked one by one, in place of the whole call's raising.
        seed: The seed of all private noise.
        rewriter, words: What "rewrite" takes words from; see `mitigation.rewrite`.
    """

    name: str
    fallback: str
    unverified: str
    seed: int = 0
    per_image: bool = False
    rewriter: Rewriter | None = None
    words: Path | None = None

    @staticmethod
    def of(
        name: str,
        *,
        fallback: str,
        unverified: str | None,
        seed: int,
        rewriter: Rewriter | None,
        words: str | Path | None,
        per_image: bool = False,
    ) -> "Policy":
        """Makes the policy that a user's words ask for.

        `unverified` is by default "block" under the policy "block", else "warn".

        Raises:
            InputError: An unknown word.
        """
        if name not in POLICIES:
            raise InputError(f"unknown policy {name!r}: use one of {', '.join(POLICIES)}")
        if fallback not in ("warn", "block"):
            raise InputError(
                f"fallback is 'warn' or 'block', for prompts whose mitigation did not hold, not {fallback!r}"
            )
        if unverified not in (None, *UNVERIFIED):
            raise InputError(
                f"unverified is one of {', '.join(UNVERIFIED)}, for what could not be checked, not {unverified!r}"
            )
        by_default = "block" if name == "block" else "warn"
        path = None if words is None else Path(words)
        return Policy(name, fallback, unverified or by_default, seed, per_image, rewriter, path)

    @property
    def method(self) -> Method | None:
        """The mitigation method, or None where nothing is mitigated."""
        return next((method for method in METHODS if method == self.name), None)

    @property
    def blocks(self) -> bool:
        """Whether what is memorized in the end must not be sampled."""
        return (self.name if self.method is None else self.fallback) == "block"

    def keeps_back(self, report: MemorizationReport) -> bool:
        """Returns whether the image of a report must not go out."""
        return (self.blocks and report.memorized) or (self.unverified == "block" and not report.verified)
