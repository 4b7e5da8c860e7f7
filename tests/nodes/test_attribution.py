"""Who made an image: asked in the real ComfyUI, of the built-in model and of its early checkpoint."""

from pathlib import Path
from typing import Any

import pytest
import torch

from cryptomnesia import load_demo
from cryptomnesia.adapters import to_denoiser
from cryptomnesia.attribution import NONE, Candidate
from cryptomnesia.attribution.evidence import gather
from cryptomnesia.errors import InputError
from cryptomnesia.sidecar import read_statement, sidecar_path, verify

from . import models
from .graphs import complaint, given, keep, ours, part, ran
from .harness import Comfy
from .results import node

PROMPTS = ("monkey face on blue", "rocket on green", "red apple on white")
EACH = 3  # images of each prompt
NAMES = ("final", "early")
TEXTS = "\n".join(text for text in PROMPTS for _ in range(EACH))
SETTINGS = {"steps": 15, "cfg": 7.5, "sampler_name": "ddim", "scheduler": "ddim_uniform", "denoise": 1.0}


def loaders() -> dict[str, Any]:
    return {name: node("CryptomnesiaLoadDemoModel", checkpoint=name) for name in NAMES}


def sampled(comfy: Comfy, name: str) -> torch.Tensor:
    """Images of a model, the last of each prompt to be asked about."""
    prompt = loaders() | {"latent": node("EmptyLatentImage", width=64, height=64, batch_size=EACH + 1)}
    prompt["nothing"] = node("CLIPTextEncode", clip=[name, 1], text="")
    for number, text in enumerate(PROMPTS):
        prompt[f"text {number}"] = node("CLIPTextEncode", clip=[name, 1], text=text)
        links = {"model": [name, 0], "positive": [f"text {number}", 0], "negative": ["nothing", 0]}
        prompt[f"sample {number}"] = node("KSampler", **links, **SETTINGS, seed=number, latent_image=["latent", 0])
        prompt[f"image {number}"] = node("VAEDecode", samples=[f"sample {number}", 0], vae=[name, 2])
        prompt[f"kept {number}"] = keep(f"image {number}")
    outputs = ran(comfy, prompt).outputs
    return torch.stack([outputs[f"image {number}"][0] for number in range(len(PROMPTS))])


@pytest.fixture(scope="module")
def pictures(comfy: Comfy) -> dict[str, torch.Tensor]:
    return {name: sampled(comfy, name) for name in NAMES}


def asking(comfy: Comfy, pictures: Any, asked: torch.Tensor, texts: str = TEXTS, **changes: Any) -> dict[str, Any]:
    """Both checkpoints as candidates, with their own images, and the question."""
    prompt = loaders() | {"asked": given(comfy, asked)}
    for name in NAMES:
        links = {"model": [name, 0], "clip": [name, 1], "vae": [name, 2], "images": [f"{name} images", 0]}
        prompt[f"{name} images"] = given(comfy, pictures[name][:, :EACH].flatten(0, 1))
        prompt[f"{name} candidate"] = ours(comfy, "AttributionCandidate", **links, name=name, prompts=texts)
    candidates = {f"candidates.candidate{i}": [f"{name} candidate", 0] for i, name in enumerate(NAMES)}
    own = {"images": ["asked", 0], "alpha": 0.1, "prompt": PROMPTS[0]}
    return prompt | {"who": ours(comfy, "AttributeImage", **candidates | own | changes), "kept": keep("who")}


def stranger() -> torch.Tensor:
    """A picture that neither model made."""
    ramp = torch.linspace(0, 1, 64)
    return torch.stack([ramp.view(1, -1).expand(64, 64), ramp.view(-1, 1).expand(64, 64), torch.ones(64, 64) / 2], -1)


def test_each_image_goes_to_its_maker_and_into_its_sidecar(comfy: Comfy, output: Path, pictures: Any):
    asked = torch.stack([pictures["final"][0, EACH], pictures["early"][0, EACH], stranger()])
    prompt = asking(comfy, pictures, asked)
    links = {"images": ["asked", 0], "findings.finding0": ["who", 3]}
    prompt["save"] = ours(comfy, "SaveImage", **links, filename_prefix="made")
    result = ran(comfy, prompt)
    plot, decision, text, findings = result.outputs["who"]
    assert decision.splitlines() == [*NAMES, NONE]
    assert plot.ndim == 4 and plot.shape[0] == 3 and plot.shape[-1] == 3 and float(plot.std()) > 0.05
    assert "Likely made by final" in text and "30 of each make the answer surer" in text
    for number, name in enumerate([*NAMES, NONE], 1):
        image = output / f"made_0000{number}_.png"
        (found,) = read_statement(sidecar_path(image))["predicate"]["findings"]
        assert found["decision"] == name and found["probabilities"] == pytest.approx(
            findings[number - 1]["probabilities"]
        )
        assert list(found["fingerprints"]) == list(NAMES)
        checked = verify(image)
        assert checked.matches and any(f"likely made by {name}" in line for line in checked.lines)


def test_numbers_are_those_of_the_diffusers_pipeline(comfy: Comfy, pictures: Any):
    model, clip, vae = part(comfy, "guard.demo.comfyui").load_demo_comfyui()
    coder = part(comfy, "guard.adapters.comfyui_autoencoder").ComfyAutoencoder(vae, model)
    denoiser = part(comfy, "guard.adapters.comfyui").ComfyDenoiser(model, clip)
    candidate = part(comfy, "guard.attribution").Candidate("demo", denoiser, coder, (64, 64))
    asked = [image.movedim(-1, 0)[None] for image in pictures["final"][0, :2]], [PROMPTS[0]] * 2
    with torch.inference_mode():
        found = part(comfy, "guard.attribution.evidence").gather(asked[0], [candidate], asked[1])
    expected = gather(asked[0], [Candidate("demo", to_denoiser(load_demo()))], asked[1])
    for name, values in found.groups.items():
        torch.testing.assert_close(values, expected.groups[name], rtol=1e-3, atol=2e-2, msg=name)


def test_what_was_learned_is_remembered(comfy: Comfy, pictures: Any, monkeypatch: pytest.MonkeyPatch):
    learning = part(comfy, "nodes.attribution_learning")
    ran(comfy, asking(comfy, pictures, stranger()[None]))

    def forgotten(*_: Any, **__: Any) -> Any:
        raise InputError("learned again")

    monkeypatch.setattr(learning, "calibrate_attribution", forgotten)
    again = ran(comfy, asking(comfy, pictures, pictures["early"][1, EACH:])).outputs["who"]
    assert again[1] in (*NAMES, NONE)
    others = {name: own.flip(3) for name, own in pictures.items()}
    for prompt in (
        asking(comfy, others, stranger()[None]),
        asking(comfy, pictures, stranger()[None], alpha=0.2),
        asking(comfy, pictures, stranger()[None], texts="a prompt for all of them"),
        asking(comfy, pictures, stranger()[None], prompt=""),
    ):
        assert "learned again" in complaint(comfy, prompt)


def test_lists_of_images_and_texts_plug_in(comfy: Comfy, pictures: Any):
    """As from a folder: one image a time, of any size."""
    candidate = part(comfy, "nodes.attribution_candidate").AttributionCandidate
    model, clip, vae = part(comfy, "guard.demo.comfyui").load_demo_comfyui()
    images = [torch.zeros(1, 67, 71, 3), torch.ones(2, 64, 64, 4)]

    def known(images: Any, texts: Any) -> Any:
        return candidate.execute([model], [clip], [vae], [" mine "], images, texts)[0]

    found = known(images, ["a", "b", "c"])
    assert [image.shape for image in found.images] == [(67, 71, 3), (64, 64, 4), (64, 64, 4)]
    assert found.prompts == ["a", "b", "c"] == known(images, ["a\nb\n c\n"]).prompts
    assert found.candidate.name == "mine" and found.candidate.pixels == (64, 68)
    assert known(images, ["one"]).prompts == ["one"] * 3
    assert known(images, None).prompts == known(images, ["", "", ""]).prompts == known(images, [""]).prompts == []
    with pytest.raises(Exception, match="no image by ' mine '"):
        known([], None)
    assert known(images, ["a", "b", "c"]).key == found.key != known(images, ["a", "b", "d"]).key


def test_bad_input_costs_one_line(comfy: Comfy, pictures: Any):
    asked = stranger()[None]

    def says(words: str, prompt: dict[str, Any]) -> None:
        assert words in complaint(comfy, prompt)

    says("4 prompts do not fit 9 images", asking(comfy, pictures, asked, texts="a\nb\nc\nd"))
    says("prompts of the images by final, early are not known", asking(comfy, pictures, asked, texts=""))
    says("cannot promise an error rate of 0.01: give 99 or more", asking(comfy, pictures, asked, alpha=0.01))
    few = {name: own[:1] for name, own in pictures.items()}
    says("3 images by 'final' are too few", asking(comfy, few, asked, texts="a"))
    says("8x8 pixels, which say nothing", asking(comfy, pictures, torch.zeros(1, 8, 8, 3)))
    says("or NaN", asking(comfy, pictures, torch.full((1, 64, 64, 3), float("nan"))))
    says("transparent parts", asking(comfy, pictures, torch.full((1, 64, 64, 4), 0.5)))
    twins = asking(comfy, pictures, asked)
    twins["early candidate"]["inputs"]["name"] = "final"
    says("two candidates are called 'final'", twins)
    alone = asking(comfy, pictures, asked)
    del alone["who"]["inputs"]["candidates.candidate1"]
    untested = comfy.run(alone)  # where the other's nodes are muted
    assert untested.ok and "not tested" in str(untested.outputs["who"])
    foreign = asking(comfy, pictures, asked) | {"other": node("TestModel", kind="sd3", weights=0)}
    foreign["final candidate"]["inputs"]["vae"] = ["other", 2]
    says("makes latents of 16 channels and the model reads 4", foreign)


def test_the_autoencoder_scales_latents_as_the_model_takes_them(comfy: Comfy):
    wrap = part(comfy, "guard.adapters.comfyui_autoencoder").ComfyAutoencoder
    model, _, vae = models.build("sd3")
    coder, images = wrap(vae, model), torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        plain = vae.encode(images.movedim(1, -1))
        latents = coder.encode_image(images)
        torch.testing.assert_close(latents, (plain - 0.0609) * 1.5305)  # SD3's scale and shift
        torch.testing.assert_close(coder.decode(latents), vae.decode(plain).movedim(-1, 1), rtol=1e-3, atol=1e-3)
    assert coder.factor == 8
    assert coder.autoencoder_identity == wrap(models.vae("sd3"), model).autoencoder_identity
    assert coder.autoencoder_identity != wrap(models.vae("sd3", 1), model).autoencoder_identity
    assert coder.autoencoder_identity != wrap(vae, models.model("flux")).autoencoder_identity  # another scale
    vae.first_stage_model = None
    with pytest.raises(Exception, match="this VAE is empty"):
        wrap(vae, model)
