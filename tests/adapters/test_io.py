"""Prompts in, latents in and out: encoding, truncation, sizes, the autoencoder."""

import pytest
import torch

from cryptomnesia import Guard
from cryptomnesia.adapters import to_denoiser
from cryptomnesia.errors import InputError

from ..helpers.pipelines import build, sample
from ..helpers.recording import CLOSE, every_family, noise, unpacked


@every_family
def test_the_empty_prompt_is_encoded_once_and_again_when_the_encoder_changes(family):
    pipe = build(family)
    if family == "sdxl":  # its own empty prompt has a test below
        pipe.register_to_config(force_zeros_for_empty_prompt=False)
    denoiser = to_denoiser(pipe)
    first = denoiser.empty
    assert len(first) == 1 and denoiser.empty is first
    for name, tensor in denoiser.encode("").tensors.items():
        assert torch.equal(tensor, first.tensors[name])
    with torch.no_grad():
        for parameter in pipe.text_encoder.parameters():
            parameter.mul_(1.5)
    assert any(not torch.equal(t, first.tensors[n]) for n, t in denoiser.empty.tensors.items())


@every_family
def test_several_prompts_are_encoded_as_each_alone(family):
    denoiser = to_denoiser(build(family))
    together = denoiser.encode(["a cat", "two dogs"])
    for row, prompt in enumerate(["a cat", "two dogs"]):
        for name, tensor in denoiser.encode(prompt).tensors.items():
            torch.testing.assert_close(together.tensors[name][row], tensor[0], **CLOSE)


@pytest.mark.parametrize("wrong", [[], [1], None, ["a", None]])
def test_prompts_are_text(wrong):
    with pytest.raises(InputError, match="prompts are text"):
        to_denoiser(build("sd1")).encode(wrong if wrong is not None else (None,))


@pytest.mark.parametrize(
    ("family", "limit"),
    [("sd1", 77), ("sdxl", 77), ("sd3", 256), ("flux", 512), ("pixart", 120), ("pixart-sigma", 300)],
)
def test_a_prompt_longer_than_the_encoders_read_is_told(family, limit):
    denoiser = to_denoiser(build(family))
    special = 2 if limit == 77 else 1
    fits = " ".join("a" * (limit - special)) if limit == 77 else "a" * (limit - special - 1)
    longer = fits + " a"
    assert not denoiser.truncated("") and not denoiser.truncated(fits) and denoiser.truncated(longer + " a")
    encoded = denoiser.encode([longer + " a", longer + " a b"]).tensors
    assert torch.equal(encoded["text"][0], encoded["text"][1])


def test_a_prompt_that_only_one_encoder_cuts_is_read_in_full():
    assert not to_denoiser(build("sd3")).truncated(" ".join("a" * 100))


@every_family
def test_sizes_in_pixels_become_latents(family):
    denoiser = to_denoiser(build(family))
    own = 128 if family == "pixart" else 8
    assert denoiser.latent_shape() == (4, own, own)
    assert denoiser.latent_shape(16, 32) == (4, 8, 16)
    for wrong in ((17, 16), (16, 31), (0, 16), (16, -16)):
        with pytest.raises(InputError, match="not a positive multiple"):
            denoiser.latent_shape(*wrong)


@every_family
def test_decoding_makes_the_image_that_the_pipeline_makes(family):
    pipe = build(family)
    latent = unpacked(sample(pipe, output_type="latent"), pipe)
    image = to_denoiser(pipe).decode(latent)
    torch.testing.assert_close(image, sample(pipe), **CLOSE)
    assert image.shape == (1, 3, 16, 16) and image.min() >= 0 and image.max() <= 1


@every_family
def test_encoding_an_image_gives_the_scaled_posterior_mean(family):
    pipe, image = build(family), torch.linspace(0, 1, 2 * 3 * 16 * 16).view(2, 3, 16, 16)
    latent = to_denoiser(pipe).encode_image(image)
    with torch.no_grad():
        mean = pipe.vae.encode(image * 2 - 1).latent_dist.mean
    config = pipe.vae.config
    torch.testing.assert_close(latent, (mean - (config.shift_factor or 0)) * config.scaling_factor, **CLOSE)
    with pytest.raises(InputError):
        to_denoiser(pipe).encode_image(image[0])
    with pytest.raises(InputError):
        to_denoiser(pipe).encode_image(image[..., 1:])


def test_latents_with_a_mean_and_deviation_per_channel_are_understood():
    pipe = build("sdxl")
    pipe.vae.register_to_config(latents_mean=[1.0, 2.0, 3.0, 4.0], latents_std=[0.5, 1.0, 2.0, 4.0])
    latent = sample(pipe, output_type="latent")
    torch.testing.assert_close(to_denoiser(pipe).decode(latent), sample(pipe), **CLOSE)
    codes = to_denoiser(pipe).encode_image(torch.full((1, 3, 16, 16), 0.3)) * torch.tensor([0.5, 1, 2, 4]).view(4, 1, 1)
    with torch.no_grad():
        mean = pipe.vae.encode(torch.full((1, 3, 16, 16), -0.4)).latent_dist.mean
    back = codes / pipe.vae.config.scaling_factor + torch.tensor([1.0, 2, 3, 4]).view(4, 1, 1)
    torch.testing.assert_close(back, mean, **CLOSE)


def test_an_autoencoder_that_overflows_works_in_float32_and_returns_to_float16():
    pipe = build("sdxl")
    pipe.vae.half()
    weights = {name: value.clone() for name, value in pipe.vae.state_dict().items()}
    assert torch.isfinite(to_denoiser(pipe).decode(noise(1))).all()
    assert pipe.vae.dtype == torch.float16
    assert all(torch.equal(weights[name], value) for name, value in pipe.vae.state_dict().items())


def test_bfloat16_weights_answer_in_float32():
    pipe = build("flux").to(torch.bfloat16)
    denoiser = to_denoiser(pipe)
    found = denoiser.predict(noise(2), denoiser.level(torch.tensor([0.9, 0.3])), denoiser.empty)
    assert denoiser.dtype == torch.bfloat16 and found.noise.dtype == torch.float32


def test_conditions_made_in_inference_mode_serve_gradients_later():
    denoiser = to_denoiser(build("sd1"))
    with torch.inference_mode():
        _ = denoiser.empty
    x = noise(1).requires_grad_()
    denoiser.predict(x, denoiser.level(41), denoiser.empty, grad=True).noise.sum().backward()
    assert x.grad is not None


def test_sdxl_takes_zeros_for_the_empty_prompt_where_its_pipeline_does():
    pipe = build("sdxl")
    pipe.register_to_config(force_zeros_for_empty_prompt=True)
    assert all((tensor == 0).all() for tensor in to_denoiser(pipe).empty.tensors.values())
    pipe.register_to_config(force_zeros_for_empty_prompt=False)
    assert any((tensor != 0).any() for tensor in to_denoiser(pipe).empty.tensors.values())


@pytest.mark.parametrize(("family", "channels"), [("sd1", 9), ("sd1", 8), ("sd1", 7), ("sdxl", 9), ("flux", 96)])
def test_networks_that_start_from_an_image_are_told_in_one_line(family, channels):
    pipe = build(family)
    network = pipe.unet if hasattr(pipe, "unet") else pipe.transformer
    network.register_to_config(in_channels=channels)
    for ask in (lambda: to_denoiser(pipe).latent_shape(), lambda: Guard(pipe).check("a cat")):
        with pytest.raises(InputError, match=r"takes \d+ channels and the autoencoder makes 4: .*inpainting") as caught:
            ask()
        assert str(caught.value).isprintable()
