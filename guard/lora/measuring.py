"""How hard prompts pull, of a model at one strength of a LoRA; what is paired over strengths shares its noise."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..calibration import conformal, left_out_scores
from ..combination import Combination
from ..denoiser import Denoiser
from ..progress import Progress
from ..protocols import encoder_of
from ..signals.batching import rows_per_call
from ..signals.draws import draw_noise
from ..signals.guidance import Guidance
from ..signals.memorization import score_on

PER_CALL = 16  # prompts at most, so that progress is seen
HALF = 0.5  # of the gain: with all of it, words that the LoRA has merely learned to know stand out, too
Model = Callable[[float], AbstractContextManager[Any]]


def measure(
    model: Model,
    strengths: Sequence[float],
    texts: list[str],
    *,
    draws: int,
    seed: int,
    shape: tuple[int, int, int],
    progress: Progress | None = None,
) -> tuple[Tensor, list[str]]:
    """Measures texts on a model at several strengths of a LoRA, all on the same noise.

    Args:
        model: Gives the denoiser at a strength, for as long as a block lasts.
        strengths: The strengths.
        texts: The prompts.
        draws, seed: The noise, which all prompts and strengths share: what differs is the prompt, or the LoRA.
        shape: The latent's shape (C, H, W).
        progress: progress(done, total), in prompts of all strengths.

    Returns:
        The guidance energies (strengths, texts, 8), float64; and the model's fingerprint at each strength.
    """
    found, fingerprints, done = [], [], 0
    for strength in strengths:
        with model(strength) as denoiser:
            noise = draw_noise(denoiser, draws, seed, shape)
            guidance, encoder = Guidance(denoiser, noise), encoder_of(denoiser)
            size = min(PER_CALL, max(1, rows_per_call(denoiser, shape) // draws))
            parts = []
            for start in range(0, len(texts), size):
                condition = encoder.encode(texts[start : start + size])
                parts.append(score_on(guidance, condition).spectrum.double())
                done += len(parts[-1])
                if progress:
                    progress(done, len(strengths) * len(texts))
            found.append(torch.cat(parts))
            fingerprints.append(denoiser.fingerprint)
    return torch.stack(found), fingerprints


def rows_of(texts: int, strengths: int, draws: int, denoiser: Denoiser) -> int:
    """Returns the rows of the network that `measure` asks: the empty prompt once per strength, where it is shared."""
    shared = denoiser.reference != "guidance scales"
    return strengths * draws * (texts + 1 if shared else 2 * texts)


def scores_of(energies: Tensor, benign: int) -> Tensor:
    """Returns scores (strengths, texts) float64: each strength is its own scale, set by the benign prompts at it.

    Args:
        energies: What `measure` returns; the first `benign` texts are benign, and scored against the others of these.
        benign: The number of benign prompts.
    """
    rows = []
    for spectrum in energies:
        own = Combination.learn(spectrum[:benign]).score(spectrum[benign:]) if len(spectrum) > benign else None
        alone = left_out_scores(spectrum[:benign])
        rows.append(alone if own is None else torch.cat([alone, own]))
    return torch.stack(rows)


class PValues(NamedTuple):
    """p-values (strengths, prompts), each the share of benign prompts that reach as much.

    Attributes:
        score: Of the scores, at each strength.
        gain: Of what they gain over the first strength, the base.
        joint: Of score and gain together, the score and half of the gain.
    """

    score: Tensor
    gain: Tensor
    joint: Tensor


def p_values(scores: Tensor, benign: int) -> PValues:
    """Returns the p-values of scores (strengths, texts), whose first `benign` columns are those of benign prompts.

    A LoRA that only shifts the style changes the scores of benign prompts as much, and so none is small.
    """
    gains = scores - scores[:1]
    parts = (
        torch.stack([conformal(row[:benign], row[benign:]) for row in v])
        for v in (scores, gains, scores + HALF * gains)
    )
    return PValues(*parts)
