"""Adapters leave no trace, see every change of the pipe, and are found by the name of its class."""

import copy
import subprocess
import sys
from typing import Any

import pytest
import torch
from diffusers import (
    DDIMScheduler,
    EDMEulerScheduler,
    FlowMatchEulerDiscreteScheduler,
    LCMScheduler,
    StableDiffusionInpaintPipeline,
    StableDiffusionPipeline,
    TCDScheduler,
)

from cryptomnesia import adapters
from cryptomnesia.adapters import to_denoiser
from cryptomnesia.denoiser import CallableDenoiser
from cryptomnesia.errors import InputError

from ..helpers import gaussian
from ..helpers.pipelines import build, ddim, sample, stable_diffusion
from ..helpers.recording import every_family, network_of, noise


@every_family
def test_using_the_denoiser_leaves_no_trace(family):
    pipe, generator = build(family), torch.Generator().manual_seed(3)
    before = sample(pipe)
    scheduler = {name: copy.deepcopy(value) for name, value in vars(pipe.scheduler).items()}
    names, modes = sorted(vars(pipe)), [m.training for m in network_of(pipe).modules()]
    state, own = torch.get_rng_state(), generator.get_state()

    denoiser = to_denoiser(pipe)
    for levels in (denoiser.levels.sampling(5), [denoiser.levels.pure_noise]):
        denoiser.predict(noise(1), levels[0], denoiser.encode("a cat"))
    denoiser.encode_image(denoiser.decode(noise(1)))
    assert denoiser.fingerprint and not denoiser.truncated("a cat")

    assert torch.equal(torch.get_rng_state(), state) and torch.equal(generator.get_state(), own)
    assert torch.get_default_dtype() == torch.float32 and torch.is_grad_enabled()
    assert sorted(vars(pipe)) == names and [m.training for m in network_of(pipe).modules()] == modes
    assert vars(pipe.scheduler).keys() == scheduler.keys()
    for name, value in vars(pipe.scheduler).items():
        same = torch.equal(value, scheduler[name]) if isinstance(value, torch.Tensor) else None
        assert same or (same is None and str(value) == str(scheduler[name])), name
    assert torch.equal(sample(pipe), before)


@every_family
def test_gradients_reach_the_text(family):
    denoiser = to_denoiser(build(family))
    condition = denoiser.encode("a cat")
    condition.tensors["text"].requires_grad_()
    denoiser.predict(noise(1), denoiser.levels.fraction(0.5), condition, grad=True).noise.sum().backward()
    assert condition.tensors["text"].grad.abs().sum() > 0


@every_family
def test_fingerprints_follow_weights_and_adapters(family):
    pipe, twin, other = build(family), build(family), build(family, seed=1)
    denoiser = to_denoiser(pipe)
    first = denoiser.fingerprint
    assert first == to_denoiser(twin).fingerprint != to_denoiser(other).fingerprint
    sample(pipe)
    assert denoiser.fingerprint == first
    encoder = pipe.text_encoder
    with torch.no_grad():
        next(encoder.parameters()).add_(1)
    second = denoiser.fingerprint
    assert second != first
    # as peft's LoRA layers look
    layer = network_of(pipe).get_submodule("conv_in" if hasattr(pipe, "unet") else "proj_out")
    layer.scaling, layer.active_adapters = {"style": 1.0}, ["style"]
    third = denoiser.fingerprint
    layer.scaling["style"] = 0.5
    assert len({second, third, denoiser.fingerprint}) == 3


@every_family
def test_prompts_are_compared_with_the_empty_branch_unless_the_pipeline_tells_that_there_is_none(family):
    denoiser = to_denoiser(build(family))
    assert denoiser.reference == ("empty prompt" if "flux" in family else "empty branch")
    assert denoiser.takes_scale == (family == "flux-guided")
    before = denoiser.fingerprint
    denoiser.reference = "empty prompt"
    assert denoiser.reference == "empty prompt" and (denoiser.fingerprint == before) == ("flux" in family)
    if family != "flux-guided":
        with pytest.raises(InputError, match="no input of this network"):
            denoiser.reference = "guidance scales"


@pytest.mark.parametrize("weights", [None, 8])
def test_a_configuration_that_contradicts_the_weights_is_refused(weights):
    pipe = stable_diffusion(time_cond_proj_dim=weights)
    pipe.unet.register_to_config(time_cond_proj_dim=None if weights else 8)
    with pytest.raises(InputError, match="contradict each other"):
        _ = to_denoiser(pipe).reference


def test_schedulers_of_few_steps_and_a_pipeline_that_says_so_tell_of_a_distilled_network():
    pipe = build("sd1")
    for scheduler in (LCMScheduler, TCDScheduler):
        pipe.scheduler = scheduler.from_config(pipe.scheduler.config)
        assert to_denoiser(pipe).reference == "empty prompt"
        assert to_denoiser(pipe).levels.pure_noise.time.item() == 999
    pipe.scheduler = DDIMScheduler.from_config(pipe.scheduler.config)
    assert to_denoiser(pipe).reference == "empty branch"
    pipe.register_to_config(is_distilled=True)
    assert to_denoiser(pipe).reference == "empty prompt"


def test_v_prediction_and_later_changes_of_the_pipe_are_seen():
    pipe = build("sd1")
    denoiser = to_denoiser(pipe)
    assert denoiser.prediction_type == "epsilon" and denoiser.levels is denoiser.levels
    pipe.scheduler = ddim(prediction_type="v_prediction", num_train_timesteps=500)
    assert denoiser.prediction_type == "v" and denoiser.levels.alphas_cumprod.shape == (500,)
    pipe.unet = build("sd1", seed=1).unet
    assert denoiser.network is pipe.unet


def test_a_schedule_that_ends_without_signal_is_copied_not_changed():
    pipe = build("sd1")
    pipe.scheduler = DDIMScheduler.from_config(pipe.scheduler.config, rescale_betas_zero_snr=True)
    levels = to_denoiser(pipe).levels
    assert levels.timestep(999).alpha.item() < 1e-3 and levels.pure_noise.time.item() == 981
    pipe.scheduler.alphas_cumprod[0] = 0.5
    assert levels.timestep(0).alpha.item() ** 2 > 0.99


@pytest.mark.parametrize("scheduler", [EDMEulerScheduler(), FlowMatchEulerDiscreteScheduler()])
def test_schedulers_of_other_models_are_refused(scheduler):
    pipe = build("sd1")
    pipe.scheduler = scheduler
    with pytest.raises(InputError, match="alphas_cumprod"):
        _ = to_denoiser(pipe).levels


def test_an_unknown_prediction_type_is_refused():
    pipe = build("sd1")
    pipe.scheduler.register_to_config(prediction_type="score")
    with pytest.raises(InputError, match="score"):
        _ = to_denoiser(pipe).prediction_type


def test_a_compiled_network_is_the_same_model():
    pipe = build("sd1")
    first = to_denoiser(pipe).fingerprint
    pipe.unet = torch.compile(pipe.unet, backend="eager")  # compiled when first called, which it is not
    assert to_denoiser(pipe).fingerprint == first


def test_weights_that_are_elsewhere_have_no_fingerprint():
    pipe = build("sd1")
    pipe.unet.to("meta")
    with pytest.raises(InputError, match="enable_model_cpu_offload"):
        _ = to_denoiser(pipe).fingerprint


# --- dispatch ---


def test_a_denoiser_is_passed_through():
    denoiser = CallableDenoiser(
        lambda x, t, c: x.sin(), gaussian.ABAR, empty=torch.zeros(1, 1, 1), latent_shape=(4, 8, 8)
    )
    assert to_denoiser(denoiser) is denoiser


def test_a_subclass_is_known_by_its_base():
    class Mine(StableDiffusionPipeline):
        pass

    denoiser = to_denoiser(Mine(**build("sd1").components))
    assert denoiser.family == "stable-diffusion"


@pytest.mark.parametrize("unknown", [None, "a path", torch.nn.Identity()])
def test_unknown_objects_are_refused_with_what_is_supported(unknown):
    with pytest.raises(InputError, match=r"not supported.*StableDiffusionXLPipeline.*CallableDenoiser"):
        to_denoiser(unknown)


def test_inpainting_is_refused():
    pipe = StableDiffusionInpaintPipeline(**build("sd1").components, requires_safety_checker=False)
    with pytest.raises(InputError, match="StableDiffusionInpaintPipeline"):
        to_denoiser(pipe)


def test_the_registry_grows_and_stays_unchanged_when_registering_fails():
    before = adapters.supported()
    refused: Any = (("", to_denoiser), ("Mine", None), ("FluxPipeline", to_denoiser))
    for name, factory in refused:
        with pytest.raises(InputError):
            adapters.register(name, factory)
    assert adapters.supported() == before

    class Sine:
        pass

    made = CallableDenoiser(lambda x, t, c: x, gaussian.ABAR, empty=torch.zeros(1, 1, 1), latent_shape=(4, 8, 8))
    try:
        adapters.register("Sine", lambda pipe: made)
        assert to_denoiser(Sine()) is made
    finally:
        adapters._FACTORIES.pop("Sine", None)


def test_the_adapters_do_not_import_diffusers():
    code = "import cryptomnesia.adapters, sys; sys.exit('diffusers' in sys.modules or 'transformers' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
