"""Where a model computes and in what: the same two options on every command that loads one."""

import json

import pytest
import torch

from cryptomnesia.adapters import to_denoiser
from cryptomnesia.adapters.placement import place, stored_dtype
from cryptomnesia.commands import devices
from cryptomnesia.commands.devices import choose_device, choose_dtype
from cryptomnesia.commands.models import open_model
from cryptomnesia.errors import InputError, OutOfMemory

from ..helpers.commands import caller, one_line
from ..helpers.guarded import BENIGN
from ..helpers.pipelines import build

LOADING = {
    "check": ("a", "-m", "model"),
    "calibrate": ("-m", "model", "-p", "benign.txt"),
    "rewrite": ("a", "-m", "model"),
    "locate": ("-p", "a", "-m", "model", "-o", "out"),
    "signature": ("-m", "model", "-o", "x.signature.safetensors"),
    "identify": ("-m", "model", "-l", "library"),
    "attribute": ("image.png", "-m", "one=model"),
    "membership": ("-m", "model", "-s", "images", "-r", "more", "-o", "out"),
    "lineage": ("-t", "model", "--pool", "one=images", "-p", "a", "-o", "out"),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    place = tmp_path_factory.mktemp("devices")
    build("sd1").save_pretrained(place / "model")
    build("sd1").to(torch.float16).save_pretrained(place / "half")
    build("sd1").save_pretrained(place / "variant", variant="fp16")
    (place / "benign.txt").write_text("\n".join(BENIGN))
    return place


@pytest.fixture
def command(folder, monkeypatch, capsys):
    monkeypatch.chdir(folder)
    return caller(capsys)


@pytest.mark.parametrize("name", ["check", "calibrate", "rewrite", "locate"])
def test_a_device_that_is_not_there_costs_one_line(command, name):
    message = one_line(command(name, *LOADING[name], "--device", "cuda:7"))
    assert "there is no device cuda:7 here, only cpu" in message and "--device auto" in message
    assert "--dtype is one of auto, float32" in one_line(command(name, *LOADING[name], "--dtype", "int8"))


@pytest.mark.parametrize("name", [*LOADING, "audit prompts", "audit images"])
def test_every_command_that_loads_a_model_has_both(command, name):
    code, out, _ = command(*name.split(), "--help")
    words = " ".join(out.replace("│", " ").split())
    assert code == 0 and "--device" in words and "--dtype" in words


def test_auto_takes_the_first_accelerator_that_is_there(monkeypatch):
    assert choose_device("auto") == torch.device("cpu")
    monkeypatch.setattr(devices, "_has_mps", lambda: True)
    assert choose_device("auto") == choose_device("mps") == torch.device("mps")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert choose_device("auto") == choose_device("cuda") == torch.device("cuda:0")
    assert choose_device("cuda:1") == torch.device("cuda:1") and choose_device("cpu") == torch.device("cpu")
    for odd in ("cuda:2", "cuda:-1", "cuda:x", "CPU", "", "meta", "xpu", "cpu:0\x1b"):
        with pytest.raises(InputError, match="there is no device") as caught:
            choose_device(odd)
        assert "\x1b" not in str(caught.value)


def test_auto_keeps_half_on_a_gpu_and_takes_float32_on_a_cpu(folder):
    cpu, cuda = torch.device("cpu"), torch.device("cuda:0")
    half, plain = str(folder / "half"), str(folder / "model")
    assert (choose_dtype("auto", cpu, half), choose_dtype("auto", cuda, half)) == (torch.float32, torch.float16)
    assert choose_dtype("auto", cuda, plain) == torch.float32
    assert choose_dtype("bfloat16", cpu, plain) == torch.bfloat16
    assert choose_dtype("auto", cuda, "demo") == torch.float32  # as its calibration


def test_what_weights_are_stored_in(folder, tmp_path):
    from safetensors.torch import save_file

    assert stored_dtype(str(folder / "variant")) == "float32"
    weights = {f"model.diffusion_model.{i}": torch.zeros(2, dtype=torch.bfloat16) for i in range(3)}
    save_file(weights | {f"vae.{i}": torch.zeros(2) for i in range(9)}, tmp_path / "whole.safetensors")
    assert stored_dtype(str(tmp_path / "whole.safetensors")) == "bfloat16"
    save_file({"a": torch.zeros(2, dtype=torch.float8_e4m3fn)}, tmp_path / "eight.safetensors")
    assert stored_dtype(str(tmp_path / "eight.safetensors")) == "float32"


def test_the_same_model_in_another_dtype_is_told_apart(folder, capsys):
    plain = open_model(str(folder / "half"))
    assert plain.dtype == torch.float32 and {e.dtype for e in plain.text_encoders} == {torch.float32}
    assert capsys.readouterr().err == ""
    half = open_model(str(folder / "half"), "cpu", "float16")
    assert {half.dtype, half.pipe.vae.dtype, half.text_encoders[0].dtype} == {torch.float16}
    assert half.fingerprint != plain.fingerprint
    assert capsys.readouterr().err == "half computes on cpu in float16\n"
    reference = to_denoiser(build("sd1").to(torch.float16))
    assert half.fingerprint == reference.fingerprint


def test_what_cannot_do_with_float16_stays_in_float32():
    pipe = build("pixart-sigma")
    place(pipe, torch.device("cpu"), torch.float16)
    dtypes = {name.split(".")[-2]: weight.dtype for name, weight in pipe.text_encoder.named_parameters()}
    assert dtypes["wo"] == torch.float32 and dtypes["q"] == torch.float16
    assert pipe.transformer.dtype == torch.float16
    place(pipe, torch.device("cpu"), torch.bfloat16)
    assert {weight.dtype for weight in pipe.text_encoder.parameters()} == {torch.bfloat16}


def test_a_device_without_room_is_said_in_one_line(monkeypatch):
    pipe = build("sd1")

    def full(*arguments):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate")

    monkeypatch.setattr(type(pipe), "to", full)
    with pytest.raises(OutOfMemory, match="cpu has no memory for this model"):
        place(pipe, torch.device("cpu"), torch.float32)


def test_calibrated_in_half_and_checked_in_half(command):
    """What the command makes, the usual half-precision pipeline can use; and the cause is named where it cannot."""
    where = ("-m", "model", "--dtype", "bfloat16")
    code, out, err = command("calibrate", *where, "-p", "benign.txt", "--draws", 1, "--alpha", 0.02, "--json")
    assert code == 0 and "model computes on cpu in bfloat16" in err
    file = json.loads(out)["calibration"]
    code, out, err = command("check", *where, "a cat", "--json")
    (report,) = json.loads(out)["results"]
    assert (
        report["verdict"] in ("clear", "memorized")
        and report["draws"] == 1
        and code == (0, 3)[report["verdict"] != "clear"]
    )
    code, out, err = command("check", "-m", "model", "a cat", "--json")
    assert code == 5 and "another dtype: bfloat16, not float32; load the model in bfloat16 (--dtype bfloat16)" in err
    assert "another dtype: bfloat16, not float32" in one_line(command("check", "-m", "model", "a", "-c", file))


def test_onnx_files_take_neither_option(command, tmp_path):
    (tmp_path / "unet").mkdir()
    (tmp_path / "unet" / "model.onnx").write_bytes(b"")
    for option in (("--device", "cpu"), ("--dtype", "float32")):
        message = one_line(command("check", "a", "-m", tmp_path, *option))
        assert "holds ONNX files" in message and "leave out --device and --dtype" in message
