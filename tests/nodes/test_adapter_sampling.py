"""Models whose sampling was patched: another model, and the same one before and after ComfyUI has loaded it."""

import pytest
import torch

from cryptomnesia.adapters.comfyui import ComfyDenoiser

from . import models

pytestmark = pytest.mark.usefixtures("comfy")
SAMPLINGS = {
    "eps": lambda sampling, model: sampling.ModelSamplingDiscrete().patch(model, "v_prediction", False)[0],
    "sd3": lambda sampling, model: sampling.ModelSamplingSD3().patch(model, 5.0)[0],
    "flux": lambda sampling, model: sampling.ModelSamplingFlux().patch(model, 1.3, 0.6, 512, 512)[0],
}


@pytest.mark.parametrize("kind", SAMPLINGS)
def test_a_patched_model_is_the_same_before_and_after_it_is_loaded(kind: str):
    """Loading puts the patch in the place of what the model had."""
    import comfy_extras.nodes_model_advanced as sampling

    own = models.model(kind)
    patched = SAMPLINGS[kind](sampling, own)
    before, plain = ComfyDenoiser(patched).fingerprint, ComfyDenoiser(own).fingerprint
    assert before != plain
    denoiser = ComfyDenoiser(patched)
    denoiser.predict(
        torch.zeros(1, *denoiser.latent_shape(64, 64)),
        denoiser.levels.pure_noise,
        denoiser.read(models.conditioning(kind)),
    )
    assert own.model.model_sampling is patched.object_patches["model_sampling"]  # loaded
    assert ComfyDenoiser(patched).fingerprint == before
    assert ComfyDenoiser(patched.clone()).fingerprint == before  # as a LoRA's loader would hand it on
    assert ComfyDenoiser(own).fingerprint == plain
    other = SAMPLINGS[kind](sampling, models.model(kind))
    assert ComfyDenoiser(other).fingerprint == before
