"""Other statistics of membership, called as those of `membership`: (T, B) float32, smaller = more member-like.

Loss, SecMI, PIA and PFAMI, each as published; what they are asked about is a clean latent, as for `sima`.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from ..denoiser import Condition, Denoiser, NoiseLevel
from ..errors import InputError
from .batching import in_batches
from .noised import Questions, Rows, energy, shared_noise

INTERVALS = 100  # SecMI's step is that part of the schedule
CROPS = (0.95, 0.825, 0.7)
"""Shares of the latent's side that PFAMI's perturbed copies keep."""
TINY = 1e-12  # no loss is smaller


def loss(
    denoiser: Denoiser,
    latents: Tensor,
    timesteps: Sequence[float] | Tensor,
    condition: Condition | Tensor | None = None,
    *,
    draws: int = 8,
    seed: int = 0,
) -> Tensor:
    """Returns the training loss, the mean over draws of ||noise(x_t, t) - noise||^2. T * draws rows per image.

    Reference: Matsumoto et al. 2023, arXiv 2302.03262. Raises what `sima` raises.
    """
    return _loss(Questions(denoiser, latents, timesteps, condition), draws, seed).float()


def secmi(
    denoiser: Denoiser,
    latents: Tensor,
    timesteps: Sequence[float] | Tensor,
    condition: Condition | Tensor | None = None,
) -> Tensor:
    """Returns SecMI's t-error, ||x_t - back(forth(x_t))||^2, with x_t reached from x0 by deterministic DDIM steps.

    Steps are a hundredth of the schedule (10 of 1,000 timesteps). To a timestep t it takes t / 10 + 2 rows per image,
    see `secmi_rows`; the way up is shared by all timesteps. No draws.

    Reference: Duan et al. 2023, arXiv 2302.01316. Raises what `sima` raises; InputError where t leaves no step above.
    """
    questions = Questions(denoiser, latents, timesteps, condition)
    ladder, above = _ladder(denoiser, questions.times)
    rungs = [denoiser.level(t).to(denoiser.device) for t in ladder]
    tops = {t: denoiser.level(up).to(denoiser.device) for t, up in zip(questions.times.tolist(), above, strict=True)}

    def climb(rows: slice) -> Tensor:
        image = torch.arange(rows.start, rows.stop, device=questions.latents.device)
        x, errors = questions.latents[rows], {}
        for number, here in enumerate(rungs):
            noise = questions.noise(x, here, image)
            top = tops.get(ladder[number])
            if top is not None:
                higher = _ddim(x, noise, here, top)
                back = _ddim(higher, questions.noise(higher, top, image), top, here)
                errors[ladder[number]] = energy(back - x)
            if number + 1 < len(rungs):
                x = _ddim(x, noise, here, rungs[number + 1])
        return torch.stack([errors[t] for t in questions.times.tolist()], 1)

    errors_of_all = torch.cat([answer.cpu() for _, answer in in_batches(climb, len(latents), questions.batch_rows)])
    return errors_of_all.T.float()


def secmi_rows(denoiser: Denoiser, timesteps: Sequence[float] | Tensor) -> int:
    """Returns how many rows of the network `secmi` takes per image."""
    ladder, above = _ladder(denoiser, torch.as_tensor(timesteps).reshape(-1))
    return len(ladder) + len(above)


def pia(
    denoiser: Denoiser,
    latents: Tensor,
    timesteps: Sequence[float] | Tensor,
    condition: Condition | Tensor | None = None,
) -> Tensor:
    """Returns PIA's statistic, sum |e - noise(alpha x0 + sigma e, t)|^4 with e = noise(x0, 0).

    It takes T + 1 rows per image, and no draws.

    Reference: Kong et al. 2023, arXiv 2305.18355, whose norm has the fourth power, too. Raises what `sima` raises.
    """
    questions = Questions(denoiser, latents, timesteps, condition)
    start = Questions(denoiser, latents, [0], condition)
    first = start.mean(1, lambda rows: rows.ask(rows.z))[0].float().to(questions.latents.device)

    def error(rows: Rows) -> Tensor:
        estimate = first[rows.image]
        return energy(estimate - rows.ask(rows.noised(estimate)), 4)

    return questions.mean(1, error).float()


def pfami(
    denoiser: Denoiser,
    latents: Tensor,
    timesteps: Sequence[float] | Tensor,
    condition: Condition | Tensor | None = None,
    *,
    draws: int = 8,
    seed: int = 0,
) -> Tensor:
    """Returns PFAMI's statistic, 1 - mean over crops of loss(crop of x0) / loss(x0), not squared.

    It takes T * draws * 4 rows per image.

    A member is a peak of the model's density: its loss is below that of slightly changed copies, here three centre
    crops scaled back. All copies share the noise. A released implementation squares the difference, and so forgets
    its sign.

    Reference: Fu et al. 2023, arXiv 2308.12143. Raises what `sima` raises.
    """
    copies = [latents, *(_cropped(latents, share) for share in CROPS)]
    losses = [_loss(Questions(denoiser, z, timesteps, condition), draws, seed) for z in copies]
    return (1 - torch.stack(losses[1:]).mean(0) / losses[0].clamp_min(TINY)).float()


def _loss(questions: Questions, draws: int, seed: int) -> Tensor:
    noise = shared_noise(questions.latents, draws, seed)

    def error(rows: Rows) -> Tensor:
        added = noise[rows.draw]
        return energy(rows.ask(rows.noised(added)) - added)

    return questions.mean(draws, error)


def _ladder(denoiser: Denoiser, times: Tensor) -> tuple[list[float], list[float]]:
    """The times that lead up to all of `times`, and the one above each of them."""
    discrete = denoiser.levels.alphas_cumprod
    most = 1.0 if discrete is None else len(discrete) - 1
    step = 1 / INTERVALS if discrete is None else max(1, len(discrete) // INTERVALS)
    wanted = times.tolist()
    above = [t + step for t in wanted]
    if max(above) > most:
        raise InputError(f"SecMI needs a step above its timestep: {max(wanted)} is too close to {most}")
    rungs = [i * step for i in range(int(max(wanted) / step) + 1)]
    # a rung that rounding puts beside a wanted time would be a step of no length
    rungs = [rung for rung in rungs if min(abs(rung - t) for t in wanted) > step / 1000]
    return sorted({*rungs, *wanted}), above


def _ddim(x: Tensor, noise: Tensor, here: NoiseLevel, there: NoiseLevel) -> Tensor:
    """The deterministic DDIM step (Song et al. 2021, arXiv 2010.02502) between any two levels."""
    (a, s), (b, r) = ((v.alpha.view(-1, 1, 1, 1), v.sigma.view(-1, 1, 1, 1)) for v in (here, there))
    return b * (x - s * noise) / a + r * noise


def _cropped(latents: Tensor, share: float) -> Tensor:
    """The centre of each latent, scaled back to its size."""
    height, width = latents.shape[-2:]
    rows, columns = max(1, int(height * share)), max(1, int(width * share))
    top, left = (height - rows) // 2, (width - columns) // 2
    centre = latents[..., top : top + rows, left : left + columns]
    return torch.nn.functional.interpolate(centre.float(), (height, width), mode="bilinear", align_corners=False)
