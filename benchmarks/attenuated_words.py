"""Do words keep their effect where the tokens behind them are attenuated? `python -m benchmarks.attenuated_words`.

Everyday captions of the built-in model, each with an emoji of its own, sampled from the same seeds with all tokens and
with those of the words alone. Is the figure still the caption's: does an image without the tokens lie closest, of all
captions' images with them, to that of its own caption, whatever the colour of the ground?
"""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from cryptomnesia.demo.captions import Caption, select
from cryptomnesia.denoiser import Condition
from cryptomnesia.mitigation.attenuation import attended
from cryptomnesia.mitigation.words import Words

from .common import arguments, store
from .mitigation import Bench
from .mitigation_afresh import interval


def words_alone(bench: Bench, text: str) -> Condition:
    """Returns the condition of a prompt's words without what stands for none of them."""
    rows = bench.denoiser.token_rows(text, Words.of(text).spans)
    whole, empty = bench.denoiser.encode(text).tensors["text"][0], bench.denoiser.empty.tensors["text"][0]
    return Condition(text=attended(whole, empty, {row for word in rows for row in word})[None])


def figures(images: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Returns images (S, H, W, 3) less the middle colour of their edges, flat."""
    pixels = images.astype(np.float32)
    edges = np.concatenate([pixels[:, 0], pixels[:, -1], pixels[:, :, 0], pixels[:, :, -1]], 1)
    return (pixels - np.median(edges, 1)[:, None, None]).reshape(len(pixels), -1)


def unlike(captions: list[Caption], count: int) -> list[Caption]:
    """Returns the first captions, one of each emoji."""
    first: dict[str, Caption] = {}
    for caption in captions:
        first.setdefault(caption.emoji, caption)
    return list(first.values())[:count]


def main() -> None:
    options = arguments(__doc__, captions={"type": int, "default": 24}, seeds={"type": int, "default": 2})
    torch.set_grad_enabled(False)
    bench, chosen = Bench(options.seeds, 3000), unlike(select("general", "eval"), options.captions)
    whole = [figures(bench.embedded(bench.denoiser.encode(c.text))) for c in chosen]
    alone = [figures(bench.embedded(words_alone(bench, c.text))) for c in chosen]
    found: list[float] = []
    for number, images in enumerate(alone):
        distances = np.stack([np.square(other - images).mean(1) for other in whole])
        found.append(float((distances.argmin(0) == number).mean()))
    document: dict[str, Any] = {"captions": len(chosen), "seeds": options.seeds, "figure_kept": interval(found)}
    print(document)
    store("attenuated_words", document | {"by_caption": dict(zip([c.text for c in chosen], found, strict=True))})


if __name__ == "__main__":
    main()
