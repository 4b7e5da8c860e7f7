"""One prompt, one method: mitigate, then test on fresh noise whether it held."""

from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from ..calibration import Calibration
from ..condition import alike
from ..denoiser import Condition, Denoiser
from ..errors import InputError
from ..signals.draws import derived_seed, draw_noise
from .attenuation import attenuate
from .embedding import MARGIN, optimise_embedding
from .initial_noise import CANDIDATES, neighbours, select_noise
from .objective import Measure, Objective, numbers
from .result import Mended, Method, Mitigation, similarity
from .rewrite import Rewriter, rewrite

ATTEMPTS = 3  # each with other noise and words, and a wider margin
METHODS: tuple[Method, ...] = ("rewrite", "embed", "attenuate", "reseed")


def mitigate(
    method: Method,
    denoiser: Denoiser,
    calibration: Calibration,
    prompt: str | None,
    condition: Condition,
    *,
    seed: int = 0,
    shape: tuple[int, int, int] | None = None,
    rewriter: Rewriter | None = None,
    words: Path | None = None,
) -> Mended:
    """Mitigates one memorized prompt, and tests the result on noise that the method has not seen.

    Args:
        method: "rewrite" edits words, "embed" moves the embedding, "attenuate" takes tokens out of attention, "reseed"
            chooses another initial noise.
        denoiser: The model; for "rewrite" one that reads prompts, for "attenuate" one that tells where words are.
        calibration: The model's calibration.
        prompt: The prompt's text, where there is one.
        condition: The prompt's condition, one row.
        seed: The seed of all private noise.
        shape: The latent's shape, (C, H, W).
        rewriter, words: What "rewrite" takes words from; see `rewrite`.

    Returns:
        What was tried and measured, with what to sample with; `mitigation.held` is False if the test failed.

    Raises:
        InputError: Unknown method, or no text to rewrite, or no way to read one.
        NotApplicable, NonFiniteError, OutOfMemory: As in `Guidance`.
    """
    if method not in METHODS:
        raise InputError(f"unknown method {method!r}: use one of {', '.join(METHODS)}")
    if method == "reseed":
        return _reseed(denoiser, calibration, prompt, condition, seed, shape)
    if method in ("rewrite", "attenuate") and prompt is None:
        raise InputError(f"there is no text to {method}: only the prompt's embeddings are known")

    def attempt(number: int) -> Mended:
        fresh = derived_seed(seed, method, number)
        if method == "attenuate" and prompt is not None:
            return attenuate(denoiser, calibration, prompt, condition, seed=fresh, shape=shape)
        if method == "embed" or prompt is None:
            return _embed(denoiser, calibration, prompt, condition, fresh, shape, MARGIN * (1 + number / 2))
        return rewrite(denoiser, calibration, prompt, rewriter=rewriter, words=words, seed=fresh, shape=shape)

    tries = [attempt(0)]
    while not tries[-1].mitigation.held and len(tries) < ATTEMPTS:
        tries.append(attempt(len(tries)))
    about = replace(
        tries[-1].mitigation,
        forward_rows=sum(tried.mitigation.forward_rows for tried in tries),
        backward_rows=sum(tried.mitigation.backward_rows for tried in tries),
    )
    return replace(tries[-1], mitigation=about)


mend = mitigate  # the former name


def _embed(
    denoiser: Denoiser,
    calibration: Calibration,
    prompt: str | None,
    condition: Condition,
    seed: int,
    shape: tuple[int, int, int] | None,
    margin: float,
) -> Mended:
    seeds = [derived_seed(seed, part) for part in ("optimise", "test")]
    optimised = optimise_embedding(denoiser, calibration, condition, seed=seeds[0], shape=shape, margin=margin)
    test = Objective(denoiser, calibration, condition, seed=seeds[1], shape=shape)
    after = test(optimised.condition)
    alike = similarity(optimised.condition, condition).item()
    report = _report("embed", prompt, test, after, alike, bool(after.holds(calibration.alpha)))
    spent = replace(
        report,
        forward_rows=report.forward_rows + optimised.forward_rows,
        backward_rows=report.backward_rows + optimised.backward_rows,
    )
    return Mended(spent, condition=optimised.condition)


def _reseed(
    denoiser: Denoiser,
    calibration: Calibration,
    prompt: str | None,
    condition: Condition,
    seed: int,
    shape: tuple[int, int, int] | None,
) -> Mended:
    seed = derived_seed(seed, "reseed")
    noises = draw_noise(denoiser, CANDIDATES, seed, shape or calibration.latent_shape)
    selected = select_noise(denoiser, calibration.combination, condition, noises, calibration.level(denoiser))
    near = neighbours(selected.noise, calibration.draws, seed)
    test = Objective(denoiser, calibration, condition, noise=near)
    after = test.before  # the prompt stays what it was
    anywhere = Objective(denoiser, calibration, condition, seed=derived_seed(seed, "anywhere"), shape=shape)
    report = _report("reseed", prompt, anywhere, after, 1.0, bool(after.p_value > calibration.alpha))
    rows = selected.forward_rows + test.forward_rows
    return Mended(replace(report, forward_rows=report.forward_rows + rows), noise=selected.noise)


def _report(
    method: Method, prompt: str | None, test: Objective, after: Measure, alike: float, held: bool
) -> Mitigation:
    return Mitigation(
        method=method,
        held=held,
        reason=None if held else "it did not hold on fresh noise",
        original=prompt,
        rewritten=prompt,
        words=[],
        similarity=alike,
        **numbers(test, after),
    )


def failed(method: Method, prompt: str | None, reason: str) -> Mended:
    """Returns what is reported when a method could not be carried out, with the reason."""
    return Mended(
        Mitigation(
            method=method,
            held=False,
            reason=reason,
            original=prompt,
            rewritten=prompt,
            words=[],
            score_before=None,
            score_after=None,
            p_before=None,
            p_after=None,
            recall=None,
            similarity=None,
            forward_rows=0,
            backward_rows=0,
        )
    )


def stacked(rows: list[Condition]) -> Condition:
    """Joins conditions of one row each, and returns one; of what they hold besides text, what all of them hold."""
    rows = list(alike(rows))
    names = set.intersection(*(set(row.tensors) for row in rows))
    kept = [name for name in rows[0].tensors if name in names]
    return Condition(
        **{name: torch.cat([_as(row.tensors[name], rows[0].tensors[name]) for row in rows]) for name in kept}
    )


def _as(tensor: Tensor, other: Tensor) -> Tensor:
    return tensor.to(other.device, other.dtype)
