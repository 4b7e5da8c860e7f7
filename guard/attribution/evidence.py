"""What speaks for each candidate: measurements of an image under its autoencoder and its denoiser.

Groups of evidence, each a few numbers per image and candidate, most of them logarithms of mean squares:

- empty: error of the denoiser with the empty prompt at nine noise levels, on noise that all candidates share;
- clean: what the denoiser still takes for noise in the latent itself, at five low levels;
- prompt: both again with the image's prompt, and guided by it; only where the prompt is known;
- pull: how far the prompt's pull explains the error without it; only where the prompt is known;
- bands, coherence: the error without the prompt by frequency, and how alike errors are at neighbouring levels; they
  only tell whether it was a candidate at all, by its own images;
- inversion: how far a few DDIM steps up and down again lead away from the latent;
- autoencoder: how well its autoencoder reproduces the image, at once and after refining the latent, and how hard the
  image is for it; equal for candidates that share one;
- signature: cosine distance between the image's spectral signature and the mean of the candidate's own.

A model's own images are where its denoiser has least left to say: sampling ends where its guided error is small. So
smaller speaks for the candidate in most groups; `combination` learns how much.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from ..denoiser import Condition, Denoiser, NoiseLevel
from ..errors import InputError
from ..finite import require_finite
from ..progress import Progress
from ..signals.batching import in_batches, rows_per_call
from ..signals.spectral import cosine_distance, signature
from ..signals.spectral import rows_per_image as signature_rows
from .candidates import Candidate
from .inversion import PASSES, TINY, Inversion, invert, mean_square
from .library import check_settings
from .noise_errors import MEASURED, PROMPTED, error_levels, rows_each

GROUPS = ("empty", "prompt", "pull", "clean", "bands", "coherence", "inversion", "autoencoder", "signature")
DEFAULT = ("empty", "clean", "autoencoder")
WITH_PROMPT = ("prompt", "pull", "bands", "coherence")
UP = (49, 47, 44, 42, 39, 37)  # the way up and down


@dataclass(frozen=True)
class Evidence:
    """Measurements of B images under C candidates.

    Attributes:
        names: The candidates' names.
        groups: (B, C, F) float64 per group of evidence, in the order of GROUPS.
    """

    names: tuple[str, ...]
    groups: dict[str, Tensor]

    def __len__(self) -> int:
        return len(next(iter(self.groups.values())))

    def __getitem__(self, rows: Any) -> "Evidence":
        return Evidence(self.names, {name: values[rows] for name, values in self.groups.items()})

    def require_finite(self) -> None:
        """Raises InputError, naming the group, if it holds NaN or infinity."""
        for name, values in self.groups.items():
            require_finite(values, f"the numbers of the evidence {name!r}")

    def without(self, candidate: int) -> "Evidence":
        """Returns the evidence of the same images without the candidate of that number."""
        kept = [i for i in range(len(self.names)) if i != candidate]
        names = tuple(self.names[i] for i in kept)
        return Evidence(names, {name: values[:, kept] for name, values in self.groups.items()})

    def only(self, groups: Sequence[str]) -> "Evidence":
        """Returns the evidence of these groups alone."""
        return Evidence(self.names, {name: values for name, values in self.groups.items() if name in groups})

    @staticmethod
    def cat(parts: "Sequence[Evidence]") -> "Evidence":
        """Returns the images of all parts one after the other; all must share candidates and groups."""
        names = parts[0].groups
        return Evidence(parts[0].names, {name: torch.cat([part.groups[name] for part in parts]) for name in names})


def gather(
    images: Sequence[Tensor],
    candidates: Sequence[Candidate],
    prompts: Sequence[str] | None = None,
    *,
    groups: Sequence[str] | None = None,
    progress: Progress | None = None,
) -> Evidence:
    """Measures images under every candidate.

    Args:
        images: B images (1, 3, H, W) in [0, 1], brought to each candidate's own size.
        candidates: C models; they may have different autoencoders, latent spaces and sizes.
        prompts: One per image, if known.
        groups: Groups of evidence to measure; by default DEFAULT, and WITH_PROMPT where prompts are given.
        progress: Called with the numbers of candidates done and of all.

    Returns:
        The evidence, B images under C candidates.

    Raises:
        InputError: Unknown groups, "prompt" without prompts, "signature" without the candidates' libraries, or with
            libraries that were not measured alike.
        NotApplicable: A candidate cannot read images or prompts.
        NonFiniteError: A model answered with NaN or infinity.
        OutOfMemory: The device has no memory for a single image.
    """
    groups = _checked(groups, candidates, prompts, len(images))
    inversions: dict[str, Inversion] = {}
    parts: list[dict[str, Tensor]] = []
    for number, candidate in enumerate(candidates):
        key = candidate.autoencoder_key
        if key not in inversions:
            inversions[key] = _inverted(images, candidate)
        inversion = inversions[key]
        condition = candidate.encode(prompts or ()) if needs_prompts(groups) else None
        parts.append(_measure(candidate, inversion, condition, groups))
        if progress:
            progress(number + 1, len(candidates))
    names = tuple(candidate.name for candidate in candidates)
    evidence = Evidence(names, {name: torch.stack([part[name] for part in parts], 1) for name in groups})
    evidence.require_finite()
    return evidence


def inversion_gap(denoiser: Denoiser, latents: Tensor) -> Tensor:
    """Returns (B, 2) float64: how far five DDIM steps up and down again lead away, and how much noise they add.

    The empty prompt is used, and the steps lead from the last sampling step to about a quarter of the schedule. Both
    numbers are log mean squares; smaller = more like the denoiser's own images. DDIM: Song et al. 2021, arXiv
    2010.02502.
    """
    steps = denoiser.levels.sampling(50)
    way = [steps[i].to(denoiser.device) for i in UP]

    def ask(rows: slice) -> Tensor:
        z = x = latents[rows].to(denoiser.device)
        for here, there in pairwise(way):
            x = _ddim(denoiser, x, here, there)
        top = mean_square(x - way[-1].alpha * z)
        for here, there in pairwise(way[::-1]):
            x = _ddim(denoiser, x, here, there)
        return torch.stack([mean_square(x - z), top], 1)

    gaps = torch.zeros(len(latents), 2, dtype=torch.float64)
    for rows, answer in in_batches(ask, len(latents), rows_per_call(denoiser, latents.shape[1:])):
        gaps[rows] = answer
    return _log(gaps)


def default_groups(prompted: bool) -> tuple[str, ...]:
    """Returns the groups of evidence that are measured by default, with prompts or without."""
    return (*WITH_PROMPT, *DEFAULT) if prompted else DEFAULT


def needs_prompts(groups: Sequence[str]) -> bool:
    """Returns whether images' prompts must be known for these groups."""
    return bool(set(PROMPTED) & set(groups))


def costs(groups: Sequence[str], plan: str = "5step") -> tuple[int, int]:
    """Returns what one image costs under one candidate: rows of its network, and passes through its autoencoder.

    Args:
        groups: The groups of evidence that are measured.
        plan: The plan of the signatures, where these are among them.
    """
    rows = 0
    if set(MEASURED) & set(groups):
        rows += rows_each(needs_prompts(groups))
    if "inversion" in groups:
        rows += 2 * (len(UP) - 1)
    if "signature" in groups:
        rows += signature_rows(plan)  # type: ignore[arg-type]
    return rows, PASSES


def autoencoder_gaps(inversion: Inversion) -> Tensor:
    """Returns (B, 3) float64: log gaps at once and after refining the latent, and the first relative to a second round.

    Images that an autoencoder made lose nothing more in a second round (AEDR: Wang et al. 2025, double reconstruction).
    """
    first, last, second = (_log(gap) for gap in (inversion.first_gap, inversion.last_gap, inversion.second_gap))
    return torch.stack([first, last, first - second], 1)


def _checked(
    groups: Sequence[str] | None, candidates: Sequence[Candidate], prompts: Sequence[str] | None, count: int
) -> tuple[str, ...]:
    if groups is None:
        groups = default_groups(prompts is not None)
    odd = sorted(set(groups) - set(GROUPS))
    if odd or not groups:
        raise InputError(f"unknown evidence {', '.join(odd) or '(none)'}: use some of {', '.join(GROUPS)}")
    if prompts is not None and len(prompts) != count:
        raise InputError(f"{len(prompts)} prompts do not fit {count} images: give one per image, or none")
    if needs_prompts(groups) and prompts is None:
        raise InputError("the evidence 'prompt' needs each image's prompt: give prompts, or leave it out")
    if "signature" in groups:
        lacking = [c.name for c in candidates if c.library is None]
        if lacking:
            raise InputError(
                f"the evidence 'signature' needs the signatures of {', '.join(lacking)}: give their libraries"
            )
        check_settings([c.library for c in candidates if c.library is not None])
    return tuple(name for name in GROUPS if name in groups)


def _inverted(images: Sequence[Tensor], candidate: Candidate) -> Inversion:
    """Inverts all images under one autoencoder, a few at a time."""
    parts = candidate.in_batches(images, lambda batch: invert(candidate.coder, batch))
    fields = ("encoded", "latents", "first_gap", "last_gap", "second_gap")
    return Inversion(*(torch.cat([getattr(part, name) for part in parts]) for name in fields))


def _measure(
    candidate: Candidate, inversion: Inversion, condition: Condition | None, groups: Sequence[str]
) -> dict[str, Tensor]:
    denoiser, result = candidate.denoiser, {}
    if set(MEASURED) & set(groups):
        result |= error_levels(denoiser, inversion.latents, condition)
    if "inversion" in groups:
        result["inversion"] = inversion_gap(denoiser, inversion.latents)
    if "autoencoder" in groups:
        result["autoencoder"] = autoencoder_gaps(inversion)
    if "signature" in groups and candidate.library is not None:
        library, latents = candidate.library, inversion.encoded
        plan, seed, compat = library.settings
        values = signature(denoiser, latents, plan=plan, seed=seed, author_compat=compat)  # type: ignore[arg-type]
        result["signature"] = _log(cosine_distance(values, library.prototype[None]))
    return {name: result[name] for name in groups}


def _ddim(denoiser: Denoiser, x: Tensor, here: NoiseLevel, there: NoiseLevel) -> Tensor:
    prediction = denoiser.predict(x, here, denoiser.empty)
    alpha, sigma = (v.view(-1, 1, 1, 1) for v in (there.alpha, there.sigma))
    return alpha * prediction.x0 + sigma * prediction.noise


def _log(values: Tensor) -> Tensor:
    return values.double().clamp_min(TINY).log()
