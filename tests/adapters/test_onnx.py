"""Pipelines whose networks are ONNX files: the answers of torch, no gradients, one clear line for what is broken."""

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from cryptomnesia import Guard, load_demo
from cryptomnesia.adapters import to_denoiser
from cryptomnesia.adapters.loading import load_pipeline
from cryptomnesia.adapters.onnx_loading import load_onnx
from cryptomnesia.attribution.candidates import Candidate
from cryptomnesia.calibration import calibrate
from cryptomnesia.cli import run
from cryptomnesia.demo.captions import select
from cryptomnesia.errors import CalibrationError, InputError, MissingPackage, NonFiniteError, NotApplicable, OutOfMemory
from cryptomnesia.mitigation.initial_noise import optimise_noise
from cryptomnesia.signals.baselines import sharpness
from cryptomnesia.signals.curvature import curvature_map, score_difference_map
from cryptomnesia.signals.memorization import memorization_score
from cryptomnesia.signals.spectral import signature

from ..helpers.exported import answer_nan, answer_too_much, export, export_unet, move_outside, set_opset
from ..helpers.guarded import BENIGN
from ..helpers.pipelines import build, sample

CLOSE: dict[str, Any] = {"rtol": 1e-5, "atol": 2e-5}  # of values of size one to ten
PROMPTS = [c.text for c in select("general", "eval")[:3]]
TIMES = torch.tensor([981, 500, 41, 981, 1, 0])


@pytest.fixture(scope="module")
def demo(tmp_path_factory) -> Path:
    return export(load_demo(), tmp_path_factory.mktemp("onnx") / "demo")


@pytest.fixture(scope="module")
def pair(demo):
    """The built-in model in torch and in ONNX."""
    return to_denoiser(load_demo()), to_denoiser(load_pipeline(str(demo)))


@pytest.fixture(scope="module")
def small(tmp_path_factory) -> Path:
    return export(build("sd1"), tmp_path_factory.mktemp("onnx") / "small")


@pytest.fixture(scope="module")
def large(tmp_path_factory) -> Path:
    return export(build("sdxl"), tmp_path_factory.mktemp("onnx") / "sdxl")


@pytest.fixture
def folder(small, tmp_path) -> Path:
    """A copy to break."""
    return Path(shutil.copytree(small, tmp_path / "model"))


def six_rows(denoiser, condition):
    """One call with a timestep and a prompt of its own for each row."""
    shape = denoiser.latent_shape()
    x = torch.randn(len(TIMES), *shape, generator=torch.Generator().manual_seed(0))
    return denoiser.predict(x, denoiser.level(TIMES), condition[[0, 1] * 3]).raw


def refused(folder: Path, *words: str) -> None:
    """The error is one line and says these words."""
    with pytest.raises(InputError) as caught:
        load_pipeline(str(folder))
    message = str(caught.value)
    assert "\n" not in message and all(word in message for word in words), message


# --- the answers of torch ---


def test_everything_equals_torch_on_the_built_in_model(pair):
    torch_model, model = pair
    condition = model.encode(PROMPTS)
    torch.testing.assert_close(condition.tensors, torch_model.encode(PROMPTS).tensors, **CLOSE)
    torch.testing.assert_close(six_rows(model, condition), six_rows(torch_model, condition), **CLOSE)
    images = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    latents = model.encode_image(images)
    torch.testing.assert_close(latents, torch_model.encode_image(images), **CLOSE)
    torch.testing.assert_close(model.decode(latents), torch_model.decode(latents), **CLOSE)
    assert (model.prediction_type, model.latent_shape(32, 64)) == ("epsilon", (4, 8, 16))


def same_as_torch(folder: Path, family: str) -> None:
    """Conditions, predictions and sampled images of both."""
    pipe, loaded = build(family), load_onnx(folder)
    torch_model, model = to_denoiser(pipe), to_denoiser(loaded)
    assert (model.family, model.prediction_type) == (torch_model.family, torch_model.prediction_type)
    condition = model.encode(["a cat", "two dogs"])
    torch.testing.assert_close(six_rows(model, condition), six_rows(torch_model, condition), **CLOSE)
    torch.testing.assert_close(model.empty.tensors, torch_model.empty.tensors, **CLOSE)
    torch.testing.assert_close(sample(loaded), sample(pipe), **CLOSE)


def test_stable_diffusion_2_with_its_v_prediction_equals_torch(folder):
    build("sd2").scheduler.save_pretrained(folder / "scheduler")  # all else is as in build("sd1")
    same_as_torch(folder, "sd2")


def test_stable_diffusion_xl_equals_torch(large):
    same_as_torch(large, "sdxl")


def test_scores_signatures_and_maps_equal_torch(pair):
    scores = [memorization_score(d, d.encode(PROMPTS), draws=2) for d in pair]
    torch.testing.assert_close(scores[1].score, scores[0].score, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(scores[1].aniso, scores[0].aniso, rtol=1e-4, atol=1e-4)
    latents = torch.randn(1, 4, 16, 16, generator=torch.Generator().manual_seed(2))
    torch.testing.assert_close(*(signature(d, latents, plan="1step") for d in pair), **CLOSE)
    # a difference quotient with steps of 0.01 makes rounding a hundred times larger
    maps = [curvature_map(d, latents, d.level(41), d.encode(PROMPTS[0])) for d in pair]
    torch.testing.assert_close(maps[1], maps[0], rtol=5e-3, atol=5e-3 * maps[0].max().item())


@pytest.mark.parametrize("time", [torch.tensor(9), torch.tensor([9]), torch.tensor([9.0, 5.0])])
def test_timesteps_as_one_number_for_all_rows_or_as_floats(folder, time):
    export_unet(build("sd1"), folder / "unet", time)
    same_as_torch(folder, "sd1")


def test_float16_is_read_from_the_file_and_answered_in_float32(folder):
    pipe = build("sd1")
    pipe.unet.half()
    export_unet(pipe, folder / "unet")
    model, whole = to_denoiser(load_onnx(folder)), to_denoiser(build("sd1"))
    condition = model.encode(["a cat", "two dogs"])
    found = six_rows(model, condition)
    assert (model.dtype, found.dtype) == (torch.float16, torch.float32)
    torch.testing.assert_close(found, six_rows(whole, condition), rtol=0.02, atol=0.02)


# --- what is built on it ---


def test_a_guard_checks_and_watches_sampling(small):
    pipe = load_onnx(small)
    denoiser = to_denoiser(pipe)
    guard = Guard(pipe, calibrate(denoiser, denoiser.encode(BENIGN), draws=1))
    torch_report = Guard(build("sd1")).check("a cat")
    assert Guard(pipe).check("a cat").score == pytest.approx(torch_report.score, rel=1e-4)
    with guard.attached():
        guarded = pipe("a cat", num_inference_steps=2, generator=torch.Generator().manual_seed(0), output_type="pt")
    assert 0 < guarded.memorization[0].p_value <= 1
    assert torch.equal(guarded.images, sample(pipe))


def test_the_calibration_of_torch_weights_is_not_taken(small):
    denoiser = to_denoiser(build("sd1"))
    calibration = calibrate(denoiser, denoiser.encode(BENIGN), draws=1)
    with pytest.raises(CalibrationError, match="another model"):
        Guard(load_onnx(small), calibration).check("a cat", draws=1)


def test_the_fingerprint_is_that_of_all_bytes(folder, small):
    def identity(place):
        model = to_denoiser(load_onnx(place))
        return model.fingerprint, Candidate("a", model).autoencoder_key

    before = identity(small)
    assert identity(folder) == before
    move_outside(folder / "vae_decoder" / "model.onnx", "weights.pb")
    decoder = identity(folder)
    assert decoder[0] == before[0] and decoder[1] != before[1]
    outside = move_outside(folder / "unet" / "model.onnx", "weights.pb")
    changed = identity(folder)
    assert changed[0] != before[0]
    outside.write_bytes(outside.read_bytes()[:-4] + b"\0\0\0\1")
    assert identity(folder)[0] not in (before[0], changed[0])


def test_weights_outside_of_the_file_give_the_same_answers(folder, small):
    move_outside(folder / "unet" / "model.onnx", "model.onnx_data")
    one, other = (to_denoiser(load_onnx(place)) for place in (folder, small))
    condition = one.encode(["a cat", "two dogs"])
    assert torch.equal(six_rows(one, condition), six_rows(other, condition))


@pytest.fixture
def command(small, tmp_path, monkeypatch, capsys):
    """command(*arguments) -> exit code, stdout, stderr, in a folder with a list of benign prompts."""
    monkeypatch.chdir(tmp_path)
    Path("benign.txt").write_text("\n".join(BENIGN))

    def call(name, *arguments):
        capsys.readouterr()
        code = run([name, "--model", str(small), *map(str, arguments)])
        out, err = capsys.readouterr()
        return code, out, err

    return call


def test_the_commands_take_such_a_folder(command, demo):
    made = ("--out", "a.calibration.json")
    assert command("calibrate", "-p", "benign.txt", *made, "--draws", 1)[0] == 0
    known = ("-c", "a.calibration.json")
    code, out, _ = command("check", *known, "--json", "a cat")
    assert code == 0 and json.loads(out)["results"][0]["verdict"] == "clear"
    made = ("-n", 1, "--plan", "1step", "-o", "a.signature.safetensors")
    assert command("signature", "-p", "benign.txt", *made, "--model", demo)[0] == 0
    assert command("locate", *known, "-p", "a cat", "--steps", 3, "-o", "map")[0] == 0 and Path("map/map.npy").is_file()


def test_words_are_weighed_by_leaving_them_out(command):
    command("calibrate", "-p", "benign.txt", "--out", "a.calibration.json", "--draws", 1)
    code, out, err = command("rewrite", "-c", "a.calibration.json", "--always", "--json", "a cat")
    assert code in (0, 3) and not err
    about = json.loads(out)["prompts"][0]["mitigation"]
    assert about["original"] == "a cat" and about["backward_rows"] == 0


def test_significance_is_what_the_score_loses(pair):
    def score(condition, grad):
        assert not grad
        return condition.tensors["text"].square().sum((1, 2))

    model = pair[1]
    texts = model.encode(["red cat", "cat", "red"])
    values = score(texts, False)
    found = model.significance("red cat", [(0, 3), (4, 7)], score)
    assert found == pytest.approx((values[0] - values[1:]).clamp_min(0).tolist())


# --- what needs gradients ---


def test_signals_that_need_gradients_are_not_applicable(pair):
    model = pair[1]
    condition, x = model.encode("a cat"), torch.randn(1, 4, 16, 16)
    asked = [
        lambda: curvature_map(model, x, model.level(41), condition, estimator="backward"),
        lambda: curvature_map(model, x, model.level(41), condition, estimator="exact"),
        lambda: sharpness(model, condition, draws=1),
        lambda: optimise_noise(model, condition, x),
    ]
    for ask in asked:
        with pytest.raises(NotApplicable, match="has no gradients"):
            ask()
    assert score_difference_map(model, x, model.level(41), condition).shape == (1, 16, 16)


def test_an_embedding_cannot_be_moved_and_the_command_says_why(command):
    command("calibrate", "-p", "benign.txt", "--out", "a.calibration.json", "--draws", 1)
    code, _, err = command("rewrite", "-c", "a.calibration.json", "--always", "--method", "embed", "a cat")
    assert (code, err.count("\n")) == (5, 1) and "has no gradients" in err


# --- bad input ---


def test_missing_files_are_named(folder):
    (folder / "unet" / "model.onnx").unlink()
    shutil.rmtree(folder / "tokenizer")
    refused(folder, "lacks unet/model.onnx, tokenizer")


def test_a_missing_half_of_the_autoencoder_is_missed_when_it_is_needed(folder):
    shutil.rmtree(folder / "vae_encoder")
    model = to_denoiser(load_pipeline(str(folder)))
    assert model.decode(torch.randn(1, 4, 8, 8)).shape == (1, 3, 16, 16)
    with pytest.raises(NotApplicable, match=r"no vae_encoder/model\.onnx"):
        model.encode_image(torch.rand(1, 3, 16, 16))


@pytest.mark.parametrize(
    "content",
    [lambda b: b[: len(b) // 2], lambda b: b"", lambda b: b"garbage" * 99, lambda b: b"version https://git-lfs" * 3],
    ids=["truncated", "empty", "garbage", "pointer"],
)
def test_broken_files(folder, content):
    file = folder / "unet" / "model.onnx"
    file.write_bytes(content(file.read_bytes()))
    refused(folder, "unet/model.onnx cannot be run by onnxruntime", "get it again")


def test_weights_outside_of_the_file_that_are_missing_or_truncated(folder):
    outside = move_outside(folder / "unet" / "model.onnx", "weights.pb")
    outside.write_bytes(outside.read_bytes()[:100])
    refused(folder, "unet/model.onnx cannot be run", "with all files beside it")
    outside.unlink()
    refused(folder, "unet/model.onnx cannot be run", "with all files beside it")


def test_an_unknown_opset(folder):
    set_opset(folder / "unet" / "model.onnx", 999)
    refused(folder, "unet/model.onnx cannot be run", "an opset that this version knows")


def test_other_inputs(folder):
    answer_nan(folder / "unet" / "model.onnx", x=["b", 4, "h", "w"], sigma=["b"])
    refused(folder, "has the inputs x, sigma, not sample, timestep, encoder_hidden_states")


def test_a_fixed_number_of_rows(folder):
    shapes = {"sample": [2, 4, "h", "w"], "timestep": [2], "encoder_hidden_states": [2, "s", "c"]}
    answer_nan(folder / "unet" / "model.onnx", **shapes)
    refused(folder, "a fixed number of rows", "dynamic batch axis")


def test_nan_in_the_answer(folder):
    shapes = {"sample": ["b", 4, "h", "w"], "timestep": ["b"], "encoder_hidden_states": ["b", "s", "c"]}
    answer_nan(folder / "unet" / "model.onnx", **shapes)
    with pytest.raises(NonFiniteError, match="NaN or infinity"):
        Guard(load_pipeline(str(folder))).check("a cat")


def test_too_little_memory(folder):
    answer_too_much(folder / "unet" / "model.onnx", sample=["b", 1, "h", "w"], timestep=[], encoder_hidden_states=["b"])
    model = to_denoiser(load_pipeline(str(folder)))
    with pytest.raises(OutOfMemory, match="no memory for such a call"):
        model.predict(torch.zeros(1, 1, 1, 1), model.level(41), torch.zeros(1))


def test_a_size_that_it_was_not_exported_for(folder):
    shapes = {"sample": ["b", 4, 8, 8], "timestep": ["b"], "encoder_hidden_states": ["b", "s", "c"]}
    answer_nan(folder / "unet" / "model.onnx", **shapes)
    with pytest.raises(InputError, match=r"cannot take sample \(4, 4, 16, 16\)"):
        Guard(load_pipeline(str(folder))).check("a cat", height=32, width=32)


def test_a_text_encoder_without_the_hidden_states_that_xl_reads(large, tmp_path):
    folder = Path(shutil.copytree(large, tmp_path / "sdxl"))
    answer_nan(folder / "text_encoder" / "model.onnx", input_ids=["b", "s"])
    with pytest.raises(InputError, match="gives no hidden states"):
        to_denoiser(load_onnx(folder)).encode("a cat")


@pytest.mark.parametrize("name", ["ORTStableDiffusion3Pipeline", "OnnxStableDiffusionInpaintPipeline", None])
def test_other_pipelines(folder, name):
    (folder / "model_index.json").write_text(json.dumps({"_class_name": name}))
    refused(folder, "as ONNX, which is not supported", "torch weights")


def test_broken_configs(folder):
    (folder / "scheduler" / "scheduler_config.json").write_text(json.dumps({"_class_name": "NoSuchScheduler"}))
    refused(folder, "no scheduler 'NoSuchScheduler'")
    for name in ("tokenizer.json", "vocab.json"):
        (folder / "tokenizer" / name).unlink(missing_ok=True)
    refused(folder, "tokenizer/ lacks tokenizer.json or vocab.json")
    (folder / "unet" / "config.json").write_text("{")
    refused(folder, "unet/config.json is no config that can be read")


def test_folders_without_configs_are_taken_for_stable_diffusion_1(folder):
    for part in ("unet", "vae_encoder", "vae_decoder", "text_encoder"):
        (folder / part / "config.json").unlink()
    (folder / "model_index.json").write_text(json.dumps({"_class_name": "OnnxStableDiffusionPipeline"}))
    assert to_denoiser(load_pipeline(str(folder))).latent_shape() == (4, 64, 64)
    (folder / "model_index.json").write_text(json.dumps({"_class_name": "ORTStableDiffusionXLPipeline"}))
    shutil.copytree(folder / "text_encoder", folder / "text_encoder_2")
    shutil.copytree(folder / "tokenizer", folder / "tokenizer_2")
    refused(folder, "lacks unet/config.json")


def test_torch_weights_are_preferred(small, tmp_path):
    build("sd1").save_pretrained(tmp_path / "both")
    shutil.copy(small / "unet" / "model.onnx", tmp_path / "both" / "unet")
    assert to_denoiser(load_pipeline(str(tmp_path / "both"))).differentiable


def test_providers_are_those_that_are_installed(small):
    loaded = load_onnx(small, providers=["CPUExecutionProvider"])
    assert to_denoiser(loaded).encode("a cat").tensors["text"].isfinite().all()
    for wrong in (["NoSuchExecutionProvider"], []):
        with pytest.raises(InputError, match="onnxruntime has no provider"):
            load_onnx(small, providers=wrong)


def test_without_onnxruntime_it_says_what_to_install(small, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(MissingPackage, match=r"pip install onnxruntime, .*'cryptomnesia\[onnx\]'"):
        load_pipeline(str(small))
