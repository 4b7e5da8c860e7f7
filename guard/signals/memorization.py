"""Will this prompt make the model reproduce training data? Isotropic norm and anisotropic alignment tell beforehand.

From pure noise x_T, with guidance vectors g_t = noise(x_T, t, c) - noise(x_T, t, empty):

- iso = ||g_T||, at the first timestep T of 50-step sampling; for flow matching g_T is the difference of velocities,
  since at s = 1 the noise is x_T itself, whatever the prompt;
- aniso = cos(noise(x_T, t_low, empty), g_t_low), at the third last timestep, on the same noise.

References:
    Asthana & Belagiannis, ICLR 2026, arXiv 2601.20642 (iso and aniso);
    Wen et al., ICLR 2024, arXiv 2407.21720 (the norm alone, `iso`).
"""

from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from typing import Any

import torch
from torch import Tensor

from ..condition import mean_text
from ..denoiser import Condition, Denoiser, NoiseLevel
from ..errors import InputError, NonFiniteError
from ..progress import Progress
from .alignment import Alignment, cosines, low_noise
from .batching import in_batches, rows_per_call
from .draws import draw_noise
from .guidance import Guidance, empty_to_blame, require_effect
from .rings import ring_energy

AUTHOR_WEIGHTS = {"epsilon": (1.0, 2.0), "v": (1.0, 0.1), "sample": (1.0, 2.0), "flow": (1.0, 2.0)}


@dataclass(frozen=True)
class MemorizationResult:
    """Measurements, one per prompt; every tensor is float32 on the CPU, (P,) unless stated.

    Attributes:
        score: Raw score without calibration; higher = more likely memorized. `iso`, or the authors' sum.
        iso: Norm of the guidance vector at pure noise, mean over draws; higher = more likely memorized. It hangs
            on the reference, too.
        aniso: Cosine over channels at t_low, mean over pixels and draws; its direction depends on the model. None where
            it was not asked for.
        aniso_flat: The same cosine over the flattened latent, as in the paper's text; None likewise.
        spectrum: (P, 8), energy per frequency ring of the draws' mean guidance vector at pure noise: what guidance
            says whatever the noise. The rings sum up to its squared norm.
        draws: Noise draws per prompt.
        forward_rows: Rows that went through the network for all prompts together.
        words: (P, D), mean text embedding, as `condition.mean_text` gives it; None where there is none.
    """

    score: Tensor
    iso: Tensor
    aniso: Any
    aniso_flat: Any
    spectrum: Tensor
    draws: int
    forward_rows: int
    words: Any = None

    @property
    def alignments(self) -> Any:
        """Both alignments, (P, 2); None where they were not asked for."""
        return None if self.aniso is None else torch.stack([self.aniso, self.aniso_flat], 1)

    def __len__(self) -> int:
        return len(self.score)

    def __getitem__(self, rows: slice | list[int] | Tensor) -> "MemorizationResult":
        chosen: dict[str, Any] = {}
        for field in fields(self):
            value = getattr(self, field.name)
            chosen[field.name] = value[rows] if isinstance(value, Tensor) else value
        return MemorizationResult(**chosen)

    @staticmethod
    def cat(parts: "list[MemorizationResult]") -> "MemorizationResult":
        """Joins the prompts of all parts, which share one draw count."""
        joined: dict[str, Any] = {}
        for field in fields(MemorizationResult):
            values = [getattr(part, field.name) for part in parts]
            joined[field.name] = torch.cat(values) if isinstance(values[0], Tensor) else values[0]
        joined["forward_rows"] = sum(part.forward_rows for part in parts)
        return MemorizationResult(**joined)


def memorization_score(
    denoiser: Denoiser,
    condition: Condition | Tensor,
    *,
    draws: int = 4,
    seed: int = 0,
    noise: Tensor | None = None,
    level: NoiseLevel | None = None,
    author_compat: bool = False,
    alignment: bool = True,
    batch_rows: int | None = None,
    progress: Progress | None = None,
) -> MemorizationResult:
    """Measures how strongly guidance pulls from pure noise, chunk by chunk of prompts.

    Both timesteps, both branches and all draws share a call where there is room; where prompts share their noise, the
    empty prompt is asked once for all of them. What a prompt is compared with is the model's `reference`.

    Args:
        denoiser: The model.
        condition: P prompts, (P, L, D) or what `denoiser.encode` gave.
        draws: Noise draws per prompt.
        seed: The seed of the private generator; all prompts share its draws.
        noise: Takes the place of draws and seed: (draws, C, H, W) for all prompts, or (P, draws, C, H, W).
        level: Where guidance is taken for all but aniso, one level; by default pure noise, where 50-step sampling
            starts. Another one gives other scores: a calibration tells its own, `Calibration.level`.
        author_compat: `score` is the authors' sum of iso and aniso, both taken of the raw network output as their
            code does, and aniso per pixel. Higher = more likely memorized, on the models they tuned it for.
        alignment: Also measure aniso, which takes part in no calibrated score and doubles the rows.
        batch_rows: Most rows a call has, also of one prompt; by default what `batching.rows_per_call` says. Halved as
            long as the device runs out of memory.
        progress: Called with the numbers of prompts done and of all.

    Returns:
        The measurements, one per prompt, on the CPU; a higher score = more likely memorized.

    Raises:
        InputError: Zero draws, shapes that do not fit, or author_compat without alignment or at a level of your own.
        NotApplicable: See `Denoiser.require_guidance`; or the network ignores the guidance scale it is told.
        NonFiniteError: The model answered with NaN or infinity.
        OutOfMemory: Not even one row fits.

    Example:
        A prompt that moves each of four pixels by 3 pulls with a norm of 6, whatever the noise.

        >>> from cryptomnesia import CallableDenoiser
        >>> denoiser = CallableDenoiser(
        ...     lambda x, t, text: x + text.mean((1, 2)).view(-1, 1, 1, 1),
        ...     torch.linspace(0.999, 0.01, 1000),
        ...     empty=torch.zeros(1, 1, 1),
        ...     latent_shape=(1, 2, 2),
        ... )
        >>> measured = memorization_score(denoiser, torch.full((1, 1, 1), 3.0), draws=2)
        >>> round(measured.iso.item(), 4), measured.forward_rows
        (6.0, 8)
    """
    condition = Condition.of(condition)
    if not len(condition):
        raise InputError("no prompt was given: the condition has no rows")
    denoiser.require_guidance()
    if author_compat and level is not None:
        raise InputError("the authors' score has its own level: leave out level, or author_compat")
    if author_compat and not alignment:
        raise InputError("the authors' score is a sum with aniso in it: leave alignment on")
    noise = draw_noise(denoiser, draws, seed) if noise is None else _checked(noise, len(condition))
    batch_rows = rows_per_call(denoiser, noise.shape[-3:], batch_rows)
    first = denoiser.levels.sampling(50)[0] if author_compat else level or denoiser.levels.pure_noise
    levels = NoiseLevel.cat([first, low_noise(denoiser)] if alignment else [first])
    parts = list(_measure(denoiser, condition, noise, levels, author_compat, batch_rows, progress))
    return replace(MemorizationResult.cat(parts), words=mean_text(condition))


def score_on(
    guidance: Guidance, condition: Condition, batch_rows: int | None = None, alignment: Alignment | None = None
) -> MemorizationResult:
    """Returns what `memorization_score` measures on the same noise; `forward_rows` is what it cost.

    Alignment is measured where it is given. Arguments and errors are those of `Guidance.__call__` and of
    `memorization_score`.
    """
    guidance.batch_rows = rows_per_call(guidance.denoiser, guidance.noise.shape[1:], batch_rows)
    vectors, rows = guidance.counted(condition)
    words = mean_text(condition)
    if alignment is None:
        return of_vectors(vectors, rows, words=words)
    alignment.guidance.batch_rows = guidance.batch_rows
    low, more = alignment.counted(condition)
    return of_vectors(vectors, rows + more, low, words)


def of_vectors(
    vectors: Tensor, forward_rows: int, alignments: Tensor | None = None, words: Tensor | None = None
) -> MemorizationResult:
    """Returns what guidance vectors at pure noise amount to.

    Args:
        vectors: (P, draws, C, H, W).
        forward_rows: Rows that went through the network for them.
        alignments: Both cosines of each draw, (P, draws, 2), where they were measured; see `alignment.cosines`.
        words: The prompts' mean text embeddings, (P, D), where they have any.
    """
    both = None if alignments is None else alignments.mean(1).cpu()
    iso = vectors.flatten(2).norm(dim=-1).mean(1).cpu()
    return MemorizationResult(
        score=iso,
        iso=iso,
        aniso=None if both is None else both[:, 0],
        aniso_flat=None if both is None else both[:, 1],
        spectrum=ring_energy(vectors.mean(1)).cpu(),
        draws=vectors.shape[1],
        forward_rows=forward_rows,
        words=words,
    )


def _checked(noise: Tensor, prompts: int) -> Tensor:
    if noise.ndim not in (4, 5) or noise.shape[-4] < 1 or (noise.ndim == 5 and len(noise) != prompts):
        raise InputError(
            f"noise has shape {tuple(noise.shape)}: give (draws, C, H, W), or (prompts, draws, C, H, W) for {prompts}"
        )
    return noise


def _measure(
    denoiser: Denoiser,
    condition: Condition,
    noise: Tensor,
    levels: NoiseLevel,
    author_compat: bool,
    batch_rows: int,
    progress: Progress | None,
) -> Iterator[MemorizationResult]:
    noise = (noise.unsqueeze(0) if noise.ndim == 4 else noise).to(denoiser.device)
    draws = noise.shape[1]
    lower_once = len(noise) == 1 and denoiser.branches(condition[[0]]).shared
    size = max(1, batch_rows // ((1 if lower_once else 2) * len(levels) * draws))
    kept, start = None, 0
    while start < len(condition):
        first = lower_once and kept is None and size > 1  # the empty prompt's rows share its call
        chunk = condition[slice(start, min(start + size - first, len(condition)))]
        draws_here = noise if len(noise) == 1 else noise[start : start + len(chunk)]
        asked = denoiser.branches(chunk)
        lower = None if kept is not None else asked.lower_rows(len(draws_here) if asked.shared else len(chunk))
        try:
            raw, terms = _ask(denoiser, asked.upper, lower, draws_here, levels, batch_rows)
        except NonFiniteError as error:
            raise empty_to_blame(denoiser, draws_here[0, :1], levels[:1]) or error from error
        require_effect(denoiser, chunk, raw[: len(chunk)], raw[len(chunk) :])
        compared = (raw[len(chunk) :], terms[len(chunk) :]) if kept is None else kept
        kept = compared if lower_once else None
        kind = 0 if author_compat else 1
        yield _statistics(
            (raw, terms)[kind][: len(chunk)],
            compared[kind],
            rows=len(raw) * len(levels) * draws,
            width=asked.width,
            author_compat=author_compat,
            prediction_type=denoiser.prediction_type,
        )
        start += len(chunk)
        if progress:
            progress(start, len(condition))


def _ask(
    denoiser: Denoiser, upper: Condition, lower: Condition | None, noise: Tensor, levels: NoiseLevel, batch_rows: int
) -> tuple[Tensor, Tensor]:
    """One network call, or as many as its rows need. Returns raw output, and `pull` at T beside noise at t_low, each
    (upper and lower rows, levels, draws, C, H, W)."""
    draws, count = noise.shape[1], len(levels)
    parts = [upper] if lower is None else [upper, lower]
    x = torch.cat([noise.expand(len(part), *noise.shape[1:]) for part in parts])
    text, groups, shape = Condition.cat(parts), len(x), tuple(noise.shape[2:])

    def ask(rows: slice) -> Tensor:
        number = torch.arange(rows.start, rows.stop)
        group, level, draw = number // (count * draws), number // draws % count, number % draws
        p = denoiser.predict(x[group.to(x.device), draw.to(x.device)], levels[level], text[group])
        high = (level == 0).to(p.raw.device).view(-1, 1, 1, 1)
        return torch.stack([p.raw, torch.where(high, p.pull, p.noise)])

    calls = in_batches(ask, groups * count * draws, rows_per_call(denoiser, shape, batch_rows))
    raw, terms = torch.cat([answer for _, answer in calls], dim=1)
    whole = (groups, count, draws, *shape)
    return raw.view(whole), terms.view(whole)


def _statistics(
    upper: Tensor, lower: Tensor, *, rows: int, width: float, author_compat: bool, prediction_type: str
) -> MemorizationResult:
    """From (P, levels, draws, C, H, W) and what it is compared with (P or 1, ...) to one number each per prompt."""
    guidance = (upper - lower) / width
    if guidance.shape[1] == 1:
        return of_vectors(guidance[:, 0], rows)
    result = of_vectors(guidance[:, 0], rows, cosines(lower[:, 1], guidance[:, 1]))
    if not author_compat:
        return result
    first, second = AUTHOR_WEIGHTS[prediction_type]
    return replace(result, score=first * result.iso + second * result.aniso)
