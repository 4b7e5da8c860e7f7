"""A guidance changes the images of every family, by whichever place samples them."""

import inspect
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from cryptomnesia.adapters import to_denoiser
from cryptomnesia.adapters.guidance import guidance_arguments, guidance_name, own_guidance
from cryptomnesia.commands.sampling import Sampler
from cryptomnesia.errors import InputError
from cryptomnesia.lineage import Recipe, generate
from cryptomnesia.localization.trajectory import Sampling

from ..helpers import pipelines

FAMILIES = sorted(pipelines.FAMILIES)
SMALL: dict[str, Any] = {"height": 16, "width": 16}


def parameters(pipe):
    return inspect.signature(type(pipe).__call__).parameters


def told_apart(images) -> bool:
    first, *others = (np.asarray(image) for image in images)
    return all(not np.array_equal(first, other) for other in others)


@pytest.fixture(params=FAMILIES)
def pipe(request):
    built = pipelines.build(request.param)
    # the networks are so small that guidance moves images by less than a shade
    network = getattr(built, "unet", None) or built.transformer
    with torch.no_grad():
        for name, weight in network.named_parameters():
            if "guidance" in name or "context" in name or "attn2" in name or "caption" in name:
                weight.mul_(4)
    return built


def test_lineage(pipe, tmp_path):
    made = []
    for number, guidance in enumerate((1.0, 4.0, 9.0)):
        recipe = Recipe("a cat", "model", steps=2, guidance=guidance, **SMALL)
        files = generate(pipe, recipe, tmp_path / str(number), count=2, per_call=2)
        made.append([np.asarray(Image.open(file)) for file in files])
    assert told_apart(made)


def test_sampler_and_trajectory(pipe):
    denoiser = to_denoiser(pipe)
    shape = denoiser.latent_shape(16, 16)
    made = [
        Sampler(denoiser, shape, count=1, seed=3, steps=2, guidance=guidance).before("a cat").images
        for guidance in (1.0, 9.0)
    ]
    assert told_apart(made)
    sampling = [Sampling(denoiser, seed=3, steps=2, guidance=g, shape=shape) for g in (1.0, 9.0)]
    if denoiser.family == "flux":  # whose calls cannot be read while it samples
        wanted = guidance_arguments(pipe, parameters(pipe), 9.0, prompts=1)
        assert wanted.items() <= sampling[1].maker.arguments(1).items()
        return
    watched = [one.run("a cat") for one in sampling]
    assert told_apart([image for image, _ in watched])
    for name, kept in watched[1][1].condition.tensors.items():  # the prompt's, not the negative one's
        torch.testing.assert_close(kept, watched[0][1].condition.tensors[name])


def test_each_family_has_its_own_arguments():
    flux, told, plain = (pipelines.build(name) for name in ("flux", "flux-guided", "sd1"))
    ask = lambda pipe, *given, **more: guidance_arguments(pipe, parameters(pipe), *given, **more)  # noqa: E731
    assert ask(flux, 4.0) == {"true_cfg_scale": 4.0, "negative_prompt": ""}
    assert ask(flux, 4.0, "dog", prompts=2) == {"true_cfg_scale": 4.0, "negative_prompt": ["dog", "dog"]}
    assert ask(told, 4.0) == {"guidance_scale": 4.0}
    assert ask(plain, 4.0) == {"guidance_scale": 4.0}
    assert ask(plain, 4.0, "dog") == {"guidance_scale": 4.0, "negative_prompt": "dog"}
    assert ask(plain, None) == ask(flux, None) == ask(told, None) == {}
    assert [own_guidance(pipe, parameters(pipe)) for pipe in (flux, told, plain)] == [1.0, 3.5, 7.5]
    with pytest.raises(InputError, match="leave out the negative prompt"):
        ask(told, 4.0, "dog")


def test_a_pipeline_without_guidance_says_so():
    class Bare:
        def __call__(self, prompt):
            pass

    assert guidance_name(Bare(), parameters(Bare())) == "guidance_scale"
    with pytest.raises(InputError, match="Bare can be told no guidance"):
        guidance_arguments(Bare(), parameters(Bare()), 3.0)
    assert guidance_arguments(Bare(), parameters(Bare()), None) == {}
