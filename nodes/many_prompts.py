"""Prompts as workflows have many of them: a list, lines of a text, a file in ComfyUI's input folder; each checked."""

from collections.abc import Iterator, Sequence
from typing import Any

import comfy.utils

from ..guard.errors import CryptomnesiaError, InputError
from ..guard.guard import Guard
from ..guard.prompts import PromptFile, PromptLines, PromptRows, Reject
from ..guard.report import MemorizationReport
from ..guard.signals.draws import DRAWS
from .host_files import inside

MOST = 10_000
TOGETHER = 8  # prompts that are encoded and measured at a time


def prompts_of(texts: Sequence[str], file: str = "") -> tuple[list[str], list[str]]:
    """Returns prompts, and what there is to say about rows that were left out.

    Args:
        texts: Several texts, each a prompt, as lists give them; or one, with a prompt on each line.
        file: A file in the input folder, in any format that `cryptomnesia check --file` reads; empty for none.

    Raises:
        InputError: There is no prompt, or there are too many; the file cannot be read, or is not in the input folder.
    """
    given = [text for text in texts if text.strip()]
    lines = given[0].splitlines() if len(given) == 1 else [" ".join(text.split()) for text in given]
    sources: list[PromptRows] = [PromptLines(lines)] if any(line.strip() for line in lines) else []
    if file.strip():
        sources.append(PromptFile(inside(file.strip(), "input")))
    if not sources:
        raise InputError("there is no prompt: write one on each line, connect a list of texts, or name a file")
    found: list[str] = []
    notes: list[str] = []
    for source in sources:
        found += [row.value for row in source if not isinstance(row, Reject)]
        notes += source.notes()
    if len(found) > MOST:
        raise InputError(f"{len(found)} prompts are more than {MOST}: `cryptomnesia audit prompts` takes any number")
    return found, notes


def checked(
    guard: Guard, prompts: Sequence[str], shape: tuple[int, int, int], *, seed: int, draws: int | None
) -> Iterator[MemorizationReport | CryptomnesiaError]:
    """Yields a report on each prompt, or why there is none: one that cannot be encoded does not stop the others."""
    encode: Any = guard.denoiser.encode  # type: ignore[attr-defined]
    bar = comfy.utils.ProgressBar(len(prompts))
    settings: dict[str, Any] = {"seed": seed, "draws": draws or (None if guard.calibration else DRAWS), "shape": shape}
    for start in range(0, len(prompts), TOGETHER):
        batch = list(prompts[start : start + TOGETHER])
        try:
            yield from guard.judge(batch, encode(batch), **settings)
        except CryptomnesiaError:
            for prompt in batch:
                try:
                    yield from guard.judge([prompt], encode(prompt), **settings)
                except CryptomnesiaError as error:
                    yield error
        bar.update(len(batch))
