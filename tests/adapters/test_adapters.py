"""Each pipeline family: what its own pipeline feeds the network, we feed; what its network means, we understand."""

import copy
import logging

import pytest
import torch
from diffusers import EulerDiscreteScheduler

from cryptomnesia.adapters import to_denoiser
from cryptomnesia.errors import NotApplicable

from ..helpers.pipelines import FLOWS, build, stable_diffusion
from ..helpers.recording import (
    CLOSE,
    Recorder,
    every_family,
    noise,
    own_time,
    record,
)

# --- against the real pipelines ---


@every_family
def test_levels_are_what_the_scheduler_mixes(family):
    pipe = build(family)
    theirs, denoiser, (x0, eps) = record(pipe), to_denoiser(pipe), noise(2).chunk(2)
    scheduler = copy.deepcopy(pipe.scheduler)
    scheduler._begin_index = None  # else it takes every t for the first
    for fed, t in zip(theirs.fed, scheduler.timesteps, strict=True):
        level = denoiser.level(own_time(fed, family)[:1] if family in FLOWS else fed["timestep"].reshape(-1)[:1])
        if family in FLOWS:
            mixed = scheduler.scale_noise(x0, t.reshape(1), eps)
        else:
            mixed = scheduler.add_noise(x0, eps, t.reshape(1))
        torch.testing.assert_close(level.alpha * x0 + level.sigma * eps, mixed, **CLOSE)


def test_a_scheduler_that_rescales_its_latents_feeds_ours():
    pipe = build("sd1")
    pipe.scheduler = EulerDiscreteScheduler.from_config(pipe.scheduler.config, timestep_spacing="leading")
    denoiser, (x0, eps) = to_denoiser(pipe), noise(2).chunk(2)
    scheduler = copy.deepcopy(pipe.scheduler)
    scheduler.set_timesteps(50)
    for t in scheduler.timesteps[::10]:
        level = denoiser.level(t)
        mixed = scheduler.scale_model_input(scheduler.add_noise(x0, eps, t.reshape(1)), t)
        torch.testing.assert_close(level.alpha * x0 + level.sigma * eps, mixed, **CLOSE)
        scheduler._step_index = None


def test_fifty_steps_start_where_the_pipeline_starts():
    pipe = build("sd1")
    pipe.scheduler.set_timesteps(50)
    assert [level.time.item() for level in to_denoiser(pipe).levels.sampling(50)] == pipe.scheduler.timesteps.tolist()


def test_flux_times_are_shifted_by_the_number_of_patches():
    pipe = build("flux-guided")
    theirs = record(pipe, steps=4)
    found = torch.cat([level.time for level in to_denoiser(pipe).levels.sampling(4)])
    torch.testing.assert_close(found, torch.cat([fed["timestep"] for fed in theirs.fed]), **CLOSE)


# --- rows and special networks ---


def test_a_network_that_is_told_its_guidance_is_told_what_the_pipeline_tells_it():
    with torch.random.fork_rng(devices=[]):
        pipe = stable_diffusion(time_cond_proj_dim=8)
    pipe.set_progress_bar_config(disable=True)
    theirs, denoiser = record(pipe), to_denoiser(pipe)
    assert denoiser.takes_scale and denoiser.reference == "empty prompt"
    fed = theirs.fed[0]
    with Recorder(pipe.unet) as ours:
        denoiser.predict(fed["sample"], denoiser.level(fed["timestep"]), denoiser.encode("a cat"))
    torch.testing.assert_close(ours.fed[0]["timestep_cond"], fed["timestep_cond"])


def test_an_image_prompt_is_not_applicable():
    pipe = build("sd1")
    pipe.unet.register_to_config(encoder_hid_dim_type="ip_image_proj")
    denoiser = to_denoiser(pipe)
    with pytest.raises(NotApplicable, match="IP-Adapter"):
        denoiser.predict(noise(1), denoiser.level(41), denoiser.empty)


def test_reading_long_prompts_makes_no_noise_and_changes_no_verbosity():
    from diffusers.utils import logging as diffusers_logging
    from transformers.utils import logging as transformers_logging

    class Heard(logging.Handler):
        def __init__(self):
            super().__init__(logging.WARNING)
            self.messages: list[str] = []

        def emit(self, record):
            self.messages.append(record.getMessage())

    loggings, heard = (diffusers_logging, transformers_logging), Heard()
    found = [one.get_verbosity() for one in loggings]
    for one in loggings:  # whatever other tests have silenced
        one.set_verbosity_warning()
    before = [(one.get_verbosity(), one.is_progress_bar_enabled()) for one in loggings]
    denoiser = to_denoiser(build("sd1"))
    for name in ("diffusers", "transformers"):
        logging.getLogger(name).addHandler(heard)
    try:
        assert denoiser.truncated("a cat and a dog " * 30)
        denoiser.encode(["a cat and a dog " * 30])
        denoiser.pipe("a cat and a dog " * 30, num_inference_steps=1, height=16, width=16, output_type="latent")
    finally:
        for name in ("diffusers", "transformers"):
            logging.getLogger(name).removeHandler(heard)
        after = [(one.get_verbosity(), one.is_progress_bar_enabled()) for one in loggings]
        for one, verbosity in zip(loggings, found, strict=True):
            one.set_verbosity(verbosity)
    assert after == before
    truncations = [message for message in heard.messages if "truncated" in message or "sequence length" in message]
    assert len(truncations) == 1  # of the pipeline's own call alone
