"""How well masks overlap with what is really reproduced: `python -m benchmarks.outline`.

The built-in model's captions of the eval split, on seeds that nothing was chosen on: weights and the outline's
constants were chosen on the dev split. Masks of the figures that return on changing backgrounds are known; of what is
reproduced whole the mask is the image. Beside it, on the same images, the mask by the map alone; with images of other
seeds; and with other draws. The rectified-flow model's sealed captions are measured by `benchmarks.flow_sealed`.
"""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from cryptomnesia import Guard
from cryptomnesia.demo import demo_calibration, load_demo
from cryptomnesia.demo.captions import Caption, select
from cryptomnesia.demo.gallery import Gallery, rms
from cryptomnesia.localization import Location, locate_late
from cryptomnesia.localization.agreement import agreement, likelihood
from cryptomnesia.localization.location import peak_mask
from cryptomnesia.localization.outline import outline
from cryptomnesia.localization.trajectory import STEPS, Late, Sampling

from .common import arguments, store, stored, table
from .detection import true_kinds
from .masks import interval, iou

GUIDANCE, FIRST_SEED = 7.5, 21000
SMALL = 0.12  # share of the image: such figures are some five latent pixels wide
DARK = ("general", "control", "unseen")
DRAWS = 4  # sets of draws
Mask = NDArray[np.bool_]


class Sampled:
    """Images of one caption, with their late latents; those that reproduce it are told by pixels."""

    def __init__(self, guard: Guard, caption: Caption, seeds: int):
        shape, self.guard, self.caption = guard.denoiser.latent_shape(), guard, caption
        made = [
            Sampling(guard.denoiser, seed=FIRST_SEED + seed, steps=STEPS, guidance=GUIDANCE, shape=shape).run(
                caption.text
            )
            for seed in range(seeds)
        ]
        self.images, self.late = [image for image, _ in made], [late for _, late in made]
        self.report = guard.check(caption.text)

    def reproducing(self, limit: float) -> list[int]:
        """The numbers of the images that reproduce the caption's own."""
        gallery = Gallery.load()
        number = gallery.captions.index(self.caption)
        pixels = [(image.permute(1, 2, 0).numpy() * 255).round().astype(np.uint8) for image in self.images]
        near = [rms(one[None], gallery.images[[number]], gallery.masks[[number]])[0, 0] < limit for one in pixels]
        return [i for i, close in enumerate(near) if close]

    def located(self, number: int, others: int = 0) -> Location:
        """Where one image reproduces, with some of the others' latents."""
        ones = [late.clean for i, late in enumerate(self.late) if i != number and late.clean is not None][:others]
        latents = torch.cat(ones) if ones else None
        return locate_late(self.guard.denoiser, self.late[number], self.images[number], self.report, others=latents)


def masks(sampled: Sampled, number: int) -> dict[str, Mask]:
    """The masks of one image by every way; the verdict is taken to be "memorized", as it is for these captions."""
    alone = sampled.located(number)
    found = {"map's half peak": peak_mask(alone.map.unsqueeze(0))[0].numpy(), "outline": alone.region.numpy()}
    for others in (1, 3):
        found[f"outline, {others} other seeds"] = sampled.located(number, others).region.numpy()
    for draws in range(1, DRAWS):
        found[f"outline, draws {draws}"] = redrawn(sampled, number, alone, draws)
    return found


def redrawn(sampled: Sampled, number: int, alone: Location, seed: int) -> Mask:
    """The outline from other draws."""
    late: Late = sampled.late[number]
    if late.clean is None:
        raise ValueError("the sampler's last latents were not seen")
    found = agreement(sampled.guard.denoiser, late.clean, late.condition, seed=seed)
    odds = likelihood(alone.latent_map, found)
    return outline(odds.unsqueeze(0), sampled.images[number].unsqueeze(0))[0].numpy()


def reproduced(guard: Guard, kind: str, seeds: int, limit: float) -> dict[str, Any]:
    """IoU of every way on the images of a kind that reproduce."""
    gallery, found, truth, texts = Gallery.load(), {}, [], []
    flagged = 0
    for caption in select(kind, "eval"):
        sampled = Sampled(guard, caption, seeds)
        if not sampled.report.memorized:
            continue
        flagged += 1
        for number in sampled.reproducing(limit):
            truth.append(gallery.masks[gallery.captions.index(caption)])
            texts.append(caption.text)
            for name, mask in masks(sampled, number).items():
                found.setdefault(name, []).append(mask)
        print(kind, len(truth), flush=True)
    wanted = np.stack(truth)
    small = wanted.mean((1, 2)) < SMALL
    rows = {}
    for name, made in found.items():
        values = iou(np.stack(made), wanted)
        rows[name] = {"iou": float(values.mean()), "interval": interval(values, texts)}
        if small.any():
            rows[name] |= {"small": float(values[small].mean()), "other": float(values[~small].mean())}
    return {"captions_flagged": flagged, "images": len(wanted), "small_images": int(small.sum()), "masks": rows}


def dark(guard: Guard, captions: list[Caption]) -> dict[str, float]:
    """The share of pixels in the mask of images that reproduce nothing, with and without the verdict's gate."""
    gated, ungated, flagged = [], [], []
    for caption in captions:
        sampled = Sampled(guard, caption, 1)
        location = sampled.located(0)
        gated.append(0.0 if location.share is None else location.share)
        ungated.append(float(redrawn(sampled, 0, location, 0).mean()))
        flagged.append(sampled.report.memorized)
    names = ("flagged", "mask", "outline_without_the_verdict", "images_it_lights")
    shares = np.mean(flagged), np.mean(gated), np.mean(ungated), np.mean(np.array(ungated) > 0)
    return dict(zip(names, map(float, shares), strict=True))


def main() -> None:
    options = arguments(
        __doc__,
        seeds={"type": int, "default": 4, "help": "images of each caption"},
        dark={"type": int, "default": 40, "help": "captions of each kind that should stay dark"},
    )
    torch.set_grad_enabled(False)
    guard, truth = Guard(load_demo(), demo_calibration()), stored("demo_model")
    document: dict[str, Any] = {"seeds": options.seeds, "first_seed": FIRST_SEED}
    for kind in ("template", "verbatim"):
        document[kind] = reproduced(guard, kind, options.seeds, truth["limits"][kind])
        store("outline", document)
    kinds = true_kinds("eval", truth["by_caption"])[0]
    document["dark"] = {kind: dark(guard, [c for c in kinds if c.kind == kind][: options.dark]) for kind in DARK}
    store("outline", document)
    rows = [
        [kind, name, *(row.get(key, "-") for key in ("iou", "small", "other"))]
        for kind in ("template", "verbatim")
        for name, row in document[kind]["masks"].items()
    ]
    table(["kind", "mask", "IoU", "small figures", "others"], rows)
    print(document["dark"])


if __name__ == "__main__":
    main()
