"""How a denoiser errs about an image: how much, at which frequencies, and how far its prompt explains it.

Sampling ends where the error that is guided by the prompt is small. So in a model's own image its error without the
prompt is what the prompt pulls away from: both point the same way, more so than under any other model.
"""

from functools import cache

import torch
from torch import Tensor

from ..denoiser import Condition, Denoiser, NoiseLevel
from ..signals.batching import in_batches, rows_per_call
from .inversion import TINY

NOISY = (49, 48, 46, 43, 39, 33, 25, 15, 5)  # which of 50 sampling steps the error is measured at
LOW = (49, 48, 46, 43, 39)  # and where the latent itself is shown
DRAWS = 2
BANDS = 4  # of frequencies
GUIDANCE = 7.5
SEED = 321
MEASURED = ("empty", "prompt", "pull", "clean", "bands", "coherence")
PROMPTED = ("prompt", "pull")


def rows_each(prompted: bool) -> int:
    """Returns how many rows of the network one image takes."""
    return (len(NOISY) * DRAWS + len(LOW)) * (2 if prompted else 1)


def error_levels(denoiser: Denoiser, latents: Tensor, condition: Condition | None = None) -> dict[str, Tensor]:
    """Measures what noise a denoiser gets wrong in latents (B, C, h, w); float64.

    All denoisers with latents of that shape get the same noise. Guided errors use the usual guidance scale, 7.5.

    Args:
        denoiser: The model.
        latents: Clean latents.
        condition: The images' prompts, one each, if known.

    Returns:
        As log mean squares, smaller = more like the denoiser's own images: "empty" (B, 9), "clean" (B, 5) and, with
        prompts, "prompt" (B, 2 * 9 + 2 * 5). With prompts "pull" (B, 14), the cosine in [-1, 1] between the error
        without the prompt and the prompt's pull; larger = more like its own. "bands" (B, 14 * 4), the log energy of
        the error without the prompt by frequency, and "coherence", the cosines between its errors at neighbouring low
        levels, (B, 4), with prompts (B, 12), prompted and guided ones, too; no direction.
    """
    generator = torch.Generator().manual_seed(SEED)
    noise = torch.randn(len(NOISY), DRAWS, *latents.shape[1:], generator=generator).flatten(0, 1)
    noise = torch.cat([noise, torch.zeros(len(LOW), *latents.shape[1:])]).to(denoiser.device)
    steps = denoiser.levels.sampling(50)
    where = [steps[i] for i in NOISY for _ in range(DRAWS)] + [steps[i] for i in LOW]
    levels, latents, each = NoiseLevel.cat(where).to(denoiser.device), latents.to(denoiser.device), len(where)

    def ask(rows: slice) -> Tensor:
        number = torch.arange(rows.start, rows.stop, device=latents.device)
        image, row = number // each, number % each
        level, eta, z = levels[row], noise[row], latents[image]
        alpha, sigma = (v.view(-1, 1, 1, 1) for v in (level.alpha, level.sigma))
        clean = (row >= len(NOISY) * DRAWS).view(-1, 1, 1, 1)
        x = torch.where(clean, z, alpha * z + sigma * eta)
        return _errors(denoiser, x, eta, level, None if condition is None else condition[image.cpu()])

    kinds = 1 if condition is None else 2
    products = torch.zeros(len(latents) * each, 2 * kinds - 1, dtype=torch.float64)
    bands = torch.zeros(len(products), BANDS, dtype=torch.float64)
    coherence, silent = [], torch.zeros(0, kinds, *latents.shape[1:])
    batch = max(1, rows_per_call(denoiser, latents.shape[1:]) // kinds)
    for rows, answer in in_batches(ask, len(products), batch):
        products[rows], bands[rows] = _products(answer), _by_band(answer[:, 0])
        low = torch.arange(rows.start, rows.stop) % each >= len(NOISY) * DRAWS
        silent = torch.cat([silent, answer[low]])
        while len(silent) >= len(LOW):  # a whole image's
            coherence.append(_coherence(silent[: len(LOW)]))
            silent = silent[len(LOW) :]
    result = _groups(products.view(len(latents), each, -1))
    result["bands"] = _log(torch.cat(_by_level(bands.view(len(latents), each, BANDS)), 1)).flatten(1)
    return result | {"coherence": torch.stack(coherence)}


def _errors(denoiser: Denoiser, x: Tensor, eta: Tensor, level: NoiseLevel, condition: Condition | None) -> Tensor:
    """(R, 1, C, h, w) float32 on the CPU: error of the noise with the empty prompt; (R, 2, ...) with the prompt's."""
    if condition is None:
        return (denoiser.predict(x, level, denoiser.empty).noise - eta)[:, None].float().cpu()
    both = Condition.cat([denoiser.empty[[0] * len(x)], condition])
    answer = denoiser.predict(torch.cat([x, x]), NoiseLevel.cat([level, level]), both).noise
    return torch.stack([part - eta for part in answer.chunk(2)], 1).float().cpu()


def _products(errors: Tensor) -> Tensor:
    """Mean products (R, 1) of errors (R, 1, C, h, w); (R, 3) of two kinds: e e, e d and d d, d what the prompt adds."""
    e = errors[:, 0].flatten(1).double()
    if errors.shape[1] == 1:
        return e.square().mean(1, keepdim=True)
    d = errors[:, 1].flatten(1).double() - e
    return torch.stack([e.square().mean(1), (e * d).mean(1), d.square().mean(1)], 1)


def _by_level(values: Tensor) -> tuple[Tensor, Tensor]:
    """Values (B, rows, F) at the noisy levels (B, 9, F), averaged over draws, and at the low ones (B, 5, F)."""
    noisy, low = values.split([len(NOISY) * DRAWS, len(LOW)], 1)
    return noisy.unflatten(1, (len(NOISY), DRAWS)).mean(2), low


def _groups(products: Tensor) -> dict[str, Tensor]:
    """What mean products (B, rows, 1 or 3) amount to, by group."""
    noisy, low = _by_level(products)
    result = {"empty": _log(noisy[..., 0]), "clean": _log(low[..., 0])}
    if products.shape[-1] == 3:
        parts = []
        for ee, ed, dd in (part.unbind(-1) for part in (noisy, low)):
            prompted, guided = (ee + 2 * scale * ed + scale**2 * dd for scale in (1.0, GUIDANCE))
            parts.append(_log(torch.stack([prompted, guided], -1)).flatten(1))
        result["prompt"] = torch.cat(parts, 1)
        ee, ed, dd = torch.cat([noisy, low], 1).unbind(-1)
        result["pull"] = -ed / (ee * dd).clamp_min(TINY).sqrt()
    return result


def _by_band(errors: Tensor) -> Tensor:
    """Energy (R, 4) of errors (R, C, h, w) in bands of equal width, from low frequencies to high."""
    power = torch.fft.fft2(errors, norm="ortho").abs().square().sum(1)
    return (power.flatten(1) @ _masks(*errors.shape[-2:]).flatten(1).T).double()


@cache
@torch.inference_mode(False)  # it is kept, and must serve other modes later
def _masks(height: int, width: int) -> Tensor:
    y, x = (torch.linspace(-1, 1, size, dtype=torch.float64) for size in (height, width))
    radius = torch.sqrt((y[:, None] ** 2 + x[None] ** 2) / 2)
    band = (radius * BANDS + 1e-9).long().clamp(max=BANDS - 1)  # rounding must not pull a bin over an edge
    return torch.fft.ifftshift(torch.stack([band == k for k in range(BANDS)]).float(), dim=(-2, -1))


def _coherence(errors: Tensor) -> Tensor:
    """Cosines (4,) or (12,) between neighbouring low levels of one image's errors (5, 1 or 2, C, h, w)."""
    kinds = list(errors.flatten(2).double().unbind(1))
    if len(kinds) == 2:
        kinds.append(kinds[0] + GUIDANCE * (kinds[1] - kinds[0]))
    return torch.cat([torch.nn.functional.cosine_similarity(kind[:-1], kind[1:]) for kind in kinds])


def _log(values: Tensor) -> Tensor:
    return values.clamp_min(TINY).log()
