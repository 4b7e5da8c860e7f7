"""Does mitigation help? `python -m benchmarks.mitigation`: reproduction before and after, per policy, on the built-in
model.

Ours run as users run them, through an attached guard, on the images of a prompt at once; prompts that the guard does
not flag stay as they are, and count. Wen et al. and SAIL change the same flagged prompts. A generation reproduces if it
lies closer to its caption's training image than `benchmarks.demo_model` allows.
"""

import time
import warnings
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from cryptomnesia import Guard, load_demo
from cryptomnesia.adapters import to_denoiser
from cryptomnesia.calibration import Calibration
from cryptomnesia.demo import demo_calibration
from cryptomnesia.demo.captions import Caption, select
from cryptomnesia.demo.gallery import Gallery, rms
from cryptomnesia.mitigation.embedding import optimise_embedding
from cryptomnesia.mitigation.initial_noise import STEPS, optimise_noise
from cryptomnesia.mitigation.result import similarity
from cryptomnesia.signals.draws import draw_noise

from .common import arguments, store, stored, table
from .demo_model import own_distances

SEEDS = 8
POLICIES = ("rewrite", "embed", "attenuate", "reseed")
FED = ("verbatim", "template")


@dataclass
class Outcome:
    """What one method did to one caption."""

    recites: float
    recites_another: float
    flagged: bool = False
    held: bool = False
    rewritten: str | None = None
    words: int = 0
    similarity: float = 1.0
    rows: int = 0
    seconds: float = 0.0
    conditions: Any = field(default=None, repr=False)

    def stored(self) -> dict[str, Any]:
        """Returns the outcome without the embeddings, as it is stored."""
        return {name: value for name, value in vars(self).items() if name != "conditions"}


class Judge:
    """Says how many of a caption's images reproduce its training image, or another verbatim one."""

    def __init__(self, gallery: Gallery | None = None) -> None:
        self.limits: dict[str, float] = stored("demo_model")["limits"]
        self.gallery = gallery = gallery or Gallery.load()
        numbers = [i for i, c in enumerate(gallery.captions) if c.kind == "verbatim"]
        self.captions = [gallery.captions[i] for i in numbers]
        self.images, self.masks = gallery.images[numbers], gallery.masks[numbers]

    def own(self, caption: Caption, images: NDArray[np.uint8]) -> float:
        """Returns the share of images (S, 64, 64, 3) that reproduce the caption's own."""
        return float((own_distances([caption], images[None], self.gallery)[0] < self.limits[caption.kind]).mean())

    def another(self, caption: Caption, images: NDArray[np.uint8]) -> float:
        """Returns the share that reproduces the verbatim image of another caption."""
        distances = rms(images, self.images, self.masks)
        others = [i for i, c in enumerate(self.captions) if c != caption]
        return float((distances[:, others].min(1) < self.limits["verbatim"]).mean())


class Bench:
    """The built-in model with everything that a method needs; images are of `seeds` seeds from `first_seed` on."""

    def __init__(self, seeds: int, first_seed: int = 1000):
        self.pipe, self.seeds, self.first_seed = load_demo(), seeds, first_seed
        scheduler = type(self.pipe.scheduler).from_config(self.pipe.scheduler.config)
        self.pipe.scheduler = scheduler
        for part in (self.pipe.unet, self.pipe.text_encoder):
            part.requires_grad_(False)
        self.denoiser: Any = to_denoiser(self.pipe)
        self.calibration: Calibration = demo_calibration()
        self.judge = Judge()

    def sample(self, **what: Any) -> tuple[NDArray[np.uint8], Any]:
        """Returns images, made as in benchmarks.demo_model, and the pipeline's output."""
        generators = [torch.Generator().manual_seed(self.first_seed + s) for s in range(self.seeds)]
        out = self.pipe(num_inference_steps=20, guidance_scale=7.5, generator=generators, output_type="np", **what)
        return (out.images * 255).round().astype(np.uint8), out

    def embedded(self, condition: Any) -> NDArray[np.uint8]:
        """Returns images from a condition of one row."""
        same = [0] * self.seeds
        return self.sample(**self.denoiser.as_arguments(condition[same], self.denoiser.empty[same]))[0]

    def outcome(self, caption: Caption, images: NDArray[np.uint8], **more: Any) -> Outcome:
        return Outcome(self.judge.own(caption, images), self.judge.another(caption, images), **more)

    def untouched(self, caption: Caption) -> Outcome:
        return self.outcome(caption, self.sample(prompt=caption.text, num_images_per_prompt=self.seeds)[0])

    def guarded(self, caption: Caption, policy: str) -> Outcome:
        """Returns the outcome through an attached guard."""
        guard = Guard(self.pipe, self.calibration, policy)
        started = time.perf_counter()
        with guard.attached():
            images, out = self.sample(prompt=caption.text, num_images_per_prompt=self.seeds)
        took = time.perf_counter() - started
        tried = {id(r.mitigation): r.mitigation for r in out.memorization if r.mitigation is not None}
        if not tried:
            return self.outcome(caption, images)
        first = next(iter(tried.values()))
        return self.outcome(
            caption,
            images,
            flagged=True,
            held=all(t.held for t in tried.values()),
            rewritten=first.rewritten if policy == "rewrite" else None,
            words=len(first.words),
            similarity=first.similarity,
            rows=sum(t.forward_rows + 2 * t.backward_rows for t in tried.values()),
            seconds=took,
        )

    def wen(self, caption: Caption, target: float, steps: int) -> Outcome:
        """Returns the outcome of Wen et al.'s optimisation on our score, down to a target."""
        original = self.denoiser.encode([caption.text])
        started = time.perf_counter()
        moved = optimise_embedding(
            self.denoiser, self.calibration, original, target=target, direction=False, steps=steps
        )
        took = time.perf_counter() - started
        return self.outcome(
            caption,
            self.embedded(moved.condition),
            flagged=True,
            held=True,
            similarity=similarity(moved.condition, original).item(),
            rows=moved.forward_rows + 2 * moved.backward_rows,
            seconds=took,
        )

    def sail(self, caption: Caption) -> Outcome:
        """Returns the outcome of SAIL from as many noises as there are seeds."""
        original, started = self.denoiser.encode([caption.text]), time.perf_counter()
        noises = draw_noise(self.denoiser, self.seeds, 1000)
        moved = torch.cat([optimise_noise(self.denoiser, original, noises[[i]]) for i in range(self.seeds)])
        took = time.perf_counter() - started
        images = self.sample(prompt=caption.text, num_images_per_prompt=self.seeds, latents=moved)[0]
        # each step asks twice with both branches, and differentiates all four rows
        return self.outcome(caption, images, flagged=True, held=True, rows=12 * STEPS * self.seeds, seconds=took)


def summary(outcomes: list[Outcome]) -> dict[str, float]:
    """Returns means over captions; rows and seconds over those that were flagged."""
    flagged = [o for o in outcomes if o.flagged]

    def mean(values: list[float]) -> float:
        return float(np.mean(values)) if values else 0.0

    return {
        "recites": mean([o.recites for o in outcomes]),
        "recites_another": mean([o.recites_another for o in outcomes]),
        "flagged": mean([o.flagged for o in outcomes]),
        "held": mean([o.held for o in flagged]),
        "recites_where_held": mean([o.recites for o in outcomes if o.held]),
        "words_changed": mean([o.words for o in flagged if o.held]),
        "similarity": mean([o.similarity for o in flagged if o.held]),
        "rows_per_prompt": mean([o.rows for o in flagged]),
        "seconds_per_prompt": mean([o.seconds for o in flagged]),
    }


def false_interventions(bench: Bench) -> dict[str, float]:
    """Returns the share of benign captions that an attached guard would have changed, at one image each."""
    guard = Guard(bench.pipe, bench.calibration)
    shares = {}
    for kind in ("general", "control"):
        captions, flagged = select(kind, "eval"), 0
        with guard.attached():
            for start in range(0, len(captions), 20):
                texts = [c.text for c in captions[start : start + 20]]
                generators = [torch.Generator().manual_seed(1000) for _ in texts]
                out = bench.pipe(texts, num_inference_steps=1, generator=generators, output_type="latent")
                flagged += sum(report.memorized for report in out.memorization)
        shares[kind] = flagged / len(captions)
    return shares


def methods(bench: Bench) -> dict[str, Any]:
    """Returns methods by name, as functions of a caption; those that are no guard take only flagged captions."""
    calibration = bench.calibration
    median = float(np.median(calibration.scores))
    low = float(np.quantile(calibration.scores, 0.1))
    return {
        **{policy: lambda c, p=policy: bench.guarded(c, p) for policy in POLICIES},
        "Wen, to the threshold, 10 steps": lambda c: bench.wen(c, calibration.threshold, 10),
        "Wen, to the benign median, 50 steps": lambda c: bench.wen(c, median, 50),
        "Wen, to the benign 10 %, 50 steps": lambda c: bench.wen(c, low, 50),
        "SAIL, 10 steps": bench.sail,
    }


def before(captions: list[Caption], anew: list[str]) -> dict[str, list[Outcome]]:
    """Returns what is stored of the captions by method, but for those that are measured anew."""
    kept = {name: found for name, found in stored("mitigation")["by_caption"].items() if name not in anew}
    return {name: [Outcome(**found[c.text]) for c in captions] for name, found in kept.items()}


def main() -> None:
    options = arguments(
        __doc__,
        seeds={"type": int, "default": SEEDS},
        split={"default": "eval", "help": "eval, or dev to try things"},
        captions={"type": int, "default": None, "help": "only so many of each kind"},
        only={"nargs": "+", "default": None, "metavar": "METHOD", "help": "the others are those stored before"},
    )
    warnings.simplefilter("ignore")
    bench = Bench(options.seeds)
    captions = [c for kind in FED for c in select(kind, options.split)[: options.captions]]
    results = {} if options.only is None else before(captions, options.only)
    if "none" not in results:
        results["none"] = [bench.untouched(c) for c in captions]
    flags: list[bool] = []
    for name, method in methods(bench).items():
        if name in results:
            flags = flags or [o.flagged for o in results[name]]
            continue
        if name in POLICIES:
            results[name] = [method(c) for c in captions]
            flags = [o.flagged for o in results[name]]
        else:
            pairs = zip(captions, flags, results["none"], strict=True)
            results[name] = [method(c) if flag else none for c, flag, none in pairs]
        print(name, {k: round(v, 3) for k, v in summary(results[name]).items()}, flush=True)
    document: dict[str, Any] = {"seeds": options.seeds, "split": options.split, "methods": {}}
    rows = []
    for name in ("none", *methods(bench)):
        outcomes = results[name]
        parts = {"all": outcomes} | {
            k: [o for o, c in zip(outcomes, captions, strict=True) if c.kind == k] for k in FED
        }
        document["methods"][name] = {k: summary(v) for k, v in parts.items()}
        rows.append([name, *document["methods"][name]["all"].values()])
    document["false_interventions"] = false_interventions(bench)
    document["by_caption"] = {
        name: {c.text: o.stored() for c, o in zip(captions, outcomes, strict=True)}
        for name, outcomes in results.items()
    }
    table(["method", *document["methods"]["none"]["all"]], rows)
    print("benign captions changed:", document["false_interventions"])
    store("mitigation", document)


if __name__ == "__main__":
    main()
