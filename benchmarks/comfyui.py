"""In the real ComfyUI, on the built-in model: `python -m benchmarks.comfyui`. What a check costs next to sampling, and
whether what Rewrite Prompt and Mitigate Conditioning give still reproduces, in images that KSampler makes.

Rewriting is not the same as in a pipeline: there are no gradients of words here, so a word's significance is how much
the score falls without it.
"""

import random
import statistics
import tempfile
import time
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cryptomnesia.demo.captions import Caption, select
from tests.nodes.conftest import packs
from tests.nodes.harness import Comfy
from tests.nodes.installation import install
from tests.nodes.results import node

from .common import arguments, store, stored, table
from .mitigation import FED, Judge

BATCH = 8
NODES = {"none": None, "rewrite": "CryptomnesiaRewritePrompt", "embed": "CryptomnesiaMitigateConditioning"}


def graph(text: str, *, steps: int, seed: int, batch: int = 1) -> dict[str, Any]:
    """Returns a workflow from the prompt to the image."""
    return {
        "load": node("CryptomnesiaLoadDemoModel", checkpoint="final"),
        "text": node("CLIPTextEncode", clip=["load", 1], text=text),
        "empty": node("CLIPTextEncode", clip=["load", 1], text=""),
        "latent": node("EmptyLatentImage", width=64, height=64, batch_size=batch),
        "sample": node(
            "KSampler",
            model=["load", 0],
            positive=["text", 0],
            negative=["empty", 0],
            latent_image=["latent", 0],
            seed=seed,
            steps=steps,
            cfg=7.5,
            sampler_name="ddim",
            scheduler="ddim_uniform",
            denoise=1.0,
        ),
        "decode": node("VAEDecode", samples=["sample", 0], vae=["load", 2]),
        "keep": node("TestKeep", value=["decode", 0]),
    }


def pack_node(kind: str, **more: Any) -> dict[str, Any]:
    """Returns one of the pack's nodes, on the graph's own model."""
    links = {"model": ["load", 0], "clip": ["load", 1], "latent": ["latent", 0], "calibration": "automatic"}
    return node(kind, **links, **more)


def run(comfy: Comfy, prompt: dict[str, Any]) -> Any:
    """Returns a workflow's result, and the seconds that it took. Raises RuntimeError if ComfyUI reports an error."""
    started = time.perf_counter()
    result = comfy.run(prompt)
    took = time.perf_counter() - started
    if not result.ok:
        raise RuntimeError(result.error)
    return result, took


# --- cost ---


def cost(comfy: Comfy, pairs: int, steps: int) -> dict[str, dict[str, float]]:
    """Returns times with the check over times without, in random order, everything else cached."""
    ratios: dict[str, list[float]] = {"one draw": [], "four draws": [], "four draws, alignment": []}
    shuffled = random.Random(0)
    for number in range(pairs + 2):
        times = {}
        for kind in shuffled.sample(["without", *ratios], len(ratios) + 1):
            prompt = graph("monkey face on blue", steps=steps, seed=number * 10 + len(times))
            if kind != "without":
                draws, alignment = (1 if kind.startswith("one") else 4), kind.endswith("alignment")
                about = {"draws": draws, "check_seed": number, "positive": ["text", 0], "alignment": alignment}
                prompt["check"] = pack_node("CryptomnesiaMemorizationCheck", **about)
                # in the way of the sampler, as a gate is
                links = {"value": ["text", 0], "report": ["check", 0]}
                prompt["gate"] = node("CryptomnesiaMemorizationGate", **links, policy="pass with a warning")
                prompt["sample"]["inputs"]["positive"] = ["gate", 0]
            times[kind] = run(comfy, prompt)[1]
        if number >= 2:  # the first warm up
            for kind, values in ratios.items():
                values.append(times[kind] / times["without"])
    return {kind: _spread(values) for kind, values in ratios.items()}


def _spread(values: list[float]) -> dict[str, float]:
    low, median, high = statistics.quantiles(values, n=4)
    return {"median": median, "quartile_low": low, "quartile_high": high, "pairs": len(values)}


# --- mitigation ---


def images(comfy: Comfy, caption: Caption, method: str) -> tuple[NDArray[np.uint8], dict[str, Any] | None, float]:
    """Returns eight images after a method, its report, and the seconds it took beyond sampling."""
    prompt = graph(caption.text, steps=20, seed=1000, batch=BATCH)
    took = 0.0
    if method == "rewrite":
        prompt["mitigate"] = pack_node(NODES[method], text=caption.text, when="flagged", check_seed=0)
        prompt["sample"]["inputs"]["positive"] = ["mitigate", 1]
    if method == "embed":
        prompt["mitigate"] = pack_node(NODES[method], positive=["text", 0], when="flagged", check_seed=0)
        prompt["sample"]["inputs"]["positive"] = ["mitigate", 0]
    if method != "none":
        alone = {name: prompt[name] for name in ("load", "text", "latent", "mitigate")}
        took = run(comfy, {**alone, "first": node("TestKeep", value=["mitigate", 0])})[1]
    result = run(comfy, prompt)[0]
    report = None if method == "none" else result.outputs["mitigate"][3 if method == "rewrite" else 1]
    return (result.outputs["decode"][0].numpy() * 255).round().astype(np.uint8), report, took


def mitigation(comfy: Comfy, captions: list[Caption]) -> dict[str, dict[str, Any]]:
    """Returns per method how many generations reproduce, and what was changed for it."""
    judge, found = Judge(), {}
    for method in NODES:
        rows = []
        for caption in captions:
            made, report, took = images(comfy, caption, method)
            about = (report or {}).get("mitigation")
            rows.append(
                {
                    "caption": caption.text,
                    "recites": judge.own(caption, made),
                    "recites_another": judge.another(caption, made),
                    "mended": about is not None,
                    "held": bool(about and about["held"]),
                    "rewritten": about["rewritten"] if about else None,
                    "words": len(about["words"]) if about else 0,
                    "rows": about["forward_rows"] + 2 * about["backward_rows"] if about else 0,
                    "seconds": took,
                }
            )
        found[method] = {**_summary(rows), "by_caption": rows}
    return found


def _summary(rows: list[dict[str, Any]]) -> dict[str, float]:
    tried, held = [r for r in rows if r["mended"]], [r for r in rows if r["held"]]

    def mean(part: list[dict[str, Any]], name: str) -> float:
        return float(np.mean([row[name] for row in part])) if part else 0.0

    return {
        "recites": mean(rows, "recites"),
        "recites_another": mean(rows, "recites_another"),
        "flagged": mean(rows, "mended"),
        "held": mean(tried, "held"),
        "recites_where_held": mean(held, "recites"),
        "words_changed": mean(held, "words"),
        "rows_per_prompt": mean(tried, "rows"),
        "seconds_per_prompt": mean(tried, "seconds"),
    }


def main() -> None:
    options = arguments(
        __doc__,
        pairs={"type": int, "default": 25},
        steps={"type": int, "default": 50},
        split={"default": "eval", "help": "eval, or dev to try things"},
        only={"choices": ["check", "mending"], "help": "measure one part, and keep what is stored of the other"},
    )
    document = stored("comfyui") if options.only else {}
    document.pop("about", None)
    with tempfile.TemporaryDirectory() as base:
        comfy = Comfy(install(), Path(base))
        utils: Any = import_module("comfy.utils")
        utils.PROGRESS_BAR_ENABLED = False
        for name, folder in packs().items():
            comfy.load_pack(folder, name)
        if options.only != "mending":
            ratios = cost(comfy, options.pairs, options.steps)
            table(["check", *ratios["one draw"]], [[kind, *values.values()] for kind, values in ratios.items()])
            document |= {"steps": options.steps, "check": ratios}
        if options.only != "check":
            found = mitigation(comfy, [c for kind in FED for c in select(kind, options.split)])
            names = [name for name in found["none"] if name != "by_caption"]
            table(["method", *names], [[method, *(values[name] for name in names)] for method, values in found.items()])
            document |= {"split": options.split, "batch": BATCH, "mending": found}
    store("comfyui", document)


if __name__ == "__main__":
    main()
