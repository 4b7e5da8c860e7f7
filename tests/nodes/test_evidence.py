"""Was it trained on these, and whose child is it: asked in the real ComfyUI."""

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from cryptomnesia import load_demo
from cryptomnesia.membership import CONFOUNDED, LIKELY, NO_EVIDENCE, Settings, membership_test
from cryptomnesia.sidecar import read_statement, sidecar_path, verify

from .evidence import COUNT, MODELS, folder, memorized, scenes
from .graphs import complaint, given, keep, ours, part, ran
from .harness import Comfy
from .results import Result, node
from .server import Server

TRAINED, TEXTS = memorized()
# the same images seen in a mirror: of the same kind, and not trained on
ABOUT = {"seen": TRAINED[:COUNT], "unseen": TRAINED[COUNT : 2 * COUNT].flip(2), "others": TRAINED[-COUNT:].flip(2)}


def asking(comfy: Comfy, suspects: Any, references: Any, **changes: Any) -> dict[str, Any]:
    """The question of membership, asked of the built-in model."""
    links = {"model": ["load", 0], "clip": ["load", 1], "vae": ["load", 2]}
    own = {"suspects": ["suspects", 0], "references": ["references", 0], "size": 64, "draws": 2}
    return {
        "load": node("CryptomnesiaLoadDemoModel", checkpoint="final"),
        "suspects": given(comfy, suspects),
        "references": given(comfy, references),
        "test": ours(comfy, "MembershipEvidence", **links | own | changes),
        "kept": keep("test"),
    }


def saved_with(comfy: Comfy, prompt: dict[str, Any], finding: list[Any]) -> tuple[Result, Path]:
    """A run that also saves a picture with the finding."""
    picture = node("EmptyImage", width=64, height=64, batch_size=2, color=0)
    links = {"images": ["picture", 0], "findings.finding0": finding}
    save = ours(comfy, "SaveImage", **links, filename_prefix="evidence/found")
    result = ran(comfy, prompt | {"picture": picture, "save": save})
    return result, Path(comfy.folder_paths.get_output_directory()) / result.outputs["save"][0].splitlines()[0]


def test_images_that_were_trained_on_are_likely_told(comfy: Comfy):
    prompt = asking(comfy, ABOUT["seen"], ABOUT["unseen"])
    result, image = saved_with(comfy, prompt, ["test", 3])
    plot, verdict, text, (finding,) = result.outputs["test"]
    assert verdict == LIKELY and plot.shape[0] == 1 and plot.shape[-1] == 3 and float(plot.std()) > 0.05
    assert text.startswith("Likely trained on some of these images.") and "no proof" in text
    (kept,) = read_statement(sidecar_path(image))["predicate"]["findings"]
    assert kept["suspects"] == kept["references"] == COUNT and kept["p_value"] == finding["p_value"]
    assert "statistics" not in sidecar_path(image).read_text()
    checked = verify(image)
    assert checked.matches and any("likely trained on some of a set of 12 images" in line for line in checked.lines)


def test_gradients_are_found_in_comfyuis_network(comfy: Comfy):
    prompt = asking(comfy, ABOUT["seen"], ABOUT["unseen"], features="gradients", draws=2)
    result = ran(comfy, prompt)
    _, verdict, _, (finding,) = result.outputs["test"]
    assert verdict == LIKELY and finding["settings"]["features"] == "gradients"


def test_other_sets_are_not(comfy: Comfy):
    assert ran(comfy, asking(comfy, ABOUT["others"], ABOUT["unseen"])).outputs["test"][1] == NO_EVIDENCE
    bright = ABOUT["seen"] * 0.5 + 0.5
    text = ran(comfy, asking(comfy, bright, ABOUT["unseen"])).outputs["test"]
    assert text[1] == CONFOUNDED and "not of one kind" in text[2]


def test_numbers_are_those_of_the_diffusers_pipeline(comfy: Comfy):
    found = ran(comfy, asking(comfy, ABOUT["seen"], ABOUT["unseen"])).outputs["test"][3][0]
    images = [list((ABOUT[name].numpy() * 255).round().astype(np.uint8)) for name in ("seen", "unseen")]
    expected = membership_test(load_demo(), *images, settings=Settings(draws=2)).to_dict()
    for side in ("suspects", "references"):
        values = [list(one[side]["statistics"].values()) for one in (found, expected)]
        np.testing.assert_allclose(*values, rtol=1e-3, atol=1e-3)
    assert found["settings"] == expected["settings"] and found["auc"] == pytest.approx(expected["auc"], abs=0.02)


def test_prompts_tell_more_and_numbers_are_remembered(comfy: Comfy, monkeypatch: pytest.MonkeyPatch):
    def asked(**changes: Any) -> dict[str, Any]:
        prompts = {"suspect_prompts": TEXTS[:COUNT], "reference_prompts": TEXTS[COUNT : 2 * COUNT]}
        lines = {name: "\n".join(some) for name, some in prompts.items()}
        return asking(comfy, ABOUT["seen"], ABOUT["unseen"], **lines | changes)

    told = ran(comfy, asked()).outputs["test"]
    assert told[1] == LIKELY and told[3][0]["auc"] == 1
    measured: list[int] = []
    denoiser = part(comfy, "guard.adapters.comfyui_images").ComfyImageDenoiser
    original = denoiser.encode_image
    monkeypatch.setattr(denoiser, "encode_image", lambda self, x: measured.append(len(x)) or original(self, x))
    again = ran(comfy, asked(alpha=0.01)).outputs["test"]
    assert not measured and again[3][0]["suspects"] == told[3][0]["suspects"] and again[3][0]["alpha"] == 0.01
    ran(comfy, asked(draws=1))
    assert sum(measured) == 2 * COUNT
    ran(comfy, asked(draws=1, vae=["other", 2]) | {"other": node("TestModel", kind="eps", weights=0)})
    assert sum(measured) == 4 * COUNT


def test_bad_sets_cost_one_line(comfy: Comfy, monkeypatch: pytest.MonkeyPatch):
    def says(words: str, suspects: Any = ABOUT["seen"], references: Any = ABOUT["unseen"], **changes: Any) -> None:
        assert words in complaint(comfy, asking(comfy, suspects, references, **changes))

    says("the suspects are 3 images, and less than 10", ABOUT["seen"][:3])
    says("12 pictures are in both sets", references=ABOUT["seen"])
    says("prompts were given for one of the two sets only", suspect_prompts="a prompt for all")
    says("2 prompts do not fit 12 images", suspect_prompts="a\nb", reference_prompts="c")
    says("height 70 is not a positive multiple of 4", size=70)
    says("the suspects are 0 images (12 left out, e.g. image 1", torch.full((12, 64, 64, 3), float("nan")))
    foreign = asking(comfy, ABOUT["seen"], ABOUT["unseen"], vae=["other", 2])
    foreign["other"] = node("TestModel", kind="sd3", weights=0)
    assert "makes latents of 16 channels and the model reads 4" in complaint(comfy, foreign)
    monkeypatch.setitem(sys.modules, "sklearn", None)
    says("pip install scikit-learn")


def tracing(comfy: Comfy, target: Any, pool: dict[str, Any] | None = None, **changes: Any) -> dict[str, Any]:
    """The question of lineage."""
    pool = {name: scenes(name, number) for number, name in enumerate(MODELS)} if pool is None else pool
    prompt = {"target": given(comfy, target)}
    for name, images in pool.items():
        prompt[f"{name} images"] = given(comfy, images)
        prompt[name] = ours(comfy, "LineagePoolModel", name=name, images=[f"{name} images", 0])
    links = {f"pool.model{number}": [name, 0] for number, name in enumerate(pool)}
    own = {"images": ["target", 0]}
    return prompt | {"whose": ours(comfy, "ModelLineage", **links | own | changes), "kept": keep("whose")}


def test_the_parent_is_told(comfy: Comfy):
    result, image = saved_with(comfy, tracing(comfy, scenes("green", 9)), ["whose", 3])
    plot, parent, text, (finding,) = result.outputs["whose"]
    assert parent == "green" == finding["decision"]
    assert plot.shape[0] == 1 and plot.shape[-1] == 3 and float(plot.std()) > 0.05
    lines = text.splitlines()
    assert (
        lines[0] == "If all show the same prompts: likely a child of green."
        and lines[1].endswith("  green")
        and "30 or more" in text
    )
    (kept,) = read_statement(sidecar_path(image))["predicate"]["findings"]
    assert kept["decision"] == "green" and kept["fewest"] == COUNT and kept["distances"] == finding["distances"]
    assert any("the parent of another one is likely green" in line for line in verify(image).lines)


def test_a_stranger_has_no_parent(comfy: Comfy):
    _, parent, text, _ = ran(comfy, tracing(comfy, scenes("a stranger", 9))).outputs["whose"]
    assert parent == "none of these" and "none of these" in text.splitlines()[0]


def test_prompts_vote(comfy: Comfy):
    def two(name: str, seed: int) -> torch.Tensor:
        return torch.cat([scenes(name, seed), scenes(name, seed + 1)])

    texts = "\n".join(["a figure"] * COUNT + ["a shape"] * COUNT)
    prompt = tracing(comfy, two("blue", 8), {name: two(name, 1) for name in MODELS}, prompts=texts)
    for name in MODELS:
        prompt[name]["inputs"]["prompts"] = texts
    _, parent, _, (finding,) = ran(comfy, prompt).outputs["whose"]
    assert parent == "blue" and finding["votes"] == {"blue": 2}
    assert [one["prompt"] for one in finding["prompts"]] == ["a figure", "a shape"]


def eyes(scale: float = 0.05) -> Any:
    """A tiny CLIP Vision model with random weights."""
    import comfy.clip_vision

    config = {"hidden_size": 32, "image_size": 64, "intermediate_size": 64, "num_attention_heads": 2, "patch_size": 8}
    config |= {"hidden_act": "quick_gelu", "num_channels": 3, "num_hidden_layers": 2, "projection_dim": 24}
    found = comfy.clip_vision.ClipVisionModel(config | {"model_type": "clip_vision_model"})
    generator = torch.Generator().manual_seed(0)
    for name, weight in found.model.named_parameters():
        norm = "norm" in name and name.endswith("weight")
        weight.data = torch.ones_like(weight) if norm else scale * torch.randn(weight.shape, generator=generator)
    return found


def test_clip_vision_can_look_instead(comfy: Comfy, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    prompt = tracing(comfy, scenes("red", 9), clip_vision=["eyes", 0]) | {"eyes": given(comfy, eyes())}
    found = ran(comfy, prompt).outputs["whose"]
    assert found[1] == "red" and found[3][0]["encoder"] == "the CLIP Vision model"
    encoder = part(comfy, "guard.adapters.comfyui_images").ComfyVisionEncoder
    images = scenes("red", 0, 20)
    rows = [image.movedim(-1, 0)[None] for image in images]
    with torch.inference_mode():
        expected = eyes().encode_image(images)["image_embeds"]
        np.testing.assert_allclose(encoder(eyes()).encode(rows), expected.numpy(), rtol=1e-4, atol=1e-4)
        with pytest.raises(Exception, match="the CLIP Vision model answered with NaN"):
            encoder(eyes(float("nan"))).encode(rows)


def test_bad_pools_cost_one_line(comfy: Comfy, monkeypatch: pytest.MonkeyPatch):
    target = scenes("red", 9)

    def says(words: str, prompt: dict[str, Any]) -> None:
        assert words in complaint(comfy, prompt)

    def renamed(name: str) -> dict[str, Any]:
        prompt = tracing(comfy, target)
        prompt["blue"]["inputs"]["name"] = name
        return prompt

    says("the target has 10 images, too few", tracing(comfy, scenes("red", 9, 10)))
    says("blue has 4 images, too few", tracing(comfy, target, {"red": target, "blue": scenes("blue", 1, 4)}))
    says("two models of the pool are called 'red'", renamed(" red "))
    says("a model of the pool cannot be called ''", renamed(" "))
    says("all models need images of the same prompts", tracing(comfy, target, prompts="a figure"))
    says("2 prompts do not fit 12 images", tracing(comfy, target, prompts="a\nb"))
    says("or NaN", tracing(comfy, torch.full((COUNT, 64, 64, 3), float("nan"))))
    with pytest.raises(Exception, match="there is no image by 'mine'"):
        part(comfy, "nodes.lineage_pool_model").LineagePoolModel.execute([" mine "], [])
    two = tracing(comfy, target, {name: scenes(name, 0) for name in ("red", "blue")})
    _, parent, text, _ = ran(comfy, two).outputs["whose"]
    assert parent == "not tested" and "give three or more" in text
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    says("pip install onnxruntime", tracing(comfy, target))


def test_comfyuis_own_loaders_of_folders_plug_in(server: Server):
    def loaded(name: str, images: torch.Tensor, texts: list[str]) -> dict[str, Any]:
        folder(server.base / "input" / name, images, texts)
        return node("LoadImageTextDataSetFromFolder", folder=name)

    links = {"model": ["load", 0], "clip": ["load", 1], "vae": ["load", 2], "size": 64, "draws": 2, "alpha": 0.05}
    for side in ("suspect", "reference"):
        links |= {f"{side}s": [side, 0], f"{side}_prompts": [side, 1]}
    pool = {f"pool.model{number}": [name, 0] for number, name in enumerate(MODELS)}
    prompt = {
        "load": node("CryptomnesiaLoadDemoModel", checkpoint="final"),
        "suspect": loaded("suspects", ABOUT["seen"], TEXTS[:COUNT]),
        "reference": loaded("references", ABOUT["unseen"], TEXTS[COUNT : 2 * COUNT]),
        "test": node("CryptomnesiaMembershipEvidence", **links, method="sima_mc"),
        "verdict": node("PreviewAny", source=["test", 1]),
        "target": loaded("target", scenes("red", 9), ["a figure"] * COUNT),
        "whose": node("CryptomnesiaModelLineage", images=["target", 0], prompts=["target", 1], **pool),
        "parent": node("PreviewAny", source=["whose", 1]),
    }
    for number, name in enumerate(MODELS):
        prompt[f"{name} images"] = loaded(name, scenes(name, number), ["a figure"] * COUNT)
        own = {"name": name, "images": [f"{name} images", 0], "prompts": [f"{name} images", 1]}
        prompt[name] = node("CryptomnesiaLineagePoolModel", **own)
    result = server.run(prompt)
    assert result.ok, result.error
    assert result.ui["verdict"]["text"] == [LIKELY] and result.ui["parent"]["text"] == ["red"]
