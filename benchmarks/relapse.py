"""Does the memory come back after mitigation? `python -m benchmarks.relapse`, after DoRI (ICML 2026).

Nudge: the moved embedding is optimised a little towards the old training image (denoising loss), and sampled. The same
nudge from an unrelated everyday caption shows what any prompt would do. Paraphrase: one more random word is dropped,
swapped in or inserted in the rewritten prompt.
"""

import random
import warnings
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from cryptomnesia import Guard
from cryptomnesia.demo.captions import Caption, select
from cryptomnesia.denoiser import Condition
from cryptomnesia.mitigation.mitigate import mitigate
from cryptomnesia.mitigation.result import Mended
from cryptomnesia.mitigation.words import Words, word_list

from .common import arguments, store, table
from .mitigation import FED, Bench

LEARNING_RATE = 0.01
NUDGES = (0, 5, 10, 20)  # steps
PARAPHRASES = 4
BATCH = 16


def training_latent(bench: Bench, caption: Caption) -> tuple[Tensor, Tensor]:
    """Returns the latent (1, C, h, w) of the caption's fixed image, and the mask (1, 1, h, w) of where it is fixed."""
    gallery = bench.judge.gallery
    number = gallery.captions.index(caption)
    image = torch.from_numpy(gallery.images[number]).permute(2, 0, 1)[None].float() / 255
    mask = torch.from_numpy(gallery.masks[number])[None, None].float()
    latent = bench.denoiser.encode_image(image)
    return latent, torch.nn.functional.adaptive_avg_pool2d(mask, latent.shape[-2:])


def nudged(bench: Bench, caption: Caption, start: Condition, after: Sequence[int] = NUDGES) -> Iterator[Condition]:
    """Yields an embedding on its way to what makes the network denoise to the old image, after so many steps each."""
    denoiser = bench.denoiser
    latent, mask = training_latent(bench, caption)
    generator = torch.Generator().manual_seed(7)
    flows = denoiser.prediction_type == "flow"
    fixed = {name: tensor for name, tensor in start.tensors.items() if name != "text"}
    with torch.enable_grad():
        text = start.tensors["text"].clone().requires_grad_()
        optimiser = torch.optim.AdamW([text], lr=LEARNING_RATE)
        for step in range(max(after) + 1):
            if step in after:
                yield Condition(text=text.detach().clone(), **fixed)
            if step == max(after):
                return
            time = torch.randint(1, 1000, (BATCH,), generator=generator)
            level = denoiser.level(time / 1000 if flows else time)
            noise = torch.randn(BATCH, *latent.shape[1:], generator=generator)
            alpha, sigma = (v.view(-1, 1, 1, 1) for v in (level.alpha, level.sigma))
            condition = Condition(text=text, **fixed)
            found = denoiser.predict(alpha * latent + sigma * noise, level, condition, grad=True)
            error = found.raw - (noise - latent) if flows else found.noise - noise
            optimiser.zero_grad()
            (error.square() * mask).mean().backward()
            optimiser.step()


def paraphrases(prompt: str, original: str) -> list[str]:
    """Returns random edits of one word each, none of which is the original again."""
    chance, found = random.Random(prompt), []
    while len(found) < PARAPHRASES:
        words, word = Words.of(prompt), chance.choice(word_list())
        i = chance.randrange(len(words))
        edits = [words.swap(i, word), words.insert(i, word)] + ([words.drop(i)] if len(words) > 1 else [])
        text = str(chance.choice(edits))
        if text not in (original, prompt, *found):
            found.append(text)
    return found


def mitigated_captions(bench: Bench, captions: list[Caption], policy: Any) -> list[tuple[Caption, Mended]]:
    """Returns the captions that are flagged, and whose mitigation held."""
    reports = Guard(bench.denoiser, bench.calibration).check_many([c.text for c in captions])
    flagged = [c for c, report in zip(captions, reports, strict=True) if report.memorized]
    guard = Guard(bench.denoiser, bench.calibration)
    found = [
        (c, mitigate(policy, bench.denoiser, guard.calibration, c.text, bench.denoiser.encode(c.text)))  # type: ignore[arg-type]
        for c in flagged
    ]
    return [(c, m) for c, m in found if m.mitigation.held]


def nudge_rates(bench: Bench, starts: list[tuple[Caption, Condition]]) -> dict[str, float]:
    """Returns the share of generations that reproduce after so many steps."""
    found = [[bench.judge.own(c, bench.embedded(moved)) for moved in nudged(bench, c, start)] for c, start in starts]
    return {str(steps): float(rate) for steps, rate in zip(NUDGES, np.mean(found, axis=0), strict=True)}


def paraphrase_rates(bench: Bench, mitigated: list[tuple[Caption, Mended]]) -> dict[str, float]:
    """Returns the share of generations of paraphrases that reproduce, and that do so without being flagged."""
    guard, reproduced, unflagged = Guard(bench.denoiser, bench.calibration), [], []
    for caption, result in mitigated:
        texts = paraphrases(result.mitigation.rewritten or "", caption.text)
        flags = [report.memorized for report in guard.check_many(texts)]
        for text, flag in zip(texts, flags, strict=True):
            images, _ = bench.sample(prompt=text, num_images_per_prompt=bench.seeds)
            reproduced.append(bench.judge.own(caption, images))
            unflagged.append(0.0 if flag else reproduced[-1])
    return {
        "recites": float(np.mean(reproduced)),
        "recites_unflagged": float(np.mean(unflagged)),
        "prompts": len(reproduced),
    }


def main() -> None:
    options = arguments(
        __doc__,
        seeds={"type": int, "default": 4},
        split={"default": "eval", "help": "eval, or dev to try things"},
        captions={"type": int, "default": 10, "help": "so many of each kind at most"},
    )
    warnings.simplefilter("ignore")
    torch.set_grad_enabled(False)
    bench = Bench(options.seeds)
    captions = [c for kind in FED for c in select(kind, options.split)[: options.captions]]
    document: dict[str, Any] = {"seeds": options.seeds, "split": options.split, "learning_rate": LEARNING_RATE}
    rewritten = mitigated_captions(bench, captions, "rewrite")
    embedded = mitigated_captions(bench, captions, "embed")
    unrelated = [c.text for c in select("general", options.split)[: len(captions)]]
    starts = {
        "rewrite": [(c, m.condition) for c, m in rewritten if m.condition],
        "embed": [(c, m.condition) for c, m in embedded if m.condition],
        "unrelated caption": [
            (c, bench.denoiser.encode(text)) for (c, _), text in zip(rewritten, unrelated, strict=False)
        ],
    }
    document["captions"] = {name: len(pairs) for name, pairs in starts.items()}
    document["recites_after_nudge_steps"] = {name: nudge_rates(bench, pairs) for name, pairs in starts.items()}
    table(
        ["start", *(f"{s} steps" for s in NUDGES)],
        [[name, *rates.values()] for name, rates in document["recites_after_nudge_steps"].items()],
    )
    document["paraphrases_of_rewritten"] = paraphrase_rates(bench, rewritten)
    print("paraphrases:", document["paraphrases_of_rewritten"])
    store("relapse", document)


if __name__ == "__main__":
    main()
