"""The result of verifying an image and its provenance, and what it amounts to."""

from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from ..printable import printable

UNCHECKED = "not checked (c2pa missing)"
Result = Literal["vouched for", "nobody vouches", "found again", "changed", "cannot tell"]


@dataclass(frozen=True)
class Verification:
    """The result of a verification, each question apart.

    Attributes:
        image: Name of the file that was verified.
        sidecar: State of its JSON sidecar: "malformed" is also one that no program of this version wrote.
        file: Whether the file's bytes are those that the provenance describes; "unknown" without it.
        pixels: Whether the file's pixels are, as Pillow decodes them; they outlive stripped metadata. "unreadable" is
            also a file with several pictures in it.
        signature: State of the C2PA signature in the image's file, else in the .c2pa file. "valid, signer unknown" is
            not invalid: nobody vouches for who signed. "refused": good, but by a certificate that has expired, was
            revoked, or is for other uses.
        agreement: Whether the sidecar says what was signed; None where that is not known.
        clock: "ahead" if the image was made over 5 minutes in the future, as it says: a warning.
        evidence: Files that the provenance lists, as names and "same", "changed", "missing", "unreadable" or "not
            checked", where they are too many or too large.
        claims: What the provenance says: created, host, verdict, p_value, alpha, models, prompt_mode, rewritten, seed,
            findings; or None.
        lines: All of this in plain words, a sentence or two each.
        envelope: State of the JSON sidecar's own signature.
        embedded: What of it lies in the image's file: "manifest", "xmp" alone, or "none".
        signer: The name in the certificate, or None; anyone can choose any, unless the result is "vouched for".
        stamped: When a time authority saw the signature, as it says, or None.
        found: Records of a store that the image may be a copy of, the nearest first: distance, coarse, same_pixels,
            name, content_id, created.
        fields: What the image says of itself: provider, system, system_version, content_id, source_type, training; or
            None.
    """

    image: str
    sidecar: Literal["found", "missing", "malformed"]
    file: Literal["same", "changed", "unknown"]
    pixels: Literal["same", "changed", "unreadable", "unknown"]
    signature: Literal["none", "trusted", "valid, signer unknown", "refused", "invalid", "not checked (c2pa missing)"]
    agreement: Literal["same", "differs"] | None
    clock: Literal["fine", "ahead", "unknown"]
    evidence: list[tuple[str, str]]
    claims: dict[str, Any] | None
    lines: list[str]
    envelope: Literal["none", "trusted", "valid, signer unknown", "refused", "invalid", "not checked"] = "none"
    embedded: Literal["none", "xmp", "manifest"] = "none"
    signer: str | None = None
    stamped: str | None = None
    found: list[dict[str, Any]] = field(default_factory=list)
    fields: dict[str, Any] | None = None

    @property
    def result(self) -> Result:
        """The result in a word or two.

        "vouched for": image, provenance and evidence are as they were signed, by someone who is trusted. "nobody
        vouches": they fit each other, but nobody who is trusted signed them, or a file is missing. "found again":
        nothing is with the image, but a store has a record of one that looks like it. "changed": something does not
        fit. "cannot tell": no provenance, or a part that cannot be read or checked.
        """
        states = {state for _, state in self.evidence}
        if "invalid" in (self.signature, self.envelope) or self.agreement == "differs":
            return "changed"
        if self.sidecar == "malformed":
            return "cannot tell"
        if "changed" in (self.file, self.pixels) or "changed" in states:
            return "changed"
        if self.sidecar == "missing" and self.embedded == "none":
            return "found again" if self.found and self.signature == "none" else "cannot tell"
        unread = self.pixels == "unreadable" or bool(states & {"unreadable", "not checked"})
        if unread or self.signature == UNCHECKED or self.envelope == "not checked":
            return "cannot tell"
        return "vouched for" if self._signed_by_one_trusted and "missing" not in states else "nobody vouches"

    @property
    def _signed_by_one_trusted(self) -> bool:
        covered = self.agreement == "same" or self.sidecar == "missing"
        # with a time-stamp it outlives its certificate, which the envelope does not
        if self.signature == "trusted" and covered:
            return True
        return self.envelope == "trusted" and self.signature != "refused"

    @property
    def headline(self) -> str:
        """The result in one line of words, without the name of the image."""
        if self.result == "vouched for":
            return "vouched for: unchanged, and signed by someone you trust"
        if self.result == "cannot tell":
            return "cannot tell"
        if self.result == "found again":
            return f"found again by its content: it matches the record of {printable(self.found[0]['name'], 80)}"
        changed = any(state == "changed" for _, state in self.evidence)
        if self.result == "changed":
            unfit = "invalid" in (self.signature, self.envelope) or self.agreement == "differs"
            only = changed and self.file == "same" and not unfit
            return (
                "changed: evidence does not match" if only and self.pixels != "changed" else "changed: does not match"
            )
        return self._nobody_vouches

    @property
    def _nobody_vouches(self) -> str:
        matches = "nobody vouches: matches its provenance"
        lacking = any(state == "missing" for _, state in self.evidence)
        signed = {self.signature, self.envelope} - {"none"}
        if self._signed_by_one_trusted and lacking:
            return f"{matches}, but a file that belongs to it is missing"
        if "refused" in signed:
            return f"{matches}, which was signed with a certificate that is not accepted"
        if self.embedded == "xmp":
            return "nobody vouches: only metadata that anyone can write"
        who = "which nobody signed" if not signed else "which nobody you trust signed"
        return f"{matches}, {who}; a file that belongs to it is missing" if lacking else f"{matches}, {who}"

    @property
    def matches(self) -> bool:
        """Whether image and provenance fit each other; who vouches for both is another question."""
        return self.result in ("vouched for", "nobody vouches")

    @property
    def vouched(self) -> bool:
        """Whether image and provenance fit each other, and both are signed by someone who is trusted."""
        return self.result == "vouched for"

    def to_dict(self) -> dict[str, Any]:
        """Returns plain data for JSON, with the result in words and as truth values."""
        return asdict(self) | {"result": self.result, "matches": self.matches, "vouched": self.vouched}
