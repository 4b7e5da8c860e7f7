"""Which prompts does a LoRA memorize that its base does not?

Each prompt is measured on the base and with the LoRA, on the same noise, and so are benign prompts. It is called
memorized where it stands out from benign prompts by its score with the LoRA on and what it gained by it together (a
conformal p-value), and by the gain alone (another): the larger of both is reported, which holds its false-alarm rate
where either is benign (Berger 1982, intersection-union tests). A LoRA that changes the style of everything raises
benign prompts, too, and a prompt that the base has memorized gains little.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from torch import Tensor

from ..adapters import to_denoiser
from ..calibration import check_promise
from ..errors import InputError
from ..false_discovery import adjusted, rejected
from ..progress import Progress
from ..prompts import benign as shipped
from ..signals.draws import DRAWS
from . import measuring
from .applying import Applier
from .prompts import Candidate, require
from .reading import LoraFile, read_lora
from .results import BASE, CLEAR, LEVEL, MEMORIZED, UNSURE, Cell, Finding, LoraCheck, PromptFinding

STRENGTHS = (0.5, 1.0)
LARGEST, MOST_STRENGTHS = 20.0, 8


def check_lora(
    pipe_or_denoiser: Any,
    lora: LoraFile | Any,
    prompts: Iterable[str | Candidate] | None = None,
    *,
    strengths: Sequence[float] = STRENGTHS,
    benign: Iterable[str] | None = None,
    draws: int = DRAWS,
    seed: int = 0,
    alpha: float = 0.01,
    level: float = LEVEL,
    height: int | None = None,
    width: int | None = None,
    progress: Progress | None = None,
) -> LoraCheck:
    """Tells which prompts a LoRA memorizes that its base does not; the pipeline comes out as it went in.

    Args:
        pipe_or_denoiser: A diffusers pipeline of the base, or its denoiser.
        lora: The LoRA's file, or what `read_lora` gave.
        prompts: The prompts; by default those that the file's metadata tell of.
        strengths: The strengths to try beside the base; findings are about the highest.
        benign: At least 100 benign prompts, by default a shipped list.
        draws: Noise draws, which all prompts share.
        seed: The noise's seed.
        alpha: The false-alarm rate to promise per prompt.
        level: The false discovery rate to promise over all prompts.
        height, width: The image's size in pixels, by default the model's own.
        progress: progress(done, total), in prompts of all strengths.

    Returns:
        What was found.

    Raises:
        InputError: The LoRA is broken or made for another base, there are no prompts, or odd settings.
        NotApplicable, NonFiniteError, OutOfMemory: As in `memorization_score`.
    """
    file = lora if isinstance(lora, LoraFile) else read_lora(lora)
    chosen = candidates(file, prompts)
    asked = check_strengths(strengths)
    denoiser = to_denoiser(pipe_or_denoiser)
    denoiser.require_guidance()
    applier = Applier(denoiser, file)
    normal = normal_prompts(benign, alpha, draws)
    energies, fingerprints = measuring.measure(
        applier.at,
        asked,
        normal + [candidate.text for candidate in chosen],
        draws=draws,
        seed=seed,
        shape=denoiser.latent_shape(height, width),
        progress=progress,
    )
    check = results(chosen, energies, asked, len(normal), alpha, level)
    return replace(
        check,
        lora=file.name,
        format=file.format,
        ranks=file.ranks,
        draws=draws,
        seed=seed,
        reference=denoiser.reference,
        forward_rows=measuring.rows_of(len(normal) + len(chosen), len(asked), draws, denoiser),
        fingerprints=fingerprints,
        notes=[*file.notes, *check.notes],
    )


def candidates(file: LoraFile, prompts: Iterable[str | Candidate] | None) -> list[Candidate]:
    """Returns the prompts to ask about, each once. Raises InputError where there are none."""
    if prompts is None:
        return require(file.prompts(), file.path.name)
    if isinstance(prompts, str):
        raise InputError("prompts are a list of texts: one text alone was given")
    given = [p if isinstance(p, Candidate) else Candidate(p, "given") for p in prompts]
    found = list({candidate.text: candidate for candidate in given if candidate.text.strip()}.values())
    if not found:
        raise InputError("no prompt was given: leave prompts out for those of the LoRA's metadata")
    return found


def check_strengths(strengths: Sequence[float]) -> list[float]:
    """Returns the strengths in ascending order, the base (0) first. Raises InputError for what are none."""
    found = sorted({float(value) for value in strengths if math.isfinite(value)} - {0.0}, key=abs)
    if not found or len(found) > MOST_STRENGTHS or not all(math.isfinite(value) for value in strengths):
        raise InputError(f"strengths are one to {MOST_STRENGTHS} numbers other than 0, e.g. 0.5 and 1")
    if abs(found[-1]) > LARGEST:
        raise InputError(f"a strength lies between -{LARGEST:g} and {LARGEST:g}, not at {found[-1]:g}")
    return [0.0, *found]


def normal_prompts(benign: Iterable[str] | None, alpha: float, draws: int) -> list[str]:
    """Returns the benign prompts, each once. Raises InputError for too few of them to promise alpha."""
    texts = shipped() if benign is None else list(dict.fromkeys(benign))
    check_promise(len(texts), alpha, draws)
    return texts


def results(
    chosen: Sequence[Candidate],
    energies: Tensor,
    strengths: list[float],
    benign: int,
    alpha: float,
    level: float = LEVEL,
) -> LoraCheck:
    """Returns what energies (strengths, benign prompts and then others, 8) amount to; facts of the LoRA are left out.

    Raises:
        NonFiniteError: NaN or infinity.
        InputError: The level is no rate.
    """
    scores = measuring.scores_of(energies, benign)
    p = measuring.p_values(scores, benign)
    cells = [
        tuple(
            Cell(
                strength,
                scores[s, benign + i].item(),
                p.score[s, i].item(),
                (scores[s, benign + i] - scores[0, benign + i]).item(),
                p.gain[s, i].item() if s else 1.0,
                p.joint[s, i].item(),
            )
            for s, strength in enumerate(strengths)
        )
        for i in range(len(chosen))
    ]
    p_last = np.array([row[-1].p_both for row in cells])
    over_all = adjusted(p_last)
    stands = rejected(over_all, level)
    found = [
        PromptFinding(
            text=candidate.text,
            source=candidate.source,
            finding=_finding(row, bool(stands[i]), alpha),
            p_value=float(p_last[i]),
            adjusted=float(over_all[i]),
            from_strength=next((cell.strength for cell in row[1:] if cell.p_both <= alpha), None),
            cells=row,
        )
        for i, (candidate, row) in enumerate(zip(chosen, cells, strict=True))
    ]
    return LoraCheck(
        lora="",
        format="",
        ranks=[],
        strengths=strengths,
        alpha=alpha,
        level=level,
        prompts=found,
        benign=[row[:benign].tolist() for row in scores],
        draws=0,
        seed=0,
        reference="empty branch",
        forward_rows=0,
        fingerprints=[],
    )


def _finding(cells: tuple[Cell, ...], stands: bool, alpha: float) -> Finding:
    last = cells[-1]
    if last.p_both <= alpha:
        return MEMORIZED if stands else UNSURE
    return BASE if cells[0].p_value <= alpha and last.p_value <= alpha else CLEAR
