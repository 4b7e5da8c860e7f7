"""Loading from disk: what works, and one clear line for what does not. The network is never touched."""

import json
import shutil
import socket
from pathlib import Path

import pytest
import torch
from diffusers import StableDiffusionPipeline
from safetensors.torch import load_file, save_file

from cryptomnesia.adapters import to_denoiser
from cryptomnesia.adapters.loading import load_pipeline
from cryptomnesia.adapters.weight_files import checked
from cryptomnesia.commands.models import open_pipeline
from cryptomnesia.errors import InputError

from ..helpers.pipelines import build, sample


@pytest.fixture(scope="module")
def saved(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("saved") / "model"
    build("sd1").save_pretrained(folder)
    return folder


@pytest.fixture
def folder(saved, tmp_path) -> Path:
    """A copy to break."""
    return Path(shutil.copytree(saved, tmp_path / "model"))


@pytest.fixture(autouse=True)
def offline(monkeypatch, tmp_path):
    """Fails on any connection, and hides the user's own cache."""

    def refuse(*args, **kwargs):
        raise AssertionError("the network was touched")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))


def refused(path: object, *words: str) -> None:
    """The error is one line and says these words."""
    with pytest.raises(InputError) as caught:
        load_pipeline(str(path))
    message = str(caught.value)
    assert "\n" not in message and all(word in message for word in words), message


def weights(folder: Path) -> Path:
    return folder / "unet" / "diffusion_pytorch_model.safetensors"


def edit_index(folder: Path, **changes: object) -> None:
    file = folder / "model_index.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


# --- folders ---


def test_a_folder_is_loaded_as_it_was_saved(saved):
    pipe = load_pipeline(str(saved))
    assert type(pipe) is StableDiffusionPipeline
    assert torch.equal(sample(pipe), sample(build("sd1")))
    assert to_denoiser(pipe).fingerprint == to_denoiser(build("sd1")).fingerprint


def test_a_folder_with_flow_and_t5_is_loaded(tmp_path):
    build("flux").save_pretrained(tmp_path / "flux")
    loaded = load_pipeline(str(tmp_path / "flux"))
    torch.testing.assert_close(sample(loaded), sample(build("flux")), rtol=1e-3, atol=1e-3)


def test_a_folder_of_a_variant_is_loaded(tmp_path):
    build("sd1").save_pretrained(tmp_path / "half", variant="fp16")
    assert torch.equal(sample(load_pipeline(str(tmp_path / "half"))), sample(build("sd1")))


@pytest.mark.parametrize("stray", ["ema", "non_ema", "aaa"])
def test_a_file_of_another_variant_beside_all_of_one_is_passed_over(folder, stray):
    for file in folder.glob("*/*.safetensors"):
        file.rename(file.with_suffix(".fp16.safetensors"))
    (folder / "unet" / f"diffusion_pytorch_model.{stray}.safetensors").write_bytes(b"not even complete")
    assert torch.equal(sample(load_pipeline(str(folder))), sample(build("sd1")))


def test_parts_that_share_no_variant_are_named(folder):
    for file in folder.glob("*/*.safetensors"):
        file.rename(file.with_suffix(".bf16.safetensors" if file.parent.name == "vae" else ".fp16.safetensors"))
    refused(folder, "no variant in which all parts are there", "unet in fp16", "vae in bf16")


def test_parts_without_a_variant_beside_parts_with_one(folder):
    weights(folder).rename(weights(folder).with_suffix(".fp16.safetensors"))
    assert torch.equal(sample(load_pipeline(str(folder))), sample(build("sd1")))


def test_a_safety_checker_that_is_named_is_not_loaded(folder):
    edit_index(folder, safety_checker=["stable_diffusion", "StableDiffusionSafetyChecker"])
    assert load_pipeline(str(folder)).safety_checker is None


def test_the_built_in_model_is_asked_for_by_name(monkeypatch):
    monkeypatch.setattr("cryptomnesia.demo.load_demo", lambda: "the demo", raising=False)
    assert open_pipeline("demo") == "the demo"


def test_a_missing_path(tmp_path):
    refused(tmp_path / "nothing", "does not exist", "nothing is downloaded")
    refused("stable-diffusion-v1-5/stable-diffusion-v1-5", "does not exist")


@pytest.mark.parametrize("suffix", [".ckpt", ".pt", ".bin", ".pth", ".CKPT"])
def test_pickles(tmp_path, suffix):
    file = tmp_path / f"model{suffix}"
    file.write_bytes(b"\x80\x04")
    refused(file, "is a pickle", ".safetensors")


def test_other_files(tmp_path):
    (tmp_path / "notes.txt").write_text("hello")
    refused(tmp_path / "notes.txt", "not a .safetensors file")


def test_a_folder_that_is_no_pipeline_is_told_what_it_lacks(tmp_path, folder):
    refused(tmp_path / "..", "lacks model_index.json, unet/ or transformer/, vae/, scheduler/")
    (folder / "model_index.json").unlink()
    refused(folder, "lacks model_index.json;")


@pytest.mark.parametrize("text", ["{", "[]", ""])
def test_an_index_that_is_no_object(folder, text):
    (folder / "model_index.json").write_text(text)
    refused(folder, "model_index.json", "get the folder again")


@pytest.mark.parametrize("name", ["StableDiffusionInpaintPipeline", "NoSuchPipeline", ["code", "Mine"], None, "torch"])
def test_unsupported_pipelines(folder, name):
    edit_index(folder, _class_name=name)
    refused(folder, "not supported", "StableDiffusionPipeline")


def test_missing_parts(folder):
    shutil.rmtree(folder / "vae")
    shutil.rmtree(folder / "tokenizer")
    refused(folder, "lacks", "vae/", "tokenizer/")


def test_a_tokenizer_without_its_words(folder):
    for file in (folder / "tokenizer").iterdir():
        file.unlink()
    refused(folder, "tokenizer", "vocabulary", "get the folder again")


def test_missing_weights(folder):
    weights(folder).unlink()
    refused(folder, "unet", "lacks its weights")


def test_weights_as_pickles_only(folder):
    torch.save(load_file(weights(folder)), weights(folder).with_suffix(".bin"))
    weights(folder).unlink()
    refused(folder, "unet", "only as pickles")


def test_missing_shards(folder):
    index = weights(folder).with_name("diffusion_pytorch_model.safetensors.index.json")
    index.write_text(json.dumps({"weight_map": {"a": "model-00002-of-00002.safetensors"}}))
    refused(folder, "lacks model-00002-of-00002.safetensors")
    index.write_text("{}")
    refused(folder, "index.json cannot be read")


@pytest.mark.parametrize(
    ("content", "word"),
    [
        (lambda whole: whole[: len(whole) // 2], "no complete safetensors file"),
        (lambda whole: whole[:100], "no complete safetensors file"),
        (lambda whole: b"", "no complete safetensors file"),
        (lambda whole: b"garbage" * 100, "no complete safetensors file"),
        (lambda whole: b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n", "Git LFS pointer"),
    ],
)
def test_broken_weights_are_named(folder, tmp_path, content, word):
    broken = content(weights(folder).read_bytes())
    weights(folder).write_bytes(broken)
    refused(folder, str(weights(folder)), word)
    single = tmp_path / "model.safetensors"
    single.write_bytes(broken)
    refused(single, "model.safetensors", word)


def test_weights_of_another_shape(folder):
    tensors = load_file(weights(folder))
    tensors["conv_in.weight"] = torch.zeros(3, 3)
    save_file(tensors, weights(folder))
    refused(folder, "cannot be loaded")


def test_weights_that_lack_a_layer(folder):
    tensors = load_file(weights(folder))
    del tensors["conv_in.weight"]
    save_file(tensors, weights(folder))
    refused(folder, "model")


def test_broken_configs(folder):
    (folder / "unet" / "config.json").write_text("{")
    refused(folder, "unet/config.json", "no config that can be read")


# --- single files ---


def test_a_single_file_of_no_known_model(tmp_path):
    save_file({}, tmp_path / "empty.safetensors")
    refused(tmp_path / "empty.safetensors", "holds no weights")


def test_a_lora_is_no_model(tmp_path):
    save_file({"unet.conv_in.lora_A.weight": torch.zeros(2, 2)}, tmp_path / "style.safetensors")
    refused(tmp_path / "style.safetensors", "is a LoRA")


def test_a_single_file_without_configs_says_what_is_missing(tmp_path):
    # names and shapes by which Stable Diffusion 1 is told
    name = "model.diffusion_model.input_blocks.2.1.transformer_blocks.0.attn2.to_k.weight"
    save_file({name: torch.zeros(320, 768)}, tmp_path / "model.safetensors")
    refused(tmp_path / "model.safetensors", "no configs", "model_index.json", str(tmp_path / "model") + "/")


def test_a_single_file_that_holds_a_part_only(saved, tmp_path):
    save_file({"weight": torch.zeros(2, 2)}, tmp_path / "model.safetensors")
    shutil.copytree(saved, tmp_path / "model")
    refused(tmp_path / "model.safetensors", "cannot be loaded as a StableDiffusionPipeline")


def test_a_network_without_weights_is_refused():
    pipe = build("sd1")
    pipe.unet = pipe.unet.to("meta")
    with pytest.raises(InputError, match="lacks some weights of its unet"):
        checked(pipe, Path("model"))
