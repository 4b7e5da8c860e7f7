"""README's table of model families says what the code does: each family is tried on a small model."""

import json
import re
from typing import Any

import pytest
import torch

from cryptomnesia import CallableDenoiser, Guard
from cryptomnesia.adapters import to_denoiser
from cryptomnesia.adapters.onnx_loading import load_onnx
from cryptomnesia.errors import CryptomnesiaError, InputError, NotApplicable
from cryptomnesia.mitigation.objective import Measure

from ..helpers.families import families
from ..helpers.families import stable_diffusion as unets
from ..helpers.guarded import above, of_a_few
from ..helpers.snippets import ROOT
from ..nodes.models import KINDS

FAMILIES = families() | {"turbo": unets.family(unets.turbo, options={"guidance_scale": 0.0})}

# the table's first column: small pipelines of the family, and its kinds among ComfyUI's
ROWS: dict[str, tuple[list[str], tuple[str, ...]]] = {
    "Stable Diffusion 1.x": (["sd1"], ("eps",)),
    "Stable Diffusion 2.x": (["sd2"], ("v",)),
    "Stable Diffusion XL": (["sdxl"], ("sdxl",)),
    "Stable Diffusion 3": (["sd3"], ("sd3",)),
    "Stable Diffusion 3.5": (["sd3.5"], ()),
    "PixArt Alpha, Sigma": (["pixart", "pixart-sigma"], ("pixart",)),
    "Kolors": (["kolors"], ()),
    "latent consistency models (LCM)": (["lcm"], ("eps",)),
    "Stable Diffusion in few steps: LCM-LoRA, TCD, Turbo, Lightning": (["lcm-lora", "tcd", "turbo"], ("eps", "sdxl")),
    "Stable Diffusion, PixArt, Kolors with perturbed attention (PAG)": (
        ["sd1-pag", "sdxl-pag", "sd3-pag", "pixart-sigma-pag", "kolors-pag"],
        (),
    ),
    "Stable Diffusion or Flux with ControlNet or T2I-Adapter": (
        [name for name in FAMILIES if re.search("controlnet|adapter", name)],
        (),
    ),
    "Flux without a guidance input (schnell)": (["flux"], ("schnell",)),
    "Flux with one (dev, Krea)": (["flux-guided"], ("flux",)),
    "Z-Image, Z-Image Turbo": (["z-image", "z-image-turbo"], ("z-image",)),
    "Lumina Image 2": (["lumina-2"], ("lumina",)),
    "HiDream": (["hidream"], ("hidream",)),
    "AuraFlow": (["auraflow"], ("aura",)),
    "Flux.2 dev, klein": (["flux-2", "flux-2-klein", "flux-2-klein-distilled"], ("flux2", "klein")),
    "Qwen-Image": (["qwen-image"], ("qwen",)),
    "Chroma": (["chroma"], ("chroma",)),
    "HunyuanImage 2.1, distilled too": (["hunyuan-image", "hunyuan-image-distilled"], ("hunyuan", "hunyuan-distilled")),
    "Sana, Sana Sprint": (["sana", "sana-sprint"], ()),
    "CogView4": (["cogview-4"], ()),
    "your own function, as a `CallableDenoiser`": (["function"], ()),
}
COLUMNS = ("check", "attach", "rewrite", "locate", "ONNX", "ComfyUI", "A1111, Forge")
# in AUTOMATIC1111 and Forge, as tests/webui tries them; of the second kind nothing is at hand to try
IN_WEB_UIS = {
    "yes": {"Stable Diffusion 1.x", "Stable Diffusion 2.x"},
    "untried": {"Stable Diffusion XL", "Stable Diffusion in few steps: LCM-LoRA, TCD, Turbo, Lightning"},
}


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
    pipe = FAMILIES[name].made()
    return to_denoiser(pipe, "empty prompt") if name == "turbo" else pipe


def can(name: str, column: str) -> bool:
    """Whether a guard answers, on the smallest images."""
    family = FAMILIES.get(name)
    guard = Guard(made(name), unverified="allow")
    denoiser = guard.denoiser
    size: dict[str, Any] = {} if name == "function" else {"height": 16, "width": 16} if family is None else family.size
    try:
        if column == "check":
            return guard.check("a cat", draws=1, **size).score is not None
        if column == "attach":
            with guard.attached():
                return FAMILIES[name].call(denoiser.pipe).memorization[0].score is not None
        shape = denoiser.latent_shape(**size)
        known = above(of_a_few(denoiser, shape), -1e9)
        guard = Guard(denoiser, known, unverified="allow")
        if column == "rewrite":
            with pytest.MonkeyPatch.context() as patch:
                # random weights keep no promise that a rewriting holds, and the third attempt tells no more
                patch.setattr(Measure, "holds", lambda self, alpha: torch.ones_like(self.p_value, dtype=torch.bool))
                return guard.mitigate("a cat", "rewrite", **size).mitigation.score_before is not None
        return guard.locate("a cat", steps=3, **size).map is not None
    except (NotApplicable, InputError):
        return False


def takes_onnx(name: str, folder: Any) -> bool:
    """Whether files of that pipeline would be opened: where they are not known, that is said before they are missed."""
    pipeline = type(made(name) if name == "function" else FAMILIES[name].build()).__name__
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
        found["ONNX"] = found["check"] and takes_onnx(name, tmp_path)
        says = {column: answer for column, answer in table()[family].items() if column not in COLUMNS[5:]}
        assert says.keys() == found.keys() and all(
            says[column] in ("yes" if does else "no", "untried" if column == "ONNX" else None)
            for column, does in found.items()
        ), (name, found)


def test_in_web_uis_it_is_what_is_tried_there():
    found = {answer: {f for f, row in table().items() if row["A1111, Forge"] == answer} for answer in IN_WEB_UIS}
    assert found == IN_WEB_UIS and {row["A1111, Forge"] for row in table().values()} == {"yes", "untried", "no"}
    manual = (ROOT / "docs" / "webui.md").read_text("utf-8")
    assert "| | Stable Diffusion 1.x, 2.x | XL | others |" in manual
    assert "| AUTOMATIC1111 1.10 | yes | yes, untried | not applicable |" in manual


@pytest.mark.parametrize("family", ROWS)
def test_in_comfyui_each_family_is_one_that_the_nodes_are_tested_with(family: str):
    """Their tests ask every kind for a score."""
    kinds = ROWS[family][1]
    assert set(kinds) <= set(KINDS)
    assert table()[family]["ComfyUI"] in (("yes",) if kinds else ("no", "untried"))
