"""A model's folder never gets to run code of its own, whatever version of diffusers or transformers would let it."""

import importlib
import json
import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from diffusers import StableDiffusionPipeline
from safetensors.torch import save_file

from cryptomnesia.adapters.loading import load_pipeline
from cryptomnesia.adapters.model_folder import require_no_code
from cryptomnesia.adapters.onnx_loading import load_onnx
from cryptomnesia.errors import InputError

from ..helpers.pipelines import build, sample

UNET = "UNet2DConditionModel"


@pytest.fixture(scope="module")
def saved(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("saved") / "model"
    build("sd1").save_pretrained(folder)
    return folder


@pytest.fixture
def folder(saved, tmp_path, monkeypatch) -> Path:
    """A copy to turn against us; neither library may as much as look at it."""

    def look(*args, **kwargs):
        raise AssertionError("diffusers was given the folder")

    monkeypatch.setattr(StableDiffusionPipeline, "from_pretrained", look)
    monkeypatch.setattr(StableDiffusionPipeline, "from_single_file", look)
    return Path(shutil.copytree(saved, tmp_path / "model"))


@pytest.fixture
def mark(tmp_path, monkeypatch) -> Iterator[Path]:
    """What the code in `evil` leaves behind; the folder above is where a user might stand."""
    monkeypatch.setenv("MARK", str(tmp_path / "mark"))
    monkeypatch.chdir(tmp_path)
    yield tmp_path / "mark"
    for name in [name for name in sys.modules if "evil" in name]:
        del sys.modules[name]
    assert not (tmp_path / "mark").exists()


def evil(file: Path) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(
        "import os, pathlib\n"
        "pathlib.Path(os.environ['MARK']).touch()\n"
        "from diffusers import UNet2DConditionModel, StableDiffusionPipeline\n"
    )


def edit(file: Path, **changes: object) -> None:
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


def refused(path: Path, *words: str) -> None:
    with pytest.raises(InputError) as caught:
        load_pipeline(str(path))
    message = str(caught.value)
    assert message.isprintable() and all(word in message for word in words), message


def test_the_lower_bound_is_the_release_that_gates_local_folders_itself():
    # before 0.38 trust_remote_code was asked for by downloads only (CVE-2026-44513): a second lock behind ours
    assert '"diffusers>=0.38"' in (Path(__file__).parents[2] / "pyproject.toml").read_text()


def test_the_trap_works(tmp_path, monkeypatch):
    monkeypatch.setenv("MARK", str(tmp_path / "mark"))
    monkeypatch.syspath_prepend(str(tmp_path))
    evil(tmp_path / "evil_trap.py")
    importlib.import_module("evil_trap")
    assert (tmp_path / "mark").exists()


@pytest.mark.parametrize(
    "place", ["unet/evil_unet.py", "evil_unet.py", "../evil_unet.py", "unet/evil_unet/__init__.py"]
)
def test_a_part_from_the_folders_own_code(folder, mark, place):
    evil(folder / place)
    edit(folder / "model_index.json", unet=["evil_unet", UNET])
    refused(folder, "model_index.json takes its part unet", "diffusers and transformers", "load it in Python")


@pytest.mark.parametrize(
    "library",
    [
        *("Diffusers", "DIFFUSERS", "diffusers.evil", "diffusers.models", ".diffusers", "diffusers ", "Transformers"),
        *("os", "", "stable_diffusion", "stable_diffusion_xl", "pipelines", "../diffusers", "ｄiffusers", "optimum"),
        *("evil\u202eunet", "optimum.onnxruntime.modeling_diffusion", 1, True, ["diffusers"], {"a": "diffusers"}),
    ],
)
def test_a_part_from_anywhere_else(folder, mark, library):
    edit(folder / "model_index.json", unet=[library, UNET])
    refused(folder, "takes its part unet")


@pytest.mark.parametrize(
    "value",
    [
        *(["diffusers"], ["diffusers", UNET, "evil"], [], ["diffusers", None], ["diffusers", 1], ["diffusers", [UNET]]),
        *(
            "evil",
            "os",
            {"diffusers": UNET},
            ["diffusers", "models.evil"],
            ["diffusers", "AutoModel"],
            ["diffusers", ""],
        ),
        ["transformers", "AutoTokenizer"],
    ],
)
def test_a_part_of_another_form(folder, mark, value):
    edit(folder / "model_index.json", unet=value)
    refused(folder, "takes its part unet")


@pytest.mark.parametrize("name", ["../evil", "evil.unet", "", "un et", "a\nb"])
def test_a_part_whose_name_is_a_path(folder, mark, name):
    edit(folder / "model_index.json", **{name: ["diffusers", UNET]})
    refused(folder, "takes its part")


def test_every_part_is_looked_at(folder, mark):
    index = json.loads((folder / "model_index.json").read_text())
    for name in [name for name, value in index.items() if isinstance(value, list)]:
        edit(folder / "model_index.json", **{**index, name: ["evil_unet", "Evil"]})
        refused(folder, f"takes its part {name}")


@pytest.mark.parametrize("name", [["evil_unet", "StableDiffusionPipeline"], ["StableDiffusionPipeline"], "evil", {}])
def test_a_pipeline_of_its_own(folder, mark, name):
    evil(folder / "evil_unet.py")
    edit(folder / "model_index.json", _class_name=name)
    refused(folder, "not supported")


@pytest.mark.parametrize("place", ["None.py", "none.PY", "unet/diffusers.py", "unet/Diffusers.py", "tokenizer/x.pyc"])
def test_code_that_bears_a_name_which_loaders_look_for(folder, mark, place):
    evil(folder / place)
    refused(folder, place.split("/")[-1], "is code", "remove it")


def test_code_that_no_loader_looks_for_is_left_alone(folder):
    (folder / "handler.py").write_text("")
    require_no_code(folder, json.loads((folder / "model_index.json").read_text()))


@pytest.mark.parametrize(
    "asked",
    [
        {"auto_map": {"AutoModel": "evil_unet.Evil"}},
        {"auto_map": ["evil_unet.Evil", None]},
        {"Auto_Map": {"AutoModel": "evil_unet.Evil"}},
        {"trust_remote_code": True},
        {"text_config": {"inner": [{"trust_remote_code": 1}]}},
        {"custom_pipeline": "evil_unet"},
        {"custom_pipelines": {"task": {"impl": "evil_unet.Evil"}}},
        {"_module": "evil_unet"},
        {"_class_name": ["evil_unet", "Evil"]},
        {"_attn_implementation_internal": "evil/kernels"},
        {"attn_implementation": {"": "evil/kernels:run"}},
        {"_experts_implementation": ["evil"]},
    ],
)
@pytest.mark.parametrize(
    "config",
    [
        "unet/config.json",
        "text_encoder/config.json",
        "tokenizer/tokenizer_config.json",
        "scheduler/scheduler_config.json",
    ],
)
def test_a_config_that_asks_for_code(folder, mark, config, asked):
    evil(folder / "evil_unet.py")
    edit(folder / config, **asked)
    refused(folder, config, "asks for code")


@pytest.mark.parametrize("key", ["auto_map", "trust_remote_code", "custom_pipeline"])
def test_an_index_that_asks_for_code(folder, mark, key):
    edit(folder / "model_index.json", **{f"_{key}": {key: "evil_unet.Evil"}})
    refused(folder, "model_index.json asks for code")


def test_a_config_at_the_root_where_a_part_may_be_looked_for(folder, mark):
    (folder / "config.json").write_text(json.dumps({"auto_map": {"AutoModel": "evil_unet.Evil"}}))
    refused(folder, "config.json asks for code")


def test_a_lora_in_the_place_of_a_part(folder):
    (folder / "text_encoder" / "adapter_config.json").write_text('{"base_model_name_or_path": "evil/model"}')
    refused(folder, "adapter_config.json makes this a LoRA")


@pytest.mark.parametrize("config", ["model_index.json", "unet/config.json", "scheduler/scheduler_config.json"])
@pytest.mark.parametrize(
    "text",
    ['{"a": ' * 5000 + "1" + "}" * 5000, '{"a": NaN}', '{"a": 1, "a": 2}', "[1]", '"\\ud800"', "\x00", '{"a": 1e999}'],
)
def test_json_that_is_deep_or_strange(folder, config, text):
    (folder / config).write_text(text)
    refused(folder, config, "get the folder again")


@pytest.mark.parametrize("place", ["model_index.json", "unet/config.json", "unet/diffusion_pytorch_model.safetensors"])
def test_a_pipe_in_place_of_a_file(folder, place):
    (folder / place).unlink()
    os.mkfifo(folder / place)
    refused(folder, place, "no regular file")


@pytest.mark.parametrize("name", ["../../x.safetensors", "/etc/x", "..", "", "a/b.safetensors", "..\\x", "C:x"])
def test_shards_that_lie_elsewhere(folder, name):
    index = folder / "unet" / "diffusion_pytorch_model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"a": name}}))
    refused(folder, "names", "lies elsewhere")


def test_official_folders_are_loaded_and_their_safety_checker_is_not(saved, tmp_path):
    official = Path(shutil.copytree(saved, tmp_path / "official"))
    index = official / "model_index.json"
    edit(index, safety_checker=["stable_diffusion", "StableDiffusionSafetyChecker"], image_encoder=[None, None])
    edit(index, feature_extractor=[None, "CLIPImageProcessor"], requires_safety_checker=True)
    edit(official / "text_encoder" / "config.json", trust_remote_code=False, _attn_implementation="sdpa", auto_map=None)
    pipe = load_pipeline(str(official))
    assert pipe.safety_checker is None and torch.equal(sample(pipe), sample(build("sd1")))


# --- the other ways in ---


def test_the_configs_of_a_single_file(folder, mark):
    single = folder.with_suffix(".safetensors")
    save_file({"model.diffusion_model.x": torch.zeros(2)}, single)
    evil(folder / "unet" / "evil_unet.py")
    edit(folder / "model_index.json", unet=["evil_unet", UNET])
    refused(single, "takes its part unet")
    edit(folder / "model_index.json", unet=["diffusers", UNET])
    refused(single, "evil_unet.py is code")
    (folder / "unet" / "evil_unet.py").unlink()
    (folder / "unet" / "diffusion_pytorch_model.safetensors").rename(folder / "unet" / "pytorch_model.bin")
    refused(single, "only as pickles")


def test_a_folder_of_onnx_files(folder, mark):
    for part in ("unet", "text_encoder"):
        (folder / part / "model.onnx").touch()
    for file in (folder / "unet").glob("*.safetensors"):
        file.unlink()
    edit(folder / "model_index.json", unet=["diffusers", "OnnxRuntimeModel"])
    for wrong in (["evil_unet", "OnnxRuntimeModel"], ["diffusers.evil", "OnnxRuntimeModel"], ["diffusers"]):
        edit(folder / "model_index.json", unet=wrong)
        refused(folder, "takes its part unet")
    for right in (["diffusers", "OnnxRuntimeModel"], ["optimum.onnxruntime.modeling_diffusion", "ORTUnet"]):
        edit(folder / "model_index.json", unet=right)
        with pytest.raises(InputError, match="cannot be run by onnxruntime"):
            load_onnx(folder)
    edit(folder / "tokenizer" / "tokenizer_config.json", auto_map={"AutoTokenizer": "evil_unet.Evil"})
    refused(folder, "asks for code")


# --- paths ---


def test_a_folder_may_be_called_like_a_pickle(saved, tmp_path):
    assert load_pipeline(str(shutil.copytree(saved, tmp_path / "model.ckpt"))).unet is not None


@pytest.mark.parametrize("name", ["x" * 5000, "a\0b", "~nobody_of_that_name/model", "\ud800"])
def test_what_is_no_path(name):
    refused(name)


def test_a_pipe_in_place_of_a_model(tmp_path):
    os.mkfifo(tmp_path / "model.safetensors")
    refused(tmp_path / "model.safetensors", "no regular file")
