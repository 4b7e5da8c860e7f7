"""Real single files, loaded by diffusers itself: what they hold answers, or they are refused by name."""

import pytest
import torch
from diffusers import StableDiffusionPipeline
from safetensors.torch import load_file, save_file

from cryptomnesia import load_demo
from cryptomnesia.adapters import to_denoiser
from cryptomnesia.adapters.loading import load_pipeline
from cryptomnesia.errors import InputError

from ..helpers.pipelines import build, ddim, sample
from ..helpers.single_files import configs, scaled, write

UNET = "model.diffusion_model."
HARMLESS = (
    "model_ema.decay",
    "model_ema.diffusion_modelinput_blocks00weight",
    "betas",
    "alphas_cumprod",
    "alphas_cumprod_prev",
    "sqrt_alphas_cumprod",
    "sqrt_one_minus_alphas_cumprod",
    "sqrt_recipm1_alphas_cumprod",
    "log_one_minus_alphas_cumprod",
    "posterior_mean_coef1",
    "posterior_log_variance_clipped",
    "lvlb_weights",
    "logvar",
    "denoiser.sigmas",
    "first_stage_model.loss.discriminator.main.0.weight",
    "cond_stage_model.logit_scale",
    "cond_stage_model.transformer.text_model.embeddings.position_ids",
    "cond_stage_model.transformer.text_projection.weight",
    "lora_te_text_model_encoder_layers_0_mlp_fc1.lora_up.weight",
    "lora_unet_mid_block.alpha",
    UNET + "input_blocks.1.1.proj_in.lora_A.weight",
)
LOST = (
    UNET + "input_blocks.1.1.transformer_blocks.0.attn2.to_q.scale_weight",
    UNET + "input_blocks.1.1.transformer_blocks.0.attn2.to_q.weight_scale",
    UNET + "input_blocks.1.1.transformer_blocks.0.attn2.to_q.input_scale",
    UNET + "input_blocks.1.1.transformer_blocks.0.attn2.to_q.weight.absmax",
    UNET + "input_blocks.1.1.transformer_blocks.0.attn2.to_k_ip.weight",
    UNET + "input_blocks.99.0.weight",
    UNET + "scaled_fp8",
    "control_model.input_hint_block.0.weight",
    "edm_vpred.sigma_max",
    "v_pred",
    "ztsnr",
    "unheard.of",
)


def strange(name: str) -> torch.Tensor:
    if name.endswith(("scaled_fp8", "v_pred", "ztsnr")):
        return torch.zeros(0)
    return torch.linspace(0.3, 0.7, 12) if "scale" not in name else torch.tensor(0.37)


def refused(path: object, *words: str) -> None:
    with pytest.raises(InputError) as caught:
        load_pipeline(str(path))
    message = str(caught.value)
    assert message.isprintable() and all(word in message for word in words), message


@pytest.fixture(autouse=True)
def offline(monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


def test_the_built_in_model_as_a_single_file_is_the_built_in_model(tmp_path):
    loaded = load_pipeline(str(write(load_demo(), tmp_path / "demo.safetensors")))
    assert type(loaded) is StableDiffusionPipeline and loaded.safety_checker is None
    one, other = to_denoiser(loaded), to_denoiser(load_demo())
    assert one.fingerprint == other.fingerprint
    prompts = ["the restless beacon of grimsby", "a cat"]
    x = torch.randn(2, *one.latent_shape(), generator=torch.Generator().manual_seed(0))
    answers = [d.predict(x, d.levels.pure_noise, d.encode(prompts)).raw for d in (one, other)]
    torch.testing.assert_close(*answers, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_files_of_other_types_are_loaded(tmp_path, dtype):
    file = write(build("sd1"), tmp_path / "model.safetensors")
    save_file({name: value.to(dtype) for name, value in load_file(file).items()}, file)
    assert sample(load_pipeline(str(file)).to(torch.float32)).isfinite().all()


def test_what_plays_no_part_is_passed_over(tmp_path):
    file = write(build("sd1"), tmp_path / "model.safetensors", {name: torch.linspace(3, 4, 9) for name in HARMLESS})
    loaded = load_pipeline(str(file))
    assert torch.equal(sample(loaded), sample(build("sd1")))
    assert to_denoiser(loaded).fingerprint == to_denoiser(build("sd1")).fingerprint


@pytest.mark.parametrize("name", LOST)
def test_what_would_be_left_out_in_silence_is_refused_by_name(tmp_path, name):
    file = write(build("sd1"), tmp_path / "model.safetensors", {name: strange(name)})
    refused(file, "model.safetensors holds", name, "leave out in silence", "float16")


def test_scaled_weights_are_refused_and_not_read_without_their_scales(tmp_path):
    pipe, scales = scaled(build("sd1"))
    refused(write(pipe, tmp_path / "model.safetensors", scales), "scale", "more", "fp8")


def test_several_are_counted_and_strange_names_are_printable(tmp_path):
    names = [f"a{number}\x1b\u202e" for number in range(5)]
    file = write(build("sd1"), tmp_path / "model.safetensors", {name: torch.linspace(0.3, 0.7, 9) for name in names})
    refused(file, "a0, a1, a2 and 2 more")


def test_marks_of_a_v_prediction_are_heeded(tmp_path):
    marks = {"v_pred": torch.zeros(0)}
    told = build("sd2")
    told.scheduler = ddim(prediction_type="v_prediction")
    assert to_denoiser(load_pipeline(str(write(told, tmp_path / "v.safetensors", marks)))).prediction_type == "v"
    refused(write(build("sd1"), tmp_path / "eps.safetensors", marks), "v_pred")


@pytest.mark.parametrize("lost", [r"input_blocks\.1\.0", r"cond_stage_model", r"first_stage_model\.decoder"])
def test_a_file_that_lacks_a_part(tmp_path, lost):
    refused(write(build("sd1"), tmp_path / "model.safetensors", without=lost), "model.safetensors")


def test_a_file_of_nothing_but_lora_weights(tmp_path):
    file = tmp_path / "style.safetensors"
    names = ("lora_unet_mid.lora_up.weight", "lora_unet_mid.lora_down.weight", "lora_unet_mid.alpha", "x.dora_scale")
    save_file({name: torch.zeros(2, 2) for name in names}, file)
    configs(build("sd1"), file.with_suffix(""))
    refused(file, "is a LoRA")
