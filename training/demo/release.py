"""Makes the weights folder from a training folder: `python -m training.demo.release WORK --early STEP`."""

import argparse
import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import torch

from cryptomnesia.adapters import to_denoiser
from cryptomnesia.calibration import calibrate
from cryptomnesia.calibration_store import BUILT_IN
from cryptomnesia.demo import WEIGHTS, load_demo
from cryptomnesia.demo.captions import select
from cryptomnesia.protocols import encoder_of

from . import networks, sheet

BENIGN = ("general", "control", "unseen")
MOST = 0.125  # share of generations that may look like training by chance
TRAINED = ("unet", "text_encoder")


def assemble(work: Path, early: str) -> None:
    """Makes a diffusers folder with the last checkpoint, and an early one beside it."""
    from diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion import StableDiffusionPipeline
    from transformers import CLIPTextModel

    last = max((work / "checkpoints").iterdir())
    # what the stubs refuse: a scheduler that is a class of its own, and parts left out
    parts: dict[str, Any] = {"scheduler": networks.scheduler(), "safety_checker": None, "feature_extractor": None}
    pipe = StableDiffusionPipeline(
        vae=networks.AutoencoderKL.from_pretrained(work / "vae"),
        text_encoder=CLIPTextModel.from_pretrained(last / "text_encoder"),
        tokenizer=networks.CLIPTokenizer.from_pretrained(work / "tokenizer"),
        unet=networks.UNet2DConditionModel.from_pretrained(last / "unet"),
        **parts,
        requires_safety_checker=False,
    )
    pipe.to(dtype=torch.float16).save_pretrained(WEIGHTS)
    # transformers loads text encoders in the type that their config names, diffusers all others in float32
    config = WEIGHTS / "text_encoder" / "config.json"
    config.write_text(config.read_text().replace('"float16"', '"float32"'))
    for part in ("unet", "vae"):
        config = WEIGHTS / part / "config.json"
        kept = {k: v for k, v in json.loads(config.read_text()).items() if k != "_name_or_path"}  # a local path
        config.write_text(json.dumps(kept, indent=2) + "\n")
    for name in ("vocab.json", "merges.txt"):  # for older tokenizers, which read these
        shutil.copy(work / "tokenizer" / name, WEIGHTS / "tokenizer" / name)
    for part in TRAINED:
        shutil.copytree(work / "checkpoints" / early / part, WEIGHTS / "early" / part, dirs_exist_ok=True)
    sheet.build()


def calibrate_demo(reproducing: set[str], draws: int = 4, seed: int = 0) -> None:
    """Writes the shipped calibration, on captions of the calibration split alone, less those seen to reproduce."""
    denoiser = to_denoiser(load_demo())
    texts = [c.text for kind in BENIGN for c in select(kind, "calibration") if c.text not in reproducing]
    calibrate(denoiser, encoder_of(denoiser).encode(texts), draws=draws, seed=seed).save(BUILT_IN)


def digests() -> str:
    """Returns lines of SHA-256 and path of every weights file, as `sha256sum` writes them."""
    files = sorted(WEIGHTS.rglob("*.safetensors"))
    return "".join(
        f"{hashlib.sha256(f.read_bytes()).hexdigest()}  {f.relative_to(WEIGHTS).as_posix()}\n" for f in files
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("work", type=Path)
    parser.add_argument("--early", required=True, help="name of the early checkpoint")
    parser.add_argument("--truth", type=Path, help="what benchmarks.demo_model stored; then only calibrate")
    options = parser.parse_args()
    if options.truth is None:
        assemble(options.work, options.early)
        (WEIGHTS / "SHA256SUMS").write_text(digests())
        calibrate_demo(set())
        return
    rates = json.loads(options.truth.read_text())["by_caption"]
    calibrate_demo({text for kind in BENIGN for text, rate in rates[kind].items() if rate > MOST})


if __name__ == "__main__":
    main()
