"""SimA: was an image trained on? A denoiser that saw it finds little to correct in it.

A denoiser points from a noisy latent to the mean of the training images around it. Asked about a clean latent, it
finds noise in it where it was not trained on it:

    statistic(t) = sum over coordinates of |noise(x0, t)|^4

The expectation of its answer over noised copies says the same with less error; SimA-MC estimates it by Monte Carlo.

Reference: Rao et al. 2025, "Score-based Membership Inference on Diffusion Models", arXiv 2509.25003. The fourth power,
without a root, is that of the authors' code; the paper's text has a norm.
"""

from collections.abc import Sequence
from typing import Literal

from torch import Tensor

from ..denoiser import Condition, Denoiser
from ..errors import InputError
from ..progress import Progress
from .noised import Questions, Rows, energy, shared_noise

POWER = 4
Average = Literal["answers", "statistics"]


def sima(
    denoiser: Denoiser,
    latents: Tensor,
    timesteps: Sequence[float] | Tensor,
    condition: Condition | Tensor | None = None,
    *,
    author_compat: bool = False,
    batch_rows: int | None = None,
    progress: Progress | None = None,
) -> Tensor:
    """Returns sum |noise(x0, t)|^4 on the clean latent; smaller = more member-like. T rows of the network per image.

    Args:
        denoiser: The model.
        latents: Clean latents (B, C, H, W), as `encode_image` gives them.
        timesteps: T times, in the model's own unit; the authors' are range(0, 200, 10).
        condition: The images' prompts, one row each, or one for all; by default the empty prompt.
        author_compat: The network's own output in place of the noise in it, as in the authors' code. The same for
            networks that put out noise, and no method of theirs for others.
        batch_rows: Most rows of a call; the numbers do not depend on it.
        progress: Called with the numbers of rows done and of all.

    Returns:
        (T, B) float32 on the CPU, >= 0.

    Raises:
        InputError: Latents, timesteps or conditions that do not fit the model, or NaN in the latents.
        NonFiniteError: The model answered with NaN or infinity.
        OutOfMemory: Not even one row fits.
    """
    questions = Questions(
        denoiser, latents, timesteps, condition, raw=author_compat, batch_rows=batch_rows, progress=progress
    )
    return questions.mean(1, lambda rows: energy(rows.ask(rows.z), POWER)).float()


def sima_mc(
    denoiser: Denoiser,
    latents: Tensor,
    timesteps: Sequence[float] | Tensor,
    condition: Condition | Tensor | None = None,
    *,
    draws: int = 8,
    seed: int = 0,
    noise: Tensor | None = None,
    average: Average = "answers",
    batch_rows: int | None = None,
    progress: Progress | None = None,
) -> Tensor:
    """Returns SimA over noised copies alpha x0 + sigma noise; smaller = more member-like. T * draws rows per image.

    With "answers" it is the statistic of the mean answer, sum |mean over draws of noise(x_t, t)|^4: what the theory
    asks for. Draws come in pairs of opposite sign, so that the added noise itself cancels out of the mean. With
    "statistics" it is the mean of sum |noise(x_t, t)|^4, in which the added noise drowns most of the signal.

    Args:
        denoiser, latents, timesteps, condition, batch_rows, progress: As for `sima`.
        draws: Noised copies of each image at each timestep; even numbers are best.
        seed: The seed of the noise, which all images share.
        noise: Noise (draws, C, H, W) to use in its place.
        average: What is averaged over draws, "answers" or "statistics".

    Returns:
        (T, B) float32 on the CPU, >= 0.

    Raises:
        InputError: As for `sima`; also no draw, noise of another shape, or an unknown average.
        NonFiniteError, OutOfMemory: As for `sima`.
    """
    if average not in ("answers", "statistics"):
        raise InputError(f"unknown average {average!r}: use answers or statistics")
    questions = Questions(denoiser, latents, timesteps, condition, batch_rows=batch_rows, progress=progress)
    if noise is None:
        noise = shared_noise(questions.latents, draws, seed, pairs=True)
    elif noise.ndim != 4 or noise.shape[1:] != latents.shape[1:] or not len(noise):
        raise InputError(f"noise for these latents is (draws, {', '.join(map(str, latents.shape[1:]))})")
    shared = noise.to(questions.latents.device, questions.latents.dtype)

    def answers(rows: Rows) -> Tensor:
        return rows.ask(rows.noised(shared[rows.draw]))

    if average == "statistics":
        return questions.mean(len(shared), lambda rows: energy(answers(rows), POWER)).float()
    mean = questions.mean(len(shared), answers)
    return energy(mean.flatten(0, 1), POWER).view(mean.shape[:2]).float()


def sima_relative(
    denoiser: Denoiser,
    latents: Tensor,
    timesteps: Sequence[float] | Tensor,
    condition: Condition | Tensor | None,
    *,
    draws: int = 8,
    seed: int = 0,
) -> Tensor:
    """Returns SimA-MC with the images' prompts over the root of SimA-MC without; smaller = more member-like.

    Some images are hard for any model. How hard is seen without the prompt, where a model betrays less of what it was
    trained on; so part of that is taken out. Ours: the root (against none and all of it, on a log scale) was settled
    on one fine-tuned model, see `benchmarks.membership`. T * draws rows per image, half of them with the prompt.

    Args:
        denoiser, latents, timesteps, seed: As for `sima_mc`.
        condition: The images' prompts; needed.
        draws: Noised copies of each image at each timestep, half of them asked about with its prompt; even, at least 2.

    Returns:
        (T, B) float32 on the CPU, >= 0.

    Raises:
        InputError: As for `sima_mc`; also no prompts, or an odd number of draws.
        NonFiniteError, OutOfMemory: As for `sima`.
    """
    if condition is None:
        raise InputError("sima_relative compares answers with and without the prompt: give prompts, or use sima_mc")
    if draws < 2 or draws % 2:
        raise InputError(f"sima_relative needs an even number of noise draws, not {draws}: half of them for each side")
    prompted, empty = (
        sima_mc(denoiser, latents, timesteps, c, draws=draws // 2, seed=seed).double() for c in (condition, None)
    )
    return (prompted / empty.clamp_min(1e-30).sqrt()).float()
