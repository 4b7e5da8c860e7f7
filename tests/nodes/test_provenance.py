"""What a sidecar from a workflow says, and what Verify Provenance says of images that were changed since."""

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from cryptomnesia.sidecar import new_chain, read_statement, sidecar_path, text_sha256, verify

from .graphs import BENIGN, MEMORIZED, complaint, demo, given, keep, links, ours, part, ran, sampler, with_check
from .harness import Comfy
from .results import node

BIG = 2**64 - 1

pytestmark = pytest.mark.usefixtures("output")


def whole(comfy: Comfy, prompt: dict[str, Any], **changes) -> dict[str, Any]:
    """Sampling, decoding and saving, with the report of a check if the prompt has one."""
    report = {"report": ["check", 0]} if "check" in prompt else {}
    return {
        "sampler": sampler(seed=BIG),
        "decode": node("VAEDecode", samples=["sampler", 0], vae=["load", 2]),
        "save": ours(comfy, "SaveImage", images=["decode", 0], filename_prefix="made", **report | changes),
    } | prompt


def told(output: Path, name: str = "made_00001_.png") -> dict[str, Any]:
    return read_statement(sidecar_path(output / name))["predicate"]


def test_a_sidecar_tells_how_the_image_was_made(comfy: Comfy, output: Path):
    ran(comfy, whole(comfy, with_check(comfy, demo(BENIGN))))
    said = told(output)
    assert said["generator"]["host"].startswith("ComfyUI 0.")
    assert said["models"] == [{"role": "model", "name": "the built-in model (final)", "sha256": None}]
    settings = {"steps": 2, "cfg": 4.0, "sampler_name": "euler", "scheduler": "normal", "denoise": 1.0}
    assert said["sampling"] == settings and said["seed"] == str(BIG)
    assert said["prompt"] == {"mode": "plain", "original": BENIGN, "rewritten": None, "negative": ""}
    assert said["check"]["verdict"] == "clear" and 0.1 < said["check"]["p_value"] <= 1
    assert (said["check"]["alpha"], said["check"]["draws"], said["check"]["noise_seed"]) == (0.01, 4, "0")


def test_without_a_check_it_tells_the_rest(comfy: Comfy, output: Path):
    ran(comfy, whole(comfy, demo(BENIGN)))
    assert told(output)["check"] is None and told(output)["prompt"]["original"] == BENIGN


def test_a_rewritten_prompt_is_told_before_and_after(comfy: Comfy, output: Path):
    prompt = demo()
    inputs = {key: link for key, link in links(prompt).items() if key != "positive"}
    prompt["mend"] = ours(comfy, "RewritePrompt", **inputs, text=MEMORIZED)
    prompt["sampler"] = sampler(positive=["mend", 1])
    result = ran(comfy, whole(comfy, prompt, report=["mend", 3]))
    said = told(output)
    assert said["prompt"]["original"] == MEMORIZED and said["prompt"]["rewritten"] == result.outputs["mend"][0]
    assert said["check"]["verdict"] == "clear" and said["check"]["mitigation"]["held"]


@pytest.mark.parametrize("mode", ["hash", "none"])
def test_prompts_can_be_left_out(comfy: Comfy, output: Path, mode: str):
    ran(comfy, whole(comfy, with_check(comfy, demo()), prompts=mode))
    said = told(output)
    assert said["prompt"]["mode"] == mode
    assert said["prompt"]["original"] == (text_sha256(MEMORIZED) if mode == "hash" else None)
    assert MEMORIZED not in json.dumps(said) and said["check"]["verdict"] == "memorized"


def test_model_files_are_named_with_their_digests(comfy: Comfy, output: Path):
    data = b"not really a model"
    for folder, name in (("checkpoints", "sub/base.safetensors"), ("loras", "style.safetensors")):
        place = Path(comfy.folder_paths.get_folder_paths(folder)[0]) / name
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(data)
    digest = hashlib.sha256(data).hexdigest()
    # the loaders need not run for the workflow to tell of them
    made = part(comfy, "nodes.generation").generation(
        {
            "1": node("CheckpointLoaderSimple", ckpt_name="sub/base.safetensors"),
            "2": node("LoraLoader", model=["1", 0], clip=["1", 1], lora_name="style.safetensors", strength_model=0.5),
            "3": node("VAELoader", vae_name="gone.safetensors"),
            "4": node("KSampler", model=["2", 0], seed=1),
            "5": node("VAEDecode", samples=["4", 0], vae=["3", 0]),
            "6": node("CryptomnesiaSaveImage", images=["5", 0]),
        },
        "6",
    )
    assert sorted(made.models, key=lambda model: model["role"]) == [
        {"role": "lora", "name": "style.safetensors", "sha256": digest, "strength": 0.5},
        {"role": "model", "name": "sub/base.safetensors", "sha256": digest},
        {"role": "vae", "name": "gone.safetensors", "sha256": None},
    ]


def test_the_sampler_that_starts_from_noise_counts(comfy: Comfy):
    prompt = {
        "first": node("KSampler", seed=1, steps=30, cfg=7.0),
        "second": node("KSampler", seed=["number", 0], steps=["number", 0], latent_image=["first", 0]),
        "number": node("PrimitiveInt", value=12),
        "save": node("CryptomnesiaSaveImage", images=["second", 0]),
    }
    made = part(comfy, "nodes.generation").generation(prompt, "save")
    later = {"stage 2 steps": 12, "stage 2 seed": 12}
    assert (made.seed, made.sampling) == (1, {"steps": 30, "cfg": 7.0} | later)


@pytest.mark.parametrize("sampling", ["seed", "noise"])
def test_a_seed_that_only_the_run_knows_is_not_guessed(comfy: Comfy, output: Path, sampling: str):
    """The seed search names the first of its candidates, not the one it gives."""
    prompt = demo(BENIGN)
    prompt["noise"] = ours(comfy, "GuardedNoise", **links(prompt), noise_seed=5)
    prompt["noise"]["inputs"]["candidates"] = 2
    if sampling == "seed":
        prompt["sampler"] = sampler(seed=["noise", 1])
    else:
        chosen = {"sampler": node("KSamplerSelect", sampler_name="euler")}
        chosen["sigmas"] = node("BasicScheduler", model=["load", 0], scheduler="normal", steps=2, denoise=1.0)
        chosen["guider"] = node("BasicGuider", model=["load", 0], conditioning=["text", 0])
        inputs = {name: [name, 0] for name in ("noise", "guider", "sampler", "sigmas")}
        prompt |= {"sampled": node("SamplerCustomAdvanced", latent_image=["latent", 0], **inputs), **chosen}
        prompt["decode"] = node("VAEDecode", samples=["sampled", 0], vae=["load", 2])
    ran(comfy, whole(comfy, prompt))
    said = told(output)
    assert said["seed"] == "unknown" and said["sampling"]["steps"] == 2 and said["prompt"]["original"] == BENIGN


@pytest.mark.parametrize("seed", [0, BIG])
def test_a_seed_can_be_told(comfy: Comfy, output: Path, seed: int):
    prompt = demo(BENIGN) | {"used": given(comfy, seed)}
    prompt["sampler"] = sampler(seed=5)
    ran(comfy, whole(comfy, prompt, image_seed=["used", 0]))
    assert told(output)["seed"] == str(seed)


def test_the_seed_of_guarded_noise_is_told(comfy: Comfy, output: Path):
    prompt = demo(BENIGN)
    prompt["noise"] = ours(comfy, "GuardedNoise", **links(prompt) | {"candidates": 2}, noise_seed=5)
    prompt["sampler"] = sampler(seed=["noise", 1])
    result = ran(comfy, whole(comfy, prompt, image_seed=["noise", 1]))
    assert told(output)["seed"] == str(result.outputs["noise"][1])


def attribution(decision: str) -> dict[str, Any]:
    about = {"probabilities": {"a": 0.9, "none of these": 0.1}, "distances": {"a": 3.0}, "p_value": 0.5, "alpha": 0.05}
    return {"kind": "attribution", "decision": decision, "evidence": ["empty"], "fingerprints": {"a": "f"}} | about


def test_findings_go_to_their_images(comfy: Comfy, output: Path):
    prompt = {"images": given(comfy, torch.zeros(2, 8, 8, 3))}
    prompt["each"] = given(comfy, [attribution("a"), attribution("none of these")])
    prompt["all"] = given(comfy, [attribution("a")])
    prompt["latent"] = given(comfy, {"samples": torch.ones(1, 4, 16, 16)})
    prompt["load"] = demo()["load"]
    parts = {"model": ["load", 0], "clip": ["load", 1], "samples": ["latent", 0]}
    prompt["signature"] = ours(comfy, "SpectralSignature", **parts, name="mine", plan="1step")
    links = {f"findings.finding{i}": [name, 0] for i, name in enumerate(("each", "all", "signature"))}
    prompt["save"] = ours(comfy, "SaveImage", images=["images", 0], filename_prefix="made", **links)
    ran(comfy, prompt)
    for number, decision in ((1, "a"), (2, "none of these")):
        name = f"made_0000{number}_.png"
        own, every, signature = told(output, name)["findings"]
        assert (own["decision"], every["decision"], signature["name"]) == (decision, "a", "mine")
        assert verify(output / name).matches


def test_findings_about_other_images_are_refused_before_anything_is_saved(comfy: Comfy, output: Path):
    prompt = {"images": given(comfy, torch.zeros(3, 8, 8, 3)), "two": given(comfy, [attribution("a")] * 2)}
    prompt["save"] = ours(comfy, "SaveImage", images=["images", 0], **{"findings.finding0": ["two", 0]})
    assert "a finding about 2 images does not fit 3" in complaint(comfy, prompt)
    prompt["two"] = given(comfy, [{"kind": "rumour"}])
    assert "not 'rumour'" in complaint(comfy, prompt)
    assert len(list(output.iterdir())) == 3  # the images are kept


def test_only_what_leads_to_the_images_is_told(comfy: Comfy):
    """Candidates and checks have models, samplers and prompts of their own."""
    prompt = {
        "mine": node("CheckpointLoaderSimple", ckpt_name="mine.safetensors"),
        "words": node("CLIPTextEncode", clip=["mine", 1], text="my words"),
        "sampler": node("KSampler", model=["mine", 0], positive=["words", 0], seed=1, steps=20),
        "decode": node("VAEDecode", samples=["sampler", 0], vae=["mine", 2]),
        "other": node("CheckpointLoaderSimple", ckpt_name="other.safetensors"),
        "candidate": node("CryptomnesiaAttributionCandidate", model=["other", 0], seed=9, cfg=3.0, text="other words"),
        "who": node("CryptomnesiaAttributeImage", **{"candidates.candidate0": ["candidate", 0]}),
        "save": node("CryptomnesiaSaveImage", images=["decode", 0], **{"findings.finding0": ["who", 3]}),
    }
    made = part(comfy, "nodes.generation").generation(prompt, "save")
    assert [model["name"] for model in made.models] == ["mine.safetensors"]
    assert (made.seed, made.sampling, made.prompt) == (1, {"steps": 20}, "my words")


def verifying(comfy: Comfy, paths: Any, folder: str = "output") -> dict[str, Any]:
    return {"verify": ours(comfy, "VerifyProvenance", paths=paths, folder=folder), "kept": keep("verify")}


def saved(comfy: Comfy, count: int = 1) -> list[str]:
    images = torch.rand(count, 8, 8, 3, generator=torch.Generator().manual_seed(2))
    prompt = {"images": given(comfy, images)}
    prompt["save"] = ours(comfy, "SaveImage", images=["images", 0], filename_prefix="sub/made")
    return ran(comfy, prompt).outputs["save"][0].splitlines()


def verdict(comfy: Comfy, *names: str, folder: str = "output") -> tuple[bool, str]:
    result = ran(comfy, verifying(comfy, "\n".join(names), folder))
    intact, text = result.outputs["verify"]
    assert list(result.ui["verify"]["text"]) == [text]
    return intact, text


def test_images_just_saved_are_intact(comfy: Comfy, output: Path):
    names = saved(comfy, 3)
    intact, text = verdict(comfy, *names, "")
    assert intact and text.count("byte for byte") == 3 and all(f"{name}:" in text for name in names)


def test_saving_and_verifying_in_one_workflow(comfy: Comfy, output: Path):
    prompt = whole(comfy, demo(BENIGN)) | verifying(comfy, ["save", 0])
    assert ran(comfy, prompt).outputs["verify"][0] is True


def test_it_looks_again_each_time(comfy: Comfy, output: Path):
    (name,) = saved(comfy)
    assert verdict(comfy, name)[0]
    change(output / name)
    assert not verdict(comfy, name)[0]


def change(path: Path) -> None:
    with Image.open(path) as image:
        pixels = np.array(image)
    pixels[3, 4, 0] ^= 1
    Image.fromarray(pixels).save(path)


def test_one_changed_pixel_is_told(comfy: Comfy, output: Path):
    first, second = saved(comfy, 2)
    change(output / second)
    intact, text = verdict(comfy, first, second)
    assert not intact and "byte for byte" in text and "the image was changed" in text


def test_stripped_metadata_are_told_apart(comfy: Comfy, output: Path):
    (name,) = saved(comfy)
    with Image.open(output / name) as image:
        Image.fromarray(np.array(image)).save(output / name)
    intact, text = verdict(comfy, name)
    assert not intact and "The pixels are the same, the file is not" in text


def test_a_sidecar_of_another_image_is_told(comfy: Comfy, output: Path):
    first, second = saved(comfy, 2)
    shutil.copy(sidecar_path(output / first), sidecar_path(output / second))
    intact, text = verdict(comfy, second)
    assert not intact and "another image" in text and Path(first).name in text
    sidecar_path(output / second).unlink()
    intact, text = verdict(comfy, second)
    assert not intact and "no sidecar" in text
    sidecar_path(output / second).write_text("{")
    assert not verdict(comfy, second)[0]


@pytest.mark.parametrize("name", ["../input/x.png", "/etc/passwd", "a/../../x.png", "link/x.png", "a\0b"])
def test_only_comfyuis_folders_are_read(comfy: Comfy, output: Path, tmp_path: Path, name: str):
    (output / "link").symlink_to(tmp_path, target_is_directory=True)
    (tmp_path / "x.png").write_bytes(b"secret")
    line = complaint(comfy, verifying(comfy, name))
    assert "is not inside the output folder" in line and "secret" not in line


@pytest.mark.parametrize(
    ("name", "words"), [("gone.png", "there is no image"), (" \n", "no file was named"), (".", "file")]
)
def test_what_cannot_be_read_is_told(comfy: Comfy, output: Path, name: str, words: str):
    assert words in complaint(comfy, verifying(comfy, name))


def test_other_folders_can_be_chosen(comfy: Comfy, output: Path):
    (name,) = saved(comfy)
    place = Path(comfy.folder_paths.get_input_directory())
    for path in (output / name, sidecar_path(output / name)):
        shutil.copy(path, place)
    assert verdict(comfy, Path(name).name, folder="input")[0]


def test_signatures(comfy: Comfy, output: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    pytest.importorskip("c2pa")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    line = complaint(comfy, whole(comfy, demo(BENIGN), sign=True))
    assert "signature was not" in line and "cryptomnesia keys new" in line
    assert verify(output / "made_00001_.png").matches  # image and sidecar are there
    chain = new_chain(tmp_path / "keys")
    monkeypatch.setenv("CRYPTOMNESIA_C2PA_CERT", str(chain.certificate))
    monkeypatch.setenv("CRYPTOMNESIA_C2PA_KEY", str(chain.key))
    ran(comfy, whole(comfy, demo(BENIGN), sign=True))
    assert verify(output / "made_00002_.png", trust=[chain.root]).vouched
    assert verdict(comfy, "made_00002_.png")[0]
