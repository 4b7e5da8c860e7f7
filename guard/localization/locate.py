"""Tells where an image reproduces training data: one that is sampled here, or one that is given as a late latent."""

import torch
from torch import Tensor

from ..denoiser import Denoiser
from ..errors import InputError
from ..progress import Progress
from ..report import MemorizationReport, RegionReport
from ..signals.curvature import PROBES as BY_ESTIMATOR
from ..signals.curvature import SMOOTHING, curvature_map
from ..signals.difference import Baseline
from .agreement import DRAWS, agreement, likelihood
from .location import Location, location_of
from .outline import outline
from .refine import refine
from .trajectory import STEPS, Late, Sampling, late_level

PROBES = BY_ESTIMATOR["forward"]
OUTLINE = DRAWS  # and once per model and size as many for the empty prompt
FAR = 3.0  # times the wanted noise: maps of other levels look different


def locate(
    denoiser: Denoiser,
    prompt: str,
    report: MemorizationReport,
    *,
    seed: int = 0,
    steps: int = STEPS,
    guidance: float | None = None,
    height: int | None = None,
    width: int | None = None,
    baseline: Baseline = None,
    probes: int = PROBES,
    seeds: int = 0,
    progress: Progress | None = None,
) -> Location:
    """Samples one image with the pipeline's own call, and tells where it reproduces training data.

    The image is that of an unguarded call with this seed, bit for bit, whatever the policy of a guard. The map costs
    2 `probes` rows of the network and, where the verdict is "memorized", its outline 8 more, next to 100 of 50 steps.

    Args:
        denoiser: The denoiser of a pipeline.
        prompt: The prompt, as the pipeline takes it.
        report: The report of the prompt's check; its verdict decides whether there is a mask.
        seed: The image's seed.
        steps: Sampling steps.
        guidance: Guidance scale, by default the pipeline's own.
        height, width: The image's size in pixels, by default the model's own.
        baseline: What has not memorized the image, by default the empty prompt; see `curvature_map`.
        probes: Random probes of the map.
        seeds: Images of other seeds that are made, too, where the verdict is "memorized", so that what they share is
            known: a little surer, at the price of as many images.
        progress: progress(done, total), in sampling steps of the image.

    Returns:
        The image with its map, its mask and the report.

    Raises:
        InputError: The denoiser belongs to no pipeline, the pipeline refuses the settings, probes is below 1, or seeds
            is negative.
        NotApplicable: See `Denoiser.require_guidance`; or the pipeline's calls cannot be read.
        NonFiniteError: The model answered with NaN or infinity.
        OutOfMemory: Not even one row fits on the device.
    """
    if steps < 1:
        raise InputError(f"steps are at least 1, not {steps}")
    if seeds < 0:
        raise InputError(f"seeds is a number of further images, 0 or more, not {seeds}")
    if baseline is None:
        denoiser.require_guidance()
    shape = denoiser.latent_shape(height, width)
    sampling = Sampling(denoiser, seed=seed, steps=steps, guidance=guidance, shape=shape)
    image, late = sampling.run(prompt, progress)
    others = None
    if seeds and report.memorized:
        again = [sampling.run(prompt, seed=(seed + 1 + i) % 2**64)[1].clean for i in range(seeds)]
        others = torch.cat([one for one in again if one is not None])
    return locate_late(
        denoiser,
        late,
        image,
        report,
        baseline=baseline,
        probes=probes,
        others=others,
        seed=seed,
        steps=steps,
        guidance=sampling.guidance,
    )


def locate_late(
    denoiser: Denoiser,
    late: Late,
    image: Tensor,
    report: MemorizationReport,
    *,
    baseline: Baseline = None,
    probes: int = PROBES,
    others: Tensor | None = None,
    seed: int | None = None,
    steps: int | None = None,
    guidance: float | None = None,
) -> Location:
    """Tells from a late latent where its image reproduces training data, whoever sampled it.

    Args:
        denoiser: The model.
        late: The latent, its level and its condition; `late_level(denoiser)` is where maps are taken.
        image: The image that it became, (3, H, W) float32 in [0, 1].
        report: The report of the prompt's check.
        baseline, probes: As in `locate`.
        others: Finished latents of other seeds, (N, C, h, w), where there are any.
        seed, steps, guidance: The image's seed, sampling steps and guidance scale, where known.

    Returns:
        The image with its map, its mask and the report.

    Raises:
        InputError: Shapes do not fit.
        NotApplicable, NonFiniteError, OutOfMemory: As in `curvature_map`.
    """
    known = late.difference if baseline is None else None
    maps = curvature_map(denoiser, late.x, late.level, late.condition, baseline=baseline, probes=probes, known=known)
    if image.ndim != 3 or len(maps) != 1:
        raise InputError(
            f"one image (3, H, W) has one latent (1, C, h, w), not {tuple(image.shape)} and {tuple(late.x.shape)}"
        )
    picture = image.detach().cpu().float().unsqueeze(0)
    fine, outlined, rows = refine(maps, picture), None, rows_of_map(probes, known is not None)
    if report.memorized and late.clean is not None:
        found = agreement(denoiser, late.clean, late.condition)
        odds = likelihood(maps[0], found, late.clean, others)
        area, rows = outline(odds.unsqueeze(0), picture)[0], rows + found.forward_rows
        outlined = area if area.any() else None  # nothing is found again: the map alone says where
    region = RegionReport(
        share=None,
        peak=None,
        sigma=late.level.sigma[0].item(),
        probes=probes,
        smoothing=SMOOTHING,
        forward_rows=rows,
    )
    return location_of(
        maps[0],
        fine[0],
        image,
        report,
        region,
        outlined=outlined,
        seed=seed,
        steps=steps,
        guidance=guidance,
        note=_note(denoiser, late),
    )


def rows_of_map(probes: int = PROBES, known: bool = True) -> int:
    """Returns the rows of the network that a map costs beside its image; the outline of a mask takes OUTLINE more.

    Args:
        probes: Random probes of the map.
        known: Whether the sampler itself asked about prompt and empty prompt at the map's level.
    """
    return 2 * (probes if known else probes + 1)


def _note(denoiser: Denoiser, late: Late) -> str | None:
    wanted, taken = late_level(denoiser).sigma[0].item(), late.level.sigma[0].item()
    if 1 / FAR <= taken / wanted <= FAR:
        return None
    return f"the map was taken at a noise of {taken:.3g}, not {wanted:.3g}: take more steps for a sharper one"
