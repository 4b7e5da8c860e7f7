"""How a sidecar treats prompts: as they are, as digests, or not at all."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

from ..errors import InputError
from .digests import text_sha256

Prompts = Literal["plain", "hash", "none"]
MODES = ("plain", "hash", "none")
UNKNOWN = "unknown"  # stands for a text, a seed or a setting that is there, and that nobody can tell


def require_mode(prompts: str) -> None:
    """Raises InputError unless it is a way to treat prompts."""
    if prompts not in MODES:
        raise InputError(f"prompts is 'plain', 'hash' or 'none', not {prompts!r}")


@dataclass(frozen=True)
class Privacy:
    """What may be told of some prompts.

    Attributes:
        mode: "plain", "hash" or "none".
        quotes: Finds the prompts inside other texts; None if they need not be hidden.
    """

    mode: str
    quotes: "re.Pattern[str] | None" = None

    @staticmethod
    def of(mode: str, prompts: Iterable[str | None]) -> "Privacy":
        """Returns what may be told of these prompts in this mode. Raises InputError for an unknown mode."""
        require_mode(mode)
        secrets = sorted(
            {prompt.strip() for prompt in prompts if prompt and prompt.strip() and prompt != UNKNOWN},
            key=len,
            reverse=True,
        )
        if mode == "plain" or not secrets:
            return Privacy(mode)
        either = "|".join(re.escape(secret) for secret in secrets)
        return Privacy(mode, re.compile(rf"(?<!\w)(?:{either})(?!\w)", re.IGNORECASE))

    def text(self, prompt: str | None) -> str | None:
        """Returns the prompt, its SHA-256, or None, as the mode says."""
        if prompt is None or self.mode == "none":
            return None
        return prompt if self.mode == "plain" or prompt == UNKNOWN else text_sha256(prompt)

    def quoted(self, value: Any) -> Any:
        """Returns the value, or "[withheld]" for a text that quotes a prompt which is to be hidden."""
        if isinstance(value, str) and self.quotes is not None and self.quotes.search(value):
            return "[withheld]"
        return value
