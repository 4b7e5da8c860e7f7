"""Which prompt may an image have had? One from a list of captions, by what a model makes of each.

Where the prompt is not known, the next best is a caption of the same subject. It is found in two steps. What the
candidates see in pure noise, told a caption, is the mean of what they draw of it; the nearest of these drawings, each
frequency weighed by how much images stray there from their nearest one, leave a few captions. Of these the one counts
with which the first candidate is least wrong about noise that was added to the image.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..condition import Condition
from ..denoiser import NoiseLevel
from ..errors import InputError
from ..finite import require_finite
from ..signals.batching import in_batches, rows_per_call
from .candidates import Candidate
from .inversion import mean_square

DRAWS = 4  # of pure noise per caption
NEAREST = 16  # captions that are tried on the image
STEP = 39  # of 50 sampling steps, where they are tried
SIDE = 16  # most positions per side of a drawing that is kept
SEED = 321


@dataclass(frozen=True)
class Captions:
    """Captions that an image's prompt may be like, and what is made of them.

    Attributes:
        texts: The n captions.
        drawings: (n, C, h, w) float32, the mean drawing of each, at most 16 positions a side.
        weights: (C, h, w) float32, what a difference counts at each frequency; see `torch.fft.fft2`.
    """

    texts: tuple[str, ...]
    drawings: Tensor
    weights: Tensor

    @staticmethod
    def learn(texts: Sequence[str], candidates: Sequence[Candidate], images: Sequence[Tensor]) -> "Captions":
        """Draws captions, and learns from images (1, 3, H, W) in [0, 1] what tells drawings apart.

        Candidates whose autoencoder is another than the first's take no part in drawing. Raises InputError for fewer
        than two captions, NotApplicable if a candidate cannot read images or prompts.
        """
        texts, latents = tuple(dict.fromkeys(texts)), _encoded(candidates[0], images)
        if len(texts) < 2:
            raise InputError(f"{len(texts)} captions are no choice: give at least two, better a hundred or more")
        alike = [one for one in candidates if one.autoencoder_key == candidates[0].autoencoder_key]
        drawings = torch.stack([_drawn(one, texts, latents.shape[1:]) for one in alike]).mean(0)
        spectra = _spectra(latents)
        plain = Captions(texts, drawings, 1 / _power(spectra - spectra.mean(0)))
        nearest = _spectra(drawings)[plain._distances(spectra).argmin(1)]
        return Captions(texts, drawings, 1 / _power(spectra - nearest))

    def guess(self, candidate: Candidate, images: Sequence[Tensor]) -> list[str]:
        """Returns the likeliest caption of each image (1, 3, H, W) in [0, 1], by a candidate's denoiser."""
        count, latents = min(NEAREST, len(self.texts)), _encoded(candidate, images)
        nearest = self._distances(_spectra(latents)).topk(count, largest=False).indices.flatten()
        used = nearest.unique()
        condition = candidate.encode([self.texts[i] for i in used.tolist()])
        place = torch.searchsorted(used, nearest)
        denoiser = candidate.denoiser
        latents = latents.to(denoiser.device)
        level = denoiser.levels.sampling(50)[STEP].to(denoiser.device)
        noise = torch.randn(latents.shape[1:], generator=torch.Generator().manual_seed(SEED)).to(latents)
        noisy = level.alpha.view(-1, 1, 1, 1) * latents + level.sigma.view(-1, 1, 1, 1) * noise

        def ask(rows: slice) -> Tensor:
            number = torch.arange(rows.start, rows.stop)
            x = noisy[(number // count).to(noisy.device)]
            levels = NoiseLevel.cat([level] * len(number))
            return mean_square(denoiser.predict(x, levels, condition[place[number]]).noise - noise)

        errors = torch.zeros(len(nearest), dtype=torch.float64)
        for rows, answer in in_batches(ask, len(errors), rows_per_call(denoiser, latents.shape[1:])):
            errors[rows] = answer
        best = errors.view(-1, count).argmin(1, keepdim=True)
        return [self.texts[i] for i in nearest.view(-1, count).gather(1, best).flatten().tolist()]

    def _distances(self, spectra: Tensor) -> Tensor:
        """(B, n) weighed squared distances of spectra (B, C, h, w) to each drawing; smaller = more alike."""
        drawn = _spectra(self.drawings)
        require_finite(spectra.abs(), "the images' latents")
        return torch.stack([((one - drawn).abs().square() * self.weights).sum((1, 2, 3)) for one in spectra])


def _drawn(candidate: Candidate, texts: Sequence[str], shape: Sequence[int]) -> Tensor:
    """(n, C, h, w): the mean of what a candidate sees in a few draws of pure noise of that shape, told each caption."""
    denoiser, condition = candidate.denoiser, candidate.encode(texts)
    level = denoiser.levels.sampling(50)[0].to(denoiser.device)
    noise = torch.randn(DRAWS, *shape, generator=torch.Generator().manual_seed(SEED)).to(denoiser.device)

    def ask(rows: slice) -> Tensor:
        number = torch.arange(rows.start, rows.stop)
        x = level.sigma.view(-1, 1, 1, 1) * noise[(number % DRAWS).to(noise.device)]
        told: Condition = condition[number // DRAWS]
        return _small(denoiser.predict(x, NoiseLevel.cat([level] * len(number)), told).x0)

    answers = in_batches(ask, len(texts) * DRAWS, rows_per_call(denoiser, shape))
    return torch.cat([answer for _, answer in answers]).unflatten(0, (-1, DRAWS)).mean(1)


def _encoded(candidate: Candidate, images: Sequence[Tensor]) -> Tensor:
    return torch.cat(candidate.in_batches(images, lambda batch: candidate.coder.encode_image(batch).float()))


def _small(latents: Tensor) -> Tensor:
    height, width = (min(SIDE, size) for size in latents.shape[-2:])
    return torch.nn.functional.adaptive_avg_pool2d(latents.float(), (height, width)).cpu()


def _spectra(latents: Tensor) -> Tensor:
    return torch.fft.fft2(_small(latents), norm="ortho")


def _power(spectra: Tensor) -> Tensor:
    """(C, h, w) mean power of differences, kept above a thousandth of its mean."""
    power = spectra.abs().square().mean(0)
    return power.clamp_min(float(power.mean()) / 1000 + 1e-12)
