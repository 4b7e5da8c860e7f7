"""Toy makers of images: exact denoisers of Gaussian data, each with a mean of its own, behind an exact autoencoder."""

from collections.abc import Sequence

import torch
from torch import Tensor

from cryptomnesia.attribution import Candidate
from cryptomnesia.denoiser import CallableDenoiser, Condition

from .gaussian import ABAR, output

SIZE = 32


class Maker(CallableDenoiser):
    """Images of SIZE pixels; its latents are their pixels, `fold` x `fold` of them to a place.

    What it expects to see is a pattern that hangs on its seed and, with a prompt, on the prompt's length. `blur` spoils
    its decoder, `soft` what its denoiser says of high frequencies.
    """

    def __init__(self, seed: int, fold: int = 4, blur: float = 0.0, soft: float = 0.0):
        shape = (3 * fold**2, SIZE // fold, SIZE // fold)
        generator = torch.Generator().manual_seed(seed)
        self.mean = torch.randn(shape, generator=generator) / 6
        self.turn = torch.randn(shape, generator=generator) / 6
        self.fold, self.blur = fold, blur

        def fn(x: Tensor, t: Tensor, condition: Tensor) -> Tensor:
            mean = self.mean + condition[:, 0, 0].view(-1, 1, 1, 1) * self.turn
            noise = output(x, t, "epsilon", mean).to(x.dtype)
            return noise + soft * (torch.nn.functional.avg_pool2d(noise, 3, 1, 1) - noise)

        super().__init__(fn, ABAR, empty=torch.zeros(1, 1, 1), latent_shape=shape, fingerprint=f"{seed}/{fold}")

    def encode(self, prompt: str | Sequence[str]) -> Condition:
        return Condition(text=torch.tensor([len(text) / 10 for text in prompt]).view(-1, 1, 1))

    def encode_image(self, image: Tensor) -> Tensor:
        return torch.nn.functional.pixel_unshuffle(image * 2 - 1, self.fold)

    def decode(self, latent: Tensor) -> Tensor:
        image = (torch.nn.functional.pixel_shuffle(latent, self.fold) / 2 + 0.5).clamp(0, 1)
        smooth = torch.nn.functional.avg_pool2d(image, 3, 1, 1, count_include_pad=False)
        return image + self.blur * (smooth - image)

    def images(self, count: int, seed: int = 0, prompt: str = "") -> list[Tensor]:
        """(3, SIZE, SIZE) each, of its own."""
        generator = torch.Generator().manual_seed(1000 + seed)
        mean = self.mean + len(prompt) / 10 * self.turn
        z = mean + 0.2 * torch.randn(count, *self.mean.shape, generator=generator)
        return list(self.decode(z))


def candidate(name: str, maker: Maker) -> Candidate:
    return Candidate(name, maker, size=(SIZE, SIZE))
