"""README's table of model families says what the code does: each family is tried on a small model."""

import json
from typing import Any

import pytest
import torch

from cryptomnesia import CallableDenoiser, Guard
from cryptomnesia.adapters.onnx_loading import load_onnx
from cryptomnesia.calibration import calibrate
from cryptomnesia.errors import CryptomnesiaError, InputError, NotApplicable

from ..helpers.families import families
from ..helpers.guarded import BENIGN, above, call
from ..helpers.pipelines import build, stable_diffusion
from ..helpers.snippets import ROOT
from ..nodes.models import KINDS

# the table's first column: small pipelines of the family, and its kind among ComfyUI's
ROWS: dict[str, tuple[list[str], str | None]] = {
    "Stable Diffusion 1.x": (["sd1"], "eps"),
    "Stable Diffusion 2.x": (["sd2"], "v"),
    "Stable Diffusion XL": (["sdxl"], "sdxl"),
    "Stable Diffusion 3": (["sd3"], "sd3"),
    "PixArt Alpha, Sigma": (["pixart", "pixart-sigma"], None),
    "Flux without a guidance input (schnell)": (["flux"], "schnell"),
    "Flux with one (dev, Krea)": (["flux-guided"], "flux"),
    "Flux with a ControlNet: of the prompt alone": (["flux-controlnet"], None),
    "Flux.2 dev, klein": (["flux-2", "flux-2-klein", "flux-2-klein-distilled"], None),
    "Qwen-Image": (["qwen-image"], "qwen"),
    "Chroma": (["chroma"], "chroma"),
    "HunyuanImage, distilled too": (["hunyuan-image", "hunyuan-image-distilled"], None),
    "LCM": (["lcm"], None),
    "your own function, as a `CallableDenoiser`": (["function"], None),
}
SMALL = families()
COLUMNS = ("check", "attach", "rewrite", "locate", "ONNX", "ComfyUI")


def table() -> dict[str, dict[str, str]]:
    """README's table: the answers by family and column."""
    text = (ROOT / "README.md").read_text("utf-8")
    lines = text[text.index("| family | check |") :].split("\n\n")[0].splitlines()
    head, _, *rows = ([cell.strip() for cell in line.strip("|").split("|")] for line in lines)
    assert tuple(head[1:]) == COLUMNS
    return {row[0]: dict(zip(COLUMNS, row[1:], strict=True)) for row in rows}


def function() -> CallableDenoiser:
    """A network that reads letters."""
    letters = torch.randn(256, 1, 16, generator=torch.Generator().manual_seed(0))

    def encode(texts: list[str]) -> torch.Tensor:
        return torch.stack([letters[list(text.encode()) or [0]].mean(0) for text in texts])

    def network(x: torch.Tensor, t: torch.Tensor, condition: torch.Tensor) -> torch.Tensor:
        return x * 0.9 + condition.mean(1)[:, :4, None, None]

    alphas = torch.linspace(0.9999, 0.005, 1000, dtype=torch.float64)
    return CallableDenoiser(network, alphas, empty=encode([""]), latent_shape=(4, 8, 8), encode=encode)


def made(name: str) -> Any:
    if name == "function":
        return function()
    if name in SMALL:
        return SMALL[name].made()
    if name != "lcm":
        return build(name)
    with torch.random.fork_rng(devices=[]):
        pipe = stable_diffusion(time_cond_proj_dim=8)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def can(name: str, column: str) -> bool:
    """Whether a guard answers, on 16x16 pixels."""
    guard = Guard(made(name), unverified="allow")
    denoiser = guard.denoiser
    size: dict[str, Any] = {} if name == "function" else {"height": 16, "width": 16}
    try:
        if column == "check":
            return guard.check("a cat", draws=1, **size).score is not None
        if column == "attach":
            with guard.attached():
                made_by = SMALL[name].call if name in SMALL else call
                return made_by(denoiser.pipe).memorization[0].score is not None
        shape = denoiser.latent_shape(**size)
        known = above(calibrate(denoiser, denoiser.encode(BENIGN), draws=1, latent_shape=shape), -1e9)
        guard = Guard(denoiser, known, unverified="allow")
        if column == "rewrite":
            return guard.mitigate("a cat", "rewrite", **size).mitigation.score_before is not None
        return guard.locate("a cat", steps=3, **size).map is not None
    except (NotApplicable, InputError):
        return False


def takes_onnx(name: str, folder: Any) -> bool:
    """Whether files of that pipeline would be opened: where they are not known, that is said before they are missed."""
    pipeline = type(made(name)).__name__
    (folder / "model_index.json").write_text(json.dumps({"_class_name": f"ORT{pipeline}"}))
    with pytest.raises(CryptomnesiaError) as refused:
        load_onnx(folder)
    return "lacks" in str(refused.value)


def test_the_table_has_every_family():
    assert set(table()) == {*ROWS}


@pytest.mark.parametrize("family", ROWS)
def test_each_family_does_what_the_table_says(family: str, tmp_path):
    for name in ROWS[family][0]:
        found = {column: can(name, column) for column in COLUMNS[:4]}
        # a consistency model of Stable Diffusion could be exported, and still gets no verdict
        found["ONNX"] = found["check"] and takes_onnx(name, tmp_path)
        assert {column: "yes" if does else "no" for column, does in found.items()} == {
            column: answer for column, answer in table()[family].items() if column != "ComfyUI"
        }, name


@pytest.mark.parametrize("family", ROWS)
def test_in_comfyui_each_family_is_one_that_the_nodes_are_tested_with(family: str):
    """Their tests ask every kind for a score, and find none where guidance is an input."""
    kind, says = ROWS[family][1], table()[family]["ComfyUI"]
    if kind is None:
        assert says in ("no", "untried")
    else:
        assert (KINDS[kind].guidance is None) == (says == "yes")
