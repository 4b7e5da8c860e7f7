"""What a user has chosen for one job: from the accordion, from the API's one dict, from an axis of X/Y/Z plot."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

from cryptomnesia.attached.policy import Policy
from cryptomnesia.errors import InputError

POLICIES = ("off", "warn", "rewrite", "block")
UNVERIFIED = ("automatic", "allow", "warn", "block")
PROMPTS = ("plain", "hash", "none", "no file")
AUTOMATIC, NONE = "automatic", "none"
MOST_DRAWS = 64
AXES = "_cryptomnesia_axes"  # where X/Y/Z plot leaves its values on p


@dataclass(frozen=True)
class Choices:
    """The choices of one job. The order is that of the accordion's arguments, and part of the API: append only.

    Attributes:
        policy: One of POLICIES: what happens to images that are likely memorized.
        unverified: One of UNVERIFIED: what happens to images that could not be checked; "automatic" blocks them under
            the policy "block" and warns otherwise.
        draws: Noise draws of the check; 0 for as many as the calibration has.
        calibration: "automatic" for the one that is kept for the model, "none", or a file's name or path.
        prompts: One of PROMPTS: what of the prompts the provenance file holds, or that there is none.
        fallback: "warn" or "block": what happens where a rewritten prompt did not hold.
        embed: Whether the provenance goes into the image's own file, too; with the prompts "no file" it does not.
    """

    policy: str = "off"
    unverified: str = "automatic"
    draws: int = 0
    calibration: str = AUTOMATIC
    prompts: str = "plain"
    fallback: str = "warn"
    embed: bool = False

    def __post_init__(self) -> None:
        for name, allowed in (
            ("policy", POLICIES),
            ("unverified", UNVERIFIED),
            ("prompts", PROMPTS),
            ("fallback", ("warn", "block")),
        ):
            if getattr(self, name) not in allowed:
                raise InputError(f"{name} is one of {', '.join(allowed)}, not {getattr(self, name)!r}")
        if not isinstance(self.embed, bool):
            raise InputError(f"embed is true or false, not {self.embed!r}")
        whole = isinstance(self.draws, int) and not isinstance(self.draws, bool)
        if not whole or not 0 <= self.draws <= MOST_DRAWS:
            raise InputError(f"draws is a whole number from 0 (as calibrated) to {MOST_DRAWS}, not {self.draws!r}")
        if not isinstance(self.calibration, str) or not self.calibration.strip():
            raise InputError(f"calibration is {AUTOMATIC!r}, {NONE!r} or a file's name, not {self.calibration!r}")

    @staticmethod
    def of(args: Sequence[Any], defaults: "Choices", axes: Mapping[str, Any]) -> "Choices":
        """Reads the arguments of a hook.

        Args:
            args: The accordion's values in order, any of which the API may replace by one mapping of names to values.
            defaults: What holds where nothing is said.
            axes: What an axis of X/Y/Z plot says; it comes before all else.

        Raises:
            InputError: An unknown name, or a value that is none.
        """
        names = [field.name for field in fields(Choices)]
        given: dict[str, Any] = {}
        for name, value in zip(names, args, strict=False):
            if value is not None and not isinstance(value, Mapping):
                given[name] = value
        for value in args:
            if isinstance(value, Mapping):
                unknown = sorted(str(name) for name in value if name not in names)
                if unknown:
                    raise InputError(f"{', '.join(unknown)} is no argument of Cryptomnesia: use {', '.join(names)}")
                given |= value
        given |= axes
        draws = given.get("draws")
        if isinstance(draws, float) and draws.is_integer():
            given["draws"] = int(draws)  # as sliders and JSON give it
        return replace(defaults, **given)

    def as_policy(self) -> Policy:
        """Returns what the library makes of them."""
        return Policy.of(
            "warn" if self.policy == "off" else self.policy,
            fallback=self.fallback,
            unverified=None if self.unverified == "automatic" else self.unverified,
            seed=0,
            rewriter=None,
            words=None,
            per_image=True,
        )
