"""Mitigation and relapse on prompts that no choice has looked at: `python -m benchmarks.mitigation_afresh` (needs the
font).

The built-in model and the rectified-flow transformer, on other wordings of their captions and on seeds that nothing was
chosen by; on the transformer, of the sealed captions. `--split dev` asks development prompts in their place, to choose
by, and stores nothing. What was stored of a prompt is left as it is, so that a run can be stopped and taken up again.
"""

import math
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from cryptomnesia import Guard
from cryptomnesia.adapters import to_denoiser
from cryptomnesia.demo.captions import Caption
from cryptomnesia.demo.captions import select as builtin_captions
from cryptomnesia.demo.gallery import Gallery
from cryptomnesia.mitigation.mitigate import METHODS, mitigate
from cryptomnesia.mitigation.result import Mended
from training.flow import PIPELINE_ZEROS, TOKENS, WeightedAttention
from training.flow_captions import SEALED, select, wordings

from .common import arguments, store, stored, stored_models, table
from .detection import FED, benign, benign_calibration
from .flow_sealed import fixed_images, together
from .known_truth import FLOW, load
from .known_truth_captions import HOW
from .mitigation import Bench, Judge
from .relapse import nudged

NAME, DEV = "mitigation_afresh", "dev"
BUILT_IN = "built-in"
NUDGES = 10
ZEROS = 32  # vectors behind a prompt of the transformer, in place of its pipeline's 256
FIRST_SEED = {DEV: 3000, SEALED: 9000}  # of images; private noise is drawn from the same number
RESAMPLES = 2000
Prompts = list[tuple[Caption, str]]


class FlowBench(Bench):
    """The rectified-flow transformer with everything that a method needs.

    The pipeline's 256 vectors of zeros behind a prompt are a few, weighted as if they were all: see `training.flow`.
    """

    def __init__(self, seeds: int, first_seed: int):
        self.pipe, self.seeds, self.first_seed = load(FLOW), seeds, first_seed
        for part in (self.pipe.transformer, self.pipe.vae, self.pipe.text_encoder, self.pipe.text_encoder_2):
            part.requires_grad_(False)
        attention = WeightedAttention(64 + TOKENS + ZEROS, torch.device("cpu"))
        bias = torch.zeros(64 + TOKENS + ZEROS)
        bias[-ZEROS:] = math.log(PIPELINE_ZEROS / ZEROS)
        attention.bias = bias.expand_as(attention.bias).contiguous()
        self.pipe.transformer.set_attn_processor(attention)
        self.denoiser = to_denoiser(self.pipe)
        self.denoiser.t5_tokens = ZEROS
        truth = stored("known_truth_captions")["models"][FLOW]["by_caption"]
        self.calibration = benign_calibration(self.denoiser, benign(truth), 4, 101)
        self.judge = Judge(together(Gallery.load(), fixed_images()))

    def sample(self, **what: Any) -> tuple[NDArray[np.uint8], Any]:
        """Returns images of this model's own settings, and the pipeline's output."""
        generators = [torch.Generator().manual_seed(self.first_seed + s) for s in range(self.seeds)]
        out = self.pipe(generator=generators, output_type="np", max_sequence_length=ZEROS, **HOW[FLOW], **what)
        return (out.images * 255).round().astype(np.uint8), out


def prompts_of(model: str, split: str, first: int, captions: int | None) -> Prompts:
    """Returns captions that were fed one image, so many of each kind from the first on, with the wording to ask."""
    chosen: Prompts = []
    for kind in FED:
        if model == FLOW:
            found = select(kind, split)[first:][:captions]
            # the first wording is what other benchmarks ask
            chosen += [(c, wordings(c)[1 + c.index % 3]) for c in found]
        else:
            found = builtin_captions(kind, DEV if split == DEV else "eval")[first:][:captions]
            chosen += [(c, c.text if split == DEV else other_wording(c)) for c in found]
    return chosen


def other_wording(caption: Caption) -> str:
    """Returns a wording that the built-in model was never fed."""
    _, adjective, noun, _, place = caption.text.split()
    return f"{adjective} {noun} of {place}"


def measured(
    bench: Bench, caption: Caption, text: str, methods: Sequence[str], about: dict[str, Any] | None = None
) -> dict[str, Any]:
    """Returns what one prompt reproduces before and after each method, and after a relapse; what is known stays."""
    if about is None:
        images, _ = bench.sample(prompt=text, num_images_per_prompt=bench.seeds)
        guard = Guard(bench.denoiser, bench.calibration, seed=bench.first_seed)
        about = {"caption": caption.text, "kind": caption.kind, "flagged": guard.check(text).memorized}
        about["none"], about["asked"] = reproduced(bench, caption, images), []
    about["asked"] = sorted({*about["asked"], *methods})
    for method in methods if about["flagged"] else ():
        if method in about:
            continue
        condition = bench.denoiser.encode(text)
        found = mitigate(method, bench.denoiser, bench.calibration, text, condition, seed=bench.first_seed)  # type: ignore[arg-type]
        about[method] = after(bench, caption, text, found)
    return about


def after(bench: Bench, caption: Caption, text: str, found: Mended) -> dict[str, Any]:
    """Returns what a prompt reproduces after a mitigation, which changes nothing if it did not hold."""
    mitigation = found.mitigation
    condition = found.condition if mitigation.held else None
    if condition is not None:
        images = bench.embedded(condition)
    elif mitigation.held and found.noise is not None:
        # one noise serves every seed here, where a guard chooses one for each
        images, _ = bench.sample(prompt=[text] * bench.seeds, latents=found.noise.repeat(bench.seeds, 1, 1, 1))
    else:
        images, _ = bench.sample(prompt=text, num_images_per_prompt=bench.seeds)
    relapsed = None
    if condition is not None:
        (moved,) = nudged(bench, caption, condition, (NUDGES,))
        relapsed = bench.judge.own(caption, bench.embedded(moved))
    return {
        **reproduced(bench, caption, images),
        "held": mitigation.held,
        "rewritten": mitigation.rewritten,
        "similarity": mitigation.similarity,
        "p": mitigation.p_after,
        "guidance_similarity": mitigation.recall,
        "rows": mitigation.forward_rows + 2 * mitigation.backward_rows,
        "relapse": relapsed,
    }


def reproduced(bench: Bench, caption: Caption, images: NDArray[np.uint8]) -> dict[str, float]:
    """Returns the shares of images that reproduce the caption's own, and another caption's."""
    return {"own": bench.judge.own(caption, images), "another": bench.judge.another(caption, images)}


def summary(rows: list[dict[str, Any]], method: str) -> dict[str, Any]:
    """Returns means over prompts with 95 % intervals; a prompt that is not flagged stays as it is, and counts."""
    rows = [row for row in rows if method in row["asked"]]
    tried = [row[method] for row in rows if method in row]
    held = [one for one in tried if one["held"]]
    return {
        "prompts": len(rows),
        "flagged": len(tried),
        "held": len(held),
        "reproduces": interval([row.get(method, row["none"])["own"] for row in rows]),
        "reproduces_where_flagged": interval([one["own"] for one in tried]),
        "another_where_flagged": interval([one["another"] for one in tried]),
        "relapse_where_held": interval([one["relapse"] for one in held if one["relapse"] is not None]),
        "similarity": interval([one["similarity"] for one in held]),
        "rows": float(np.mean([one["rows"] for one in tried])) if tried else None,
    }


def interval(values: list[float]) -> dict[str, float] | None:
    """Returns the mean over prompts, and from where to where 95 % of bootstrap means lie; None without a prompt."""
    if not values:
        return None
    chosen = np.random.default_rng(0).integers(0, len(values), (RESAMPLES, len(values)))
    low, high = np.quantile(np.array(values)[chosen].mean(1), [0.025, 0.975])
    return {"mean": float(np.mean(values)), "from": float(low), "to": float(high)}


def main() -> None:
    options = arguments(
        __doc__,
        seeds={"type": int, "default": 4},
        captions={"type": int, "default": None, "help": "only so many of each kind"},
        first={"type": int, "default": 0, "help": "of each kind's captions"},
        split={"default": SEALED, "choices": (SEALED, DEV)},
        methods={"nargs": "*", "default": METHODS},
        only={"nargs": "*", "default": (BUILT_IN, FLOW)},
    )
    warnings.simplefilter("ignore")
    torch.set_grad_enabled(False)
    models: dict[str, Any] = stored_models(NAME) if options.split == SEALED else {}
    for model in options.only:
        make = FlowBench if model == FLOW else Bench
        bench = make(options.seeds, FIRST_SEED[options.split])
        by_prompt = models.get(model, {}).get("by_prompt", {})
        for caption, text in prompts_of(model, options.split, options.first, options.captions):
            by_prompt[text] = measured(bench, caption, text, options.methods, by_prompt.get(text))
            print(model, text, by_prompt[text], flush=True)
            rows = list(by_prompt.values())
            models[model] = {
                "seeds": options.seeds,
                "none": {key: interval([row["none"][key] for row in rows]) for key in ("own", "another")},
                "methods": {m: summary(rows, m) for m in METHODS if any(m in row["asked"] for row in rows)},
                "by_prompt": by_prompt,
            }
            if options.split == SEALED:  # another run may have stored the other model meanwhile
                store(NAME, {"relapse_steps": NUDGES, "models": stored_models(NAME) | {model: models[model]}})
    columns = ("reproduces", "reproduces_where_flagged", "another_where_flagged", "relapse_where_held", "similarity")
    table(
        ["model", "method", "flagged", "held", *columns, "rows"],
        [
            [
                model,
                method,
                f"{about['flagged']}/{about['prompts']}",
                about["held"],
                *(shown(about[c]) for c in columns),
                about["rows"],
            ]
            for model, found in models.items()
            for method, about in found["methods"].items()
        ],
    )


def shown(value: dict[str, float] | None) -> str:
    """Returns a mean and its interval as text."""
    return "-" if value is None else f"{value['mean']:.3f} ({value['from']:.2f} to {value['to']:.2f})"


if __name__ == "__main__":
    main()
