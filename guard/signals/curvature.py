"""Where is an image memorized? Maps of how much sharper a prompt makes the model's density, pixel by pixel.

With the score s(x, c) = -noise(x, c) / sigma of a noisy latent x late on the trajectory, J its Jacobian in x, and a
baseline that has not memorized the image (the empty prompt, or a less trained model with the same prompt):

- curvature difference dh = relu(-sum_channels diag J(s(x, c) - s(x, base))): where training data were learned by heart,
  the density is a narrow peak, so its log is more curved;
- score difference ds = sum_channels (s(x, c) - s(x, base))^2, which costs one call of the network and says less.

The diagonal is estimated with probes v of random signs, as the mean of v * (J v):

- "forward" (ours): J v = (g(x + step v) - g(x)) / step without gradients, g = noise(x, c) - noise(x, base). All points
  and both branches share a call. The third moments of random signs vanish, so the one-sided difference is not biased by
  the curvature of g, and central differences would buy nothing for their second point.
- "backward" (the authors'): v * (J^T v), one backward pass per probe;
- "exact": every coordinate's own derivative; for tests, C * H * W rows per image.

Reference:
    Kim & Lee, ICML 2026, arXiv 2605.26756. Their estimate leaves 1 / sigma out and is not smoothed.
"""

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor

from ..denoiser import Condition, Denoiser, NoiseLevel
from ..errors import InputError, NonFiniteError
from ..memory import memory_needed
from .batching import in_batches, rows_per_call
from .difference import Baseline, Difference
from .smoothing import smooth

Estimator = Literal["forward", "backward", "exact"]
ESTIMATORS = ("forward", "backward", "exact")
PROBES = {"forward": 4, "backward": 16, "exact": 0}  # by default; sixteen are the authors'
SMOOTHING = 1.0  # latent pixels
STEP, STEP_OF_SIGMA = 0.01, 0.25  # length of a probe in each coordinate: the smaller of both
EPSILONS = 4  # and never less than so many spacings of the network's floating point numbers at 1
GRAPH_ROWS = 8  # a row with a graph weighs as much as that many without
LIGHT_ROWS = 6  # per image and call: not half of what the authors' graph weighs, and hardly slower than more


@torch.inference_mode(False)  # what is made here must serve gradients
def curvature_map(
    denoiser: Denoiser,
    x: Tensor,
    level: NoiseLevel,
    condition: Condition | Tensor,
    *,
    baseline: Baseline = None,
    estimator: Estimator = "forward",
    probes: int | None = None,
    seed: int = 0,
    smoothing: float | None = None,
    author_compat: bool = False,
    known: Tensor | None = None,
    batch_rows: int | None = None,
) -> Tensor:
    """Maps the curvature difference dh of noisy latents; higher = more likely memorized there.

    Args:
        denoiser: The model.
        x: Noisy latents, (B, C, H, W); the authors take the last of 50 DDIM steps at guidance 7.5.
        level: The latents' noise level, one or one per row.
        condition: The prompts, one row or one per row of x.
        baseline: What has not memorized them: None for the empty prompt, another condition of the same model, or
            (another denoiser, its condition), e.g. an early checkpoint.
        estimator: "forward", "backward" or "exact"; see the module.
        probes: Random probes, by default 4 forward or 16 backward; all rows share them.
        seed: The seed of the private generator that draws the probes.
        smoothing: Standard deviation of the Gaussian over the map before the relu, in latent pixels; by default 1.
        author_compat: The authors' constants: no 1 / sigma, 16 backward probes, no smoothing.
        known: noise(x, c) - noise(x, base), (B, C, H, W), where it is known already, e.g. from the sampler's own call;
            saves "forward" two rows per image.
        batch_rows: Most rows a call has; by default six per image, and never more than `batching.rows_per_call` says.

    Returns:
        (B, H, W) float32 on the CPU, >= 0, in units of 1 / variance of the latent.

    Raises:
        InputError: Shapes that do not fit, no probes, an unknown estimator, a level without noise, NaN in x.
        NotApplicable: The baseline is None, and `Denoiser.require_guidance` says why there is none.
        NonFiniteError: The model answered with NaN or infinity.
        OutOfMemory: Not even one row fits.
    """
    if author_compat:
        estimator, smoothing = "backward", smoothing or 0.0
    if estimator not in ESTIMATORS:
        raise InputError(f"unknown estimator {estimator!r}: use one of {', '.join(ESTIMATORS)}")
    probes = PROBES[estimator] if probes is None else probes
    if estimator != "exact" and probes < 1:
        raise InputError(f"probes is {probes}: at least one is needed")
    width = SMOOTHING if smoothing is None else smoothing
    if not 0 <= width < float("inf"):
        raise InputError(f"smoothing is a number of latent pixels, 0 or more, not {smoothing}")
    difference = Difference(denoiser, x, level, condition, baseline)
    signs = _signs(probes, difference.x, seed)
    most = rows_per_call(denoiser, difference.x.shape[1:])
    if estimator == "forward":
        batch_rows = batch_rows or min(most, LIGHT_ROWS * len(difference.x))
        diagonal = _forward(difference, signs, _checked(known, difference.x), batch_rows)
    elif estimator == "backward":
        diagonal = _backward(difference, signs, batch_rows or most)
    else:
        diagonal = _exact(difference, batch_rows or most)
    if not torch.isfinite(diagonal).all():
        raise NonFiniteError(f"the model's derivatives are NaN or infinite in {denoiser.dtype}: load it in float32")
    curvature = diagonal.sum(1) if author_compat else diagonal.sum(1) / difference.sigma.view(-1, 1, 1)
    return smooth(curvature, width).clamp_min(0).cpu()


def score_difference_map(
    denoiser: Denoiser,
    x: Tensor,
    level: NoiseLevel,
    condition: Condition | Tensor,
    *,
    baseline: Baseline = None,
    batch_rows: int | None = None,
) -> Tensor:
    """Maps the score difference ds of noisy latents; higher = more likely memorized there.

    Arguments and errors are those of `curvature_map`. Compare images at one noise level only: ds grows with
    1 / sigma^2.

    Returns:
        (B, H, W) float32 on the CPU, >= 0.
    """
    difference = Difference(denoiser, x, level, condition, baseline)
    batch_rows = rows_per_call(denoiser, difference.x.shape[1:], batch_rows)
    differences = _joined(lambda rows: difference(difference.x[rows], rows), len(difference.x), batch_rows // 2)
    return (differences.square().sum(1) / difference.sigma.view(-1, 1, 1).square()).cpu()


def _signs(probes: int, like: Tensor, seed: int) -> Tensor:
    """(probes, C, H, W) of -1 and 1, equal on every device."""
    generator = torch.Generator().manual_seed(seed)
    signs = torch.randint(0, 2, (probes, *like.shape[1:]), generator=generator)
    return (2.0 * signs - 1).to(like.device)


def _checked(known: Tensor | None, x: Tensor) -> Tensor | None:
    if known is None:
        return None
    if known.shape != x.shape:
        raise InputError(f"known has shape {tuple(known.shape)}: give {tuple(x.shape)}, as x")
    return known.detach().to(x)


def _joined(ask: Callable[[Tensor], Tensor], count: int, size: int) -> Tensor:
    """ask(indices) for all of 0..count - 1, joined; `size` at a time, or as many as there is memory for."""
    answers = in_batches(lambda rows: ask(torch.arange(rows.start, rows.stop)), count, max(1, size))
    return torch.cat([answer for _, answer in answers])


def _recorded(ask: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    """The same with gradients, whether or not they are on."""

    def recorded(rows: Tensor) -> Tensor:
        words = f"no memory to differentiate {2 * len(rows)} rows: use estimator='forward'"
        with memory_needed(words), torch.enable_grad():
            return ask(rows)

    return recorded


def _forward(difference: Difference, signs: Tensor, known: Tensor | None, batch_rows: int) -> Tensor:
    """(B, C, H, W): mean over probes v of v * (g(x + step v) - g(x)) / step."""
    x, images = difference.x, len(difference.x)
    points = signs if known is not None else torch.cat([torch.zeros_like(signs[:1]), signs])
    numbers = max(torch.finfo(t).eps for t in (difference.denoiser.dtype, difference.denoiser.input_dtype))
    step = (STEP_OF_SIGMA * difference.sigma).clamp(max=STEP).clamp(min=EPSILONS * numbers).view(-1, 1, 1, 1)

    def ask(rows: Tensor) -> Tensor:
        image, point = rows // len(points), rows % len(points)
        return difference(x[image] + step[image] * points[point], image)

    values = _joined(ask, images * len(points), batch_rows // 2).view(images, len(points), *x.shape[1:])
    start = values[:, 0] if known is None else known
    moved = values[:, 1:] if known is None else values
    return ((moved - start.unsqueeze(1)) * signs).mean(1) / step


def _backward(difference: Difference, signs: Tensor, batch_rows: int) -> Tensor:
    """(B, C, H, W): mean over probes v of v * (J^T v), from one graph and a backward pass per probe."""

    def ask(rows: Tensor) -> Tensor:
        point, value = difference.differentiable(rows)
        total = torch.zeros_like(point)
        for number, sign in enumerate(signs, 1):
            gradient = torch.autograd.grad((value * sign).sum(), point, retain_graph=number < len(signs))[0]
            total += gradient * sign
        return total.detach() / len(signs)

    return _joined(_recorded(ask), len(difference.x), batch_rows // (2 * GRAPH_ROWS))


def _exact(difference: Difference, batch_rows: int) -> Tensor:
    """(B, C, H, W): d g_i / d x_i, each from a row of its own."""
    images, size = len(difference.x), difference.x[0].numel()

    def ask(rows: Tensor) -> Tensor:
        image, coordinate = rows // size, rows % size
        point, values = difference.differentiable(image)
        own = coordinate.view(-1, 1).to(values.device)
        gradient = torch.autograd.grad(values.flatten(1).gather(1, own).sum(), point)[0]
        return gradient.flatten(1).gather(1, own).squeeze(1)

    values = _joined(_recorded(ask), images * size, batch_rows // (2 * GRAPH_ROWS))
    return values.view(difference.x.shape)
