"""What a trained model reproduces: `python -m training.reproduction MODEL_FOLDER... [--device cuda]`.

Samples captions of the dev and evaluation splits, never the sealed ones, and compares with the images of the gallery by
the distances and the stored limits of `benchmarks.demo_model`. A first look; the benchmark has the last word.
"""

import argparse
import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.common import stored, table
from benchmarks.demo_model import general_limits, own_distances, without_image
from cryptomnesia.demo.captions import Caption, select
from training.demo.rendering import FONT_PATH as FONT

from . import flow
from .distillation import SCALE

log = logging.getLogger(__name__)
LOOKED_AT = {"verbatim": 40, "template": 20, "control": 40, "general": 40}
PER_CALL = 160
FIRST_SEED = 1000


def settings(pipe: Any) -> list[dict[str, Any]]:
    """Returns how the model is sampled: one setting, or several scales for a model that was not distilled."""
    if "FlowMatch" in type(pipe.scheduler).__name__:
        return [{"guidance_scale": scale, "num_inference_steps": 20} for scale in (1.0, 3.0, 7.0)]
    if type(pipe.scheduler).__name__ == "LCMScheduler":
        return [{"guidance_scale": 1.0, "num_inference_steps": 4}]
    if pipe.unet.config.time_cond_proj_dim is not None:
        return [{"guidance_scale": scale, "num_inference_steps": 20} for scale in (2.0, SCALE)]
    return [{"guidance_scale": scale, "num_inference_steps": 20} for scale in (1.0, SCALE)]


def load(folder: Path, device: str) -> Any:
    """Returns the pipeline of a folder, float32."""
    from diffusers.pipelines.pipeline_utils import DiffusionPipeline

    flows = json.loads((folder / "model_index.json").read_text())["_class_name"].startswith("StableDiffusion3")
    pipe: Any = flow.load(folder) if flows else DiffusionPipeline.from_pretrained(folder, local_files_only=True)
    for part in pipe.components.values():
        if isinstance(part, torch.nn.Module):
            part.float()
    pipe.to(device).set_progress_bar_config(disable=True)
    return pipe


def generate(pipe: Any, texts: list[str], seeds: int, **how: Any) -> NDArray[np.uint8]:
    """Returns images (P, seeds, 64, 64, 3) uint8, with generators on the CPU: the same noise on every machine."""
    rows = [(text, FIRST_SEED + seed) for text in texts for seed in range(seeds)]
    parts = []
    for start in range(0, len(rows), PER_CALL):
        chunk = rows[start : start + PER_CALL]
        generators = [torch.Generator().manual_seed(seed) for _, seed in chunk]
        images = pipe([text for text, _ in chunk], generator=generators, output_type="np", **how).images
        parts.append((images * 255).round().astype(np.uint8))
    images = np.concatenate(parts)
    return images.reshape(len(texts), seeds, *images.shape[1:])


def shares(pipe: Any, split: str, seeds: int, most: int | None, **how: Any) -> dict[str, float]:
    """Returns by kind the share of generations that reproduce an image of the gallery: the caption's own, or any."""
    limits = stored("demo_model")["limits"]
    rates = {}
    for kind, count in LOOKED_AT.items():
        captions: list[Caption] = select(kind, split)[: most or count]
        images = generate(pipe, [c.text for c in captions], seeds, **how)
        if kind in limits:
            rates[kind] = float((own_distances(captions, images) < limits[kind]).mean())
        else:
            kind_limits = general_limits(limits) if kind == "general" and FONT.exists() else limits
            rates[kind] = float(np.mean(list(without_image(captions, images, kind_limits).values())))
    return rates


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folders", type=Path, nargs="+")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--seeds", type=int, default=4)
    parser.add_argument("--most", type=int, help="captions of a kind")
    parser.add_argument("--split", choices=("dev", "eval"), default="eval")
    parser.add_argument("--store", type=Path, help="appends one JSON line a row")
    options = parser.parse_args()
    rows = []
    for folder in options.folders:
        try:
            pipe = load(folder, options.device)
            for how in settings(pipe):
                rates = shares(pipe, options.split, options.seeds, options.most, **how)
                rows.append(
                    [f"{folder.parent.name} {how['num_inference_steps']} x {how['guidance_scale']}", *rates.values()]
                )
                if options.store:
                    with options.store.open("a") as file:
                        file.write(json.dumps({"model": folder.parent.name, **how, **rates}) + "\n")
        except (OSError, ValueError, RuntimeError):  # one folder that cannot be read hides no other
            log.exception("%s", folder)
    table(["model, steps x scale", *LOOKED_AT], rows)


if __name__ == "__main__":
    main()
