"""What a check of a LoRA found: plain data for people, pages and machines."""

from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from ..reference import Reference

MEMORIZED, BASE, UNSURE, CLEAR = "memorized", "memorized by the base", "unsure", "clear"
Finding = Literal["memorized", "memorized by the base", "unsure", "clear"]
LEVEL = 0.05  # the false discovery rate that findings are promised at
WORDS = {
    MEMORIZED: "likely memorized by the LoRA",
    BASE: "likely memorized by the base already",
    UNSURE: "stands out, but so may one of so many by chance",
    CLEAR: "clear",
}


@dataclass(frozen=True)
class Cell:
    """One prompt at one strength.

    Attributes:
        strength: The LoRA's strength; 0 is the base.
        score: Higher = more likely memorized, in units of benign prompts at this strength.
        p_value: Share of benign prompts that score as high at this strength, in (0, 1].
        gain: The score less the base's.
        gain_p: Share of benign prompts that gain as much by the LoRA, in (0, 1]; 1 for the base.
        joint_p: Share of benign prompts whose score and gain together reach as much, in (0, 1].
    """

    strength: float
    score: float
    p_value: float
    gain: float
    gain_p: float
    joint_p: float

    @property
    def p_both(self) -> float:
        """The larger of joint and gain's p-value: small only where the prompt stands out, and does so by the LoRA."""
        return max(self.joint_p, self.gain_p)

    @property
    def shown(self) -> float:
        """The p-value that stands for the cell: the base's own, or with the LoRA `p_both`."""
        return self.p_both if self.strength else self.p_value


@dataclass(frozen=True)
class PromptFinding:
    """What was found of one prompt.

    Attributes:
        text: The prompt.
        source: Where it comes from.
        finding: "memorized" (by the LoRA and not by the base), "memorized by the base", "unsure" (p <= alpha, but not
            among so many prompts), or "clear".
        p_value: `Cell.p_both` at the highest strength, in (0, 1].
        adjusted: The same after Benjamini and Hochberg over all prompts.
        from_strength: The least strength at which `Cell.p_both` <= alpha; None where there is none.
        cells: One per strength, the base first.
    """

    text: str
    source: str
    finding: Finding
    p_value: float
    adjusted: float
    from_strength: float | None
    cells: tuple[Cell, ...]

    @property
    def at_last(self) -> Cell:
        """At the highest strength, which the finding is about."""
        return self.cells[-1]


@dataclass(frozen=True)
class LoraCheck:
    """Which prompts a LoRA memorizes that its base does not.

    Attributes:
        lora, format: The file's name, and what wrote it.
        ranks: The ranks that occur in it.
        strengths: The strengths that were tried, the base (0) first; findings are about the last.
        alpha: At most that share of benign prompts is called more than clear.
        level: At most that share of the prompts called memorized is expected to be a false alarm.
        prompts: What was found of each prompt, in the order in which they were given.
        benign: The scores of the benign prompts per strength.
        draws, seed: The noise, which all prompts and strengths share.
        reference: What a prompt was compared with; see `reference`.
        forward_rows: Rows of the network that it cost.
        fingerprints: The model's, at each strength.
        notes: What else a user should know.
    """

    lora: str
    format: str
    ranks: list[int]
    strengths: list[float]
    alpha: float
    level: float
    prompts: list[PromptFinding]
    benign: list[list[float]]
    draws: int
    seed: int
    reference: Reference
    forward_rows: int
    fingerprints: list[str]
    notes: list[str] = field(default_factory=list)

    def of(self, finding: Finding) -> list[PromptFinding]:
        """Returns the prompts with that finding, the surest first."""
        chosen = [prompt for prompt in self.prompts if prompt.finding == finding]
        return sorted(chosen, key=lambda prompt: (prompt.p_value, -prompt.at_last.gain))

    @property
    def ordered(self) -> list[PromptFinding]:
        """All prompts, those with findings first, then by p-value."""
        return [prompt for finding in (MEMORIZED, BASE, UNSURE, CLEAR) for prompt in self.of(finding)]

    def headline(self) -> str:
        """Returns the answer in one sentence."""
        found, of_base, count = len(self.of(MEMORIZED)), len(self.of(BASE)), len(self.prompts)
        start = f"{self.lora}, at strength {self.strengths[-1]:g}: "
        verb = "is" if found == 1 else "are"
        words = f"{found} of {count} prompts {verb} likely memorized by the LoRA and not by its base"
        if not found:
            words = f"none of {count} prompts looks memorized by the LoRA"
            if self.of(UNSURE):
                words = f"no verdict: {len(self.of(UNSURE))} of {count} prompts stand out, and chance alone may do that"
        return start + words + (f"; {of_base} by the base already" if of_base else "")

    def remarks(self) -> list[str]:
        """Returns what belongs beside the answer, a sentence each."""
        lines = [
            f"{len(self.benign[0])} benign prompts with the LoRA at each strength say what is normal; a prompt must "
            "stand out from them, and gain more by the LoRA than they do",
        ]
        if self.of(UNSURE):
            least = 1 / (len(self.benign[0]) + 1)
            lines.append(
                f"among {len(self.prompts)} prompts about {self.alpha * len(self.prompts):.1g} would stand out by "
                f"chance; {len(self.benign[0])} benign prompts tell no p-value below {least:.2g}: ask about fewer "
                "prompts, or give more benign ones"
            )
        return lines + self.notes

    def to_dict(self) -> dict[str, Any]:
        """Returns plain values for JSON, without benign scores; the seed is a string."""
        values = asdict(self)
        values["benign"] = len(self.benign[0])
        return {**values, "seed": str(self.seed), "headline": self.headline()}
