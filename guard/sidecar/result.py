"""The result of verifying an image and its sidecar, and what it amounts to."""

from dataclasses import asdict, dataclass
from typing import Any, Literal

UNCHECKED = "not checked (c2pa missing)"
Result = Literal["intact", "nobody vouches", "does not match", "cannot be judged"]


@dataclass(frozen=True)
class Verification:
    """The result of a verification, each question apart.

    Attributes:
        image: Name of the file that was verified.
        sidecar: State of its JSON sidecar: "malformed" is also one that no program of this version wrote.
        file: Whether the file's bytes are those that the sidecar describes; "unknown" without a sidecar.
        pixels: Whether the file's pixels are, as Pillow decodes them; they outlive stripped metadata. "unreadable" is
            also a file with several pictures in it.
        signature: State of the signature in the .c2pa file. "valid, signer unknown" is not invalid: nobody vouches for
            who signed.
        agreement: Whether the sidecar says what was signed; None where that is not known.
        clock: "ahead" if the sidecar was made over 5 minutes in the future: a warning.
        evidence: Files that the sidecar lists, as names and "same", "changed", "missing", "unreadable" or "not
            checked", where they are too many or too large.
        claims: What the sidecar says: created, host, verdict, p_value, alpha, models, prompt_mode, rewritten, seed,
            findings; or None.
        lines: All of this in plain words, a sentence or two each.
    """

    image: str
    sidecar: Literal["found", "missing", "malformed"]
    file: Literal["same", "changed", "unknown"]
    pixels: Literal["same", "changed", "unreadable", "unknown"]
    signature: Literal["none", "trusted", "valid, signer unknown", "invalid", "not checked (c2pa missing)"]
    agreement: Literal["same", "differs"] | None
    clock: Literal["fine", "ahead", "unknown"]
    evidence: list[tuple[str, str]]
    claims: dict[str, Any] | None
    lines: list[str]

    @property
    def result(self) -> Result:
        """The result in one word or two.

        "intact": image, sidecar and evidence are as they were signed, by someone who is trusted. "nobody vouches": they
        fit each other, but nobody who is trusted signed them, or a file is missing. "does not match": something was
        changed. "cannot be judged": no sidecar, or a part that cannot be read or checked.
        """
        states = {state for _, state in self.evidence}
        if self.signature == "invalid" or self.agreement == "differs":
            return "does not match"
        if self.sidecar != "found":
            return "cannot be judged"
        if "changed" in (self.file, self.pixels) or "changed" in states:
            return "does not match"
        if self.pixels == "unreadable" or states & {"unreadable", "not checked"} or self.signature == UNCHECKED:
            return "cannot be judged"
        vouched = self.signature == "trusted" and self.agreement == "same" and "missing" not in states
        return "intact" if vouched else "nobody vouches"

    @property
    def headline(self) -> str:
        """The result in one line of words, without the name of the image."""
        if self.result == "intact":
            return "intact, and signed by someone you trust"
        if self.result == "cannot be judged":
            return "cannot be judged"
        changed = any(state == "changed" for _, state in self.evidence)
        if self.result == "does not match":
            only = changed and self.file == "same" and self.signature != "invalid" and self.agreement != "differs"
            return "does not match: evidence changed" if only and self.pixels != "changed" else "does not match"
        lacking = any(state == "missing" for _, state in self.evidence)
        if lacking and self.signature != "trusted":
            return "matches its provenance file, which nobody you trust signed; a file that belongs to it is missing"
        if self.signature == "none":
            return "matches its provenance file, which nobody signed"
        if self.signature == "trusted":
            return "matches its provenance file, but a file that belongs to it is missing"
        return "matches its provenance file, which nobody you trust signed"

    @property
    def matches(self) -> bool:
        """Whether image and sidecar fit each other; who vouches for both is another question."""
        return self.result in ("intact", "nobody vouches")

    @property
    def vouched(self) -> bool:
        """Whether image and sidecar fit each other, and both are signed by someone who is trusted."""
        return self.result == "intact"

    def to_dict(self) -> dict[str, Any]:
        """Returns plain data for JSON, with the result in words and as truth values."""
        return asdict(self) | {"result": self.result, "matches": self.matches, "vouched": self.vouched}
