"""Spectral denoising signatures: how a denoiser errs on noise of one frequency band, band by band.

The frequency plane is cut into 8 rings. Noise that is confined to one ring is added to a clean latent, the denoiser is
asked for it, and the energy of its error is measured per ring, at several noise levels and strengths:

    eta_k = Re ifft(M_k fft(eta)), rescaled to std(eta), times the scale
    z_t = alpha_t z_0 + sigma_t eta_k
    E[scale, t, k, j] = energy in ring j of noise(z_t, t, empty) - eta_k, averaged over draws of eta, with sum_j = 1

Reference: Meshram et al. 2026, "Spectral Denoising Signatures".
"""

from functools import cache
from typing import Literal

import torch
from torch import Tensor

from ..denoiser import Condition, Denoiser, NoiseLevel
from ..errors import InputError
from ..finite import require_finite
from ..progress import Progress
from .batching import in_batches, rows_per_call

RINGS = 8
SCALES = (1.0, 1.25, 1.5)
DRAWS = 6
SEED = 123
Plan = Literal["5step", "1step"]
PLANS: dict[str, tuple[int, ...]] = {"5step": (10, 19, 29, 39, 49), "1step": (25,)}
"""Which of 50 sampling steps are looked at, noisiest first."""


def signature(
    denoiser: Denoiser,
    latents: Tensor,
    *,
    plan: Plan = "5step",
    seed: int = SEED,
    author_compat: bool = False,
    condition: Condition | Tensor | None = None,
    batch_rows: int | None = None,
    progress: Progress | None = None,
) -> Tensor:
    """Measures how a denoiser errs on these latents, ring by ring; no direction, to be compared by `cosine_distance`.

    Rings, scales, draws, timesteps and images share network calls: 144 rows per image and timestep.

    Args:
        denoiser: The model.
        latents: (B, C, H, W), clean, as `encode_image` gives them (the autoencoder's posterior mean, scaled).
        plan: "5step" (960 numbers) or "1step" (192).
        seed: The seed of the noise, which all images share; from a private CPU generator, so equal on every device.
        author_compat: Leaves the plane's four corner bins out, as the authors' half-open intervals do; else they
            belong to the last ring. For noise prediction all else is as in the authors' code; other outputs, of which
            they take none, are turned into noise.
        condition: One row, or one per image; by default the empty prompt.
        batch_rows: Most rows a call has; see `batching.rows_per_call`. The numbers do not
            depend on it.
        progress: Called with the numbers of rows done and of all, `rows_per_image(plan)` for each.

    Returns:
        (B, 3 * T * 64) float32 on the CPU, by scale, timestep, ring of the noise and ring of the error; each run of
        eight sums up to 1.

    Raises:
        InputError: An unknown plan, latents of another shape, with NaN, or too small for eight rings.
        NonFiniteError: The model answered with NaN or infinity.
        OutOfMemory: Not even one row fits.
    """
    check_plan(plan)
    check_latents(denoiser, latents)
    latents = latents.to(denoiser.device, torch.float32)
    count, shape = len(latents), tuple(latents.shape[1:])
    probe = _Probe(denoiser, shape, plan, seed, author_compat)
    condition = denoiser.empty if condition is None else Condition.of(condition)
    if len(condition) not in (1, count):
        raise InputError(f"{len(condition)} conditions do not fit {count} images: give one, or one per image")

    def ask(rows: slice) -> Tensor:
        number = torch.arange(rows.start, rows.stop)
        image, row = number // probe.rows, number % probe.rows
        prompts = condition if len(condition) == 1 else condition[image]
        return probe.error_energy(latents[image.to(latents.device)], row, prompts)

    energy = torch.zeros(count * probe.rows, RINGS, dtype=torch.float64)
    batch_rows = rows_per_call(denoiser, shape, batch_rows)
    for rows, answer in in_batches(ask, len(energy), batch_rows, progress):
        energy[rows] = answer.double().cpu()
    # rows lie by timestep, draw, scale and ring
    energy = energy.view(count, len(PLANS[plan]), DRAWS, len(SCALES), RINGS, RINGS).mean(2).transpose(1, 2)
    return (energy / energy.sum(-1, keepdim=True).clamp_min(1e-30)).flatten(1).float()


def cosine_distance(signatures: Tensor, prototypes: Tensor) -> Tensor:
    """Returns 1 - cosine, (B, P) float64 in [0, 2], of signatures (B, N) and prototypes (P, N); smaller = more alike.

    Raises InputError for NaN or infinity.
    """
    for values in (signatures, prototypes):
        require_finite(values, "the signatures")
    a, b = (torch.nn.functional.normalize(t.double(), dim=-1) for t in (signatures, prototypes))
    return (1 - a @ b.T).clamp(0, 2)  # rounding


def rows_per_image(plan: Plan) -> int:
    """Returns how many rows of the network one signature takes."""
    return len(PLANS[plan]) * DRAWS * len(SCALES) * RINGS


def length(plan: Plan) -> int:
    """Returns how many numbers a signature has."""
    return len(PLANS[plan]) * len(SCALES) * RINGS * RINGS


def check_plan(plan: str) -> None:
    """Raises InputError unless the plan is known."""
    if plan not in PLANS:
        raise InputError(f"unknown plan {plan!r} of a signature: use one of {', '.join(PLANS)}")


def check_latents(denoiser: Denoiser, latents: Tensor) -> None:
    """Raises InputError unless these are finite latents (B, C, H, W) with the model's channels."""
    if latents.ndim != 4 or not len(latents):
        raise InputError(f"latents are (B, C, H, W), not {tuple(latents.shape)}: give at least one")
    channels = denoiser.channels
    if latents.shape[1] != channels:
        raise InputError(f"this model's latents have {channels} channels, not {latents.shape[1]}: encode with it")
    if not torch.isfinite(latents).all():
        raise InputError("the latents hold NaN or infinity: encode the images again, in float32 if need be")


@cache
@torch.inference_mode(False)  # it is kept, and must serve other modes later
def ring_masks(height: int, width: int, corners: bool) -> Tensor:
    """Returns the rings' masks (8, H, W) float32 of the unshifted 2-D FFT.

    The plane's coordinates run from -1 to 1 evenly over the shifted plane, as the authors have it, so that its centre
    is half a bin off zero frequency for even sizes. Radius / sqrt 2 in [k / 8, (k + 1) / 8).

    Raises:
        InputError: The plane is so small that some ring has no bin.
    """
    y, x = (torch.linspace(-1, 1, size, dtype=torch.float64) for size in (height, width))
    radius = torch.sqrt((y[:, None] ** 2 + x[None] ** 2) / 2)
    ring = (radius * RINGS + 1e-9).long()  # rounding must not pull a bin over an edge
    if corners:
        ring = ring.clamp(max=RINGS - 1)
    masks = torch.stack([ring == k for k in range(RINGS)])
    empty = int((masks.flatten(1).sum(1) == 0).sum())
    if empty:
        raise InputError(
            f"a latent of {height}x{width} has no frequency in {empty} of {RINGS} rings: use a larger image"
        )
    return torch.fft.ifftshift(masks.float(), dim=(-2, -1))


class _Probe:
    """One image's rows of the network: ring-confined noise at each timestep, draw, scale and ring, in that order."""

    def __init__(self, denoiser: Denoiser, shape: tuple[int, ...], plan: Plan, seed: int, author_compat: bool):
        self.denoiser = denoiser
        masks = ring_masks(shape[-2], shape[-1], not author_compat)
        self.masks = masks.to(denoiser.device)
        steps = denoiser.levels.sampling(50)
        self.levels = NoiseLevel.cat([steps[i] for i in PLANS[plan]]).to(denoiser.device)
        generator = torch.Generator().manual_seed(seed)
        # one image's worth at a time, as the authors draw them
        draws = [torch.randn(1, *shape, generator=generator) for _ in range(len(self.levels) * DRAWS)]
        self.confined = self._confined(torch.cat(draws).to(denoiser.device))
        self.scales = torch.tensor(SCALES, device=denoiser.device)
        self.rows = rows_per_image(plan)

    def error_energy(self, latents: Tensor, row: Tensor, condition: Condition) -> Tensor:
        """Returns the error's energy per ring (R, 8) for clean latents (R, C, H, W) and the row each is probed by."""
        row = row.to(latents.device)
        ring, scale = row % RINGS, row // RINGS % len(SCALES)
        draw = row // (RINGS * len(SCALES))
        level = self.levels[draw // DRAWS]
        eta = self.confined[draw, ring] * self.scales[scale].view(-1, 1, 1, 1)
        alpha, sigma = (v.view(-1, 1, 1, 1) for v in (level.alpha, level.sigma))
        error = self.denoiser.predict(alpha * latents + sigma * eta, level, condition).noise - eta
        power = torch.fft.fft2(error, norm="ortho").abs().square().sum(1)
        return power.flatten(1) @ self.masks.flatten(1).T

    def _confined(self, noise: Tensor) -> Tensor:
        """(draws, 8, C, H, W): noise (draws, C, H, W) within each ring, with the spread of the whole noise."""
        waves = torch.fft.fft2(noise).unsqueeze(1) * self.masks.unsqueeze(1)
        eta = torch.fft.ifft2(waves).real
        spread = noise.flatten(1).std(1).unsqueeze(1) / eta.flatten(2).std(2).clamp_min(1e-8)
        return eta * spread.view(*eta.shape[:2], 1, 1, 1)
