"""Every family through the nodes: calibrated, checked with a verdict, and looked at for where."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from cryptomnesia.calibration import Calibration

from . import models
from .graphs import ENDING, calibrations, given, keep, links, ours, ran, report_of, tiny, with_check
from .harness import Comfy

pytestmark = pytest.mark.usefixtures("folder")
PROMPTS = [f"a {color} {thing}" for color in "red blue green grey pink".split() for thing in "abcdefghijklmnopqrst"]
NEW = ("chroma", "qwen", "flux2", "klein", "lumina", "z-image", "hunyuan", "hidream", "aura", "pixart")
FEW_STEPS = ("flux", "schnell", "hunyuan-distilled")


@pytest.fixture
def folder(comfy: Comfy) -> Iterator[Path]:
    place = calibrations(comfy)
    shutil.rmtree(place, ignore_errors=True)
    yield place
    shutil.rmtree(place, ignore_errors=True)


def calibrated(comfy: Comfy, prompt: dict[str, Any]) -> dict[str, Any]:
    """The prompt, once a calibration of its model lies in the folder; so lax that some verdicts are memorized."""
    inputs = {key: link for key, link in links(prompt).items() if key != "positive"}
    own = {"name": "tiny", "draws": 1, "prompts": "\n".join(PROMPTS), "alpha": 0.3}
    ran(comfy, prompt | {"made": ours(comfy, "CalibrateModel", **inputs | own)})
    return prompt


def heat(comfy: Comfy, kind: str, prompt: dict[str, Any], **changes: Any) -> list[Any]:
    """A finished latent that is none, and an image of its size."""
    made = models.KINDS[kind]
    frames = (1,) if kind in ("qwen", "wan") else ()
    noise = torch.randn(1, made.channels, *frames, made.size, made.size, generator=torch.Generator().manual_seed(0))
    side = made.size * made.factor
    prompt = with_check(comfy, prompt, draws=1)
    own = {name: link for name, link in links(prompt).items() if name != "latent"}
    parts = {"samples": given(comfy, {"samples": noise}), "image": given(comfy, torch.zeros(1, side, side, 3))}
    inputs = {"samples": ["samples", 0], "images": ["image", 0], "report": ["check", 0], "when": "always", "probes": 1}
    prompt |= parts | {"heat": ours(comfy, "MemorizationHeatmap", **own | inputs | changes)}
    return ran(comfy, prompt | {"end": keep("heat", 1)}).outputs["heat"]


@pytest.mark.parametrize("kind", [*NEW, *FEW_STEPS])
def test_a_family_is_calibrated_checked_and_located(comfy: Comfy, folder: Path, kind: str):
    prompt = tiny(comfy, kind)
    before = report_of(comfy, with_check(comfy, prompt, draws=1))
    assert before["verdict"] == "uncalibrated" and before["score"] > 0
    report = report_of(comfy, with_check(comfy, calibrated(comfy, prompt), draws=1))
    made = Calibration.load(folder / f"tiny{ENDING}")
    assert report["verdict"] in ("clear", "memorized") and 0 < report["p_value"] <= 1
    assert report["calibration_id"] == made.identity and made.n == 100
    assert report["reference"] == ("empty prompt" if kind in (*FEW_STEPS, "flux2") else "empty branch")
    side = models.KINDS[kind].size * models.KINDS[kind].factor
    _, mask, whole, share, located, _ = heat(comfy, kind, prompt)
    assert whole.shape == mask.shape == (1, side, side) and whole.isfinite().all() and whole.max() == 1
    assert mask.any() and 0 < share < 1 and located["region"] is not None


def test_a_second_encoders_layers_are_part_of_the_prompt(comfy: Comfy):
    """HiDream's network reads them beside T5's text; the empty prompt has its own."""
    from cryptomnesia.adapters.comfyui import ComfyDenoiser

    from .graphs import Texts

    plain = ComfyDenoiser(models.model("hidream"), Texts("hidream"))
    one, other = models.conditioning("hidream", 1), models.conditioning("hidream", 2)
    ((text, options),) = one
    layers = options["conditioning_llama3"]
    rows = plain.read(one)
    ((again, back),) = plain.write(rows)
    assert torch.equal(again, text) and torch.equal(back["conditioning_llama3"], layers)
    mixed = [[text, options | {"conditioning_llama3": other[0][1]["conditioning_llama3"]}]]
    x, level = torch.randn(1, 16, 8, 8), plain.levels.pure_noise
    answers = [plain.predict(x, level, plain.read(value)).raw for value in (one, mixed)]
    assert (answers[0] - answers[1]).abs().max() > 1e-4
    # prompts share what is remembered of them, however many there are
    known = {int(plain.read(models.conditioning("hidream", i)).tensors["template"][0]) for i in range(5)}
    assert len(known) == 1
    # in an area, too, the empty prompt has layers of its own
    area = [[text, options | {"strength": 0.5}]]
    with_area = ComfyDenoiser(plain.model, plain.clip, like=area)
    ((_, left),) = with_area.write(with_area.empty)
    own = plain.clip.encode_from_tokens_scheduled(plain.clip.tokenize(""))[0][1]["conditioning_llama3"]
    assert left["strength"] == 0.5 and torch.equal(left["conditioning_llama3"], own)


def test_quoted_words_are_not_kept_for_the_empty_prompt():
    """HunyuanImage reads what stands in quotes by an encoder of its own."""
    from cryptomnesia.adapters.comfyui import ComfyDenoiser

    templates = ComfyDenoiser(models.model("hunyuan"))._templates
    text, empty = torch.zeros(1, 8, models.WIDTH), torch.zeros(1, 3, models.WIDTH)
    like = [[text, {"conditioning_byt5small": torch.ones(1, 4, 1472), "strength": 0.5}]]
    ((_, options),) = templates.without_words(like, [[empty, {}]])
    assert options == {"strength": 0.5}


@pytest.mark.parametrize("kind", ["qwen", "wan", "pixart", "aura", "z-image", "hidream", "hunyuan", "flux2"])
def test_the_clip_of_another_family_is_told(kind: str):
    from cryptomnesia.adapters.comfyui import ComfyDenoiser
    from cryptomnesia.errors import InputError

    with pytest.raises(InputError, match="64 wide and this model reads 32"):
        ComfyDenoiser(models.model(kind)).read(models.conditioning("sdxl"))
