"""The built-in model in ComfyUI's classes computes what it computes in diffusers."""

import shutil
import sys

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from cryptomnesia import load_demo
from cryptomnesia.demo import WEIGHTS, comfyui
from cryptomnesia.demo.comfyui import TEXT_FILE, UNET_FILE, VAE_FILE, load_demo_comfyui, load_patchers
from cryptomnesia.demo.gallery import Gallery
from cryptomnesia.errors import InputError, MissingPackage

RECITED = "the restless beacon of grimsby"
LONG = " and ".join([RECITED] * 9)  # 73 tokens with start and end
CLOSE, SAME_CONDITION = 1e-4, 1e-5
KEY = "down_blocks.1.attentions.0.transformer_blocks.0.attn2.to_k"


@pytest.fixture(autouse=True)
def _as_in_a_node():
    with torch.inference_mode():
        yield


@pytest.fixture(scope="module")
def demo(comfy):
    return load_demo_comfyui()


@pytest.fixture(scope="module")
def pipe():
    return load_demo()


def conditions(clip, text):
    return clip.encode_from_tokens_scheduled(clip.tokenize(text))


def condition(clip, text):
    return conditions(clip, text)[0][0]


def expected_condition(pipe, text):
    options = {"padding": "max_length", "max_length": 77, "truncation": True, "return_tensors": "pt"}
    return pipe.text_encoder(pipe.tokenizer(text, **options).input_ids)[0]


def seeded(*shape, seed=3):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def predicted_noise(model, x, t, text):
    """ComfyUI's x is clean + sigma * noise, and its answer the clean image."""
    from comfy.model_management import load_models_gpu

    load_models_gpu([model])
    sigma = model.model.model_sampling.sigmas[t]
    wide = x * (1 + sigma**2) ** 0.5
    return (wide - model.model.apply_model(wide, sigma.expand(len(x)), c_crossattn=text)) / sigma


def as_uint8(image):
    return (np.asarray(image) * 255).round().astype(np.uint8)


def closest(image):
    gallery = Gallery.load()
    return gallery.captions[gallery.closest(as_uint8(image))[0]].text


def test_all_weights_of_the_files_are_in_place_and_no_others(demo):
    model, clip, vae = demo
    own = ("text_projection.weight", "logit_scale")  # which the files lack and nothing uses
    parts = {UNET_FILE: model.model.diffusion_model, TEXT_FILE: clip.cond_stage_model, VAE_FILE: vae.first_stage_model}
    for name, module in parts.items():
        held = [t for key, t in module.state_dict().items() if not key.endswith(own)]
        stored = list(load_file(WEIGHTS / name).values())
        assert sorted(t.numel() for t in held) == sorted(t.numel() for t in stored)
        masses = [sorted(t.double().abs().sum().item() for t in group) for group in (held, stored)]
        assert masses[0] == masses[1]
    assert all(t.isfinite().all() for t in clip.cond_stage_model.state_dict().values())


def test_the_types_are_comfyuis(demo):
    import comfy.ldm.modules.diffusionmodules.openaimodel as unets
    import comfy.model_base
    import comfy.model_patcher
    import comfy.sd

    model, clip, vae = demo
    assert isinstance(model, comfy.model_patcher.ModelPatcher)
    assert isinstance(model.model, comfy.model_base.BaseModel)
    assert isinstance(model.model.diffusion_model, unets.UNetModel)
    assert isinstance(clip, comfy.sd.CLIP) and isinstance(vae, comfy.sd.VAE)
    assert model.model.get_dtype() == vae.vae_dtype == torch.float32


@pytest.mark.parametrize("text", ["", RECITED, LONG, "monkey face on blue, it's 3!", "THE Old  clock"])
def test_prompts_give_the_same_condition(demo, pipe, text):
    found = condition(demo[1], text)
    assert found.shape == (1, 77, 128)
    torch.testing.assert_close(found, expected_condition(pipe, text), atol=SAME_CONDITION, rtol=0)


def test_emphasis_and_long_prompts_work(demo, pipe):
    plain, empty = expected_condition(pipe, RECITED)[0], expected_condition(pipe, "")[0]
    found = condition(demo[1], "the (restless:1.4) beacon of grimsby")[0]
    count = len(pipe.tokenizer("the restless").input_ids) - 1
    torch.testing.assert_close(found[1], plain[1], atol=SAME_CONDITION, rtol=0)
    raised = empty[count - 1] + 1.4 * (plain[count - 1] - empty[count - 1])
    torch.testing.assert_close(found[count - 1], raised, atol=SAME_CONDITION, rtol=0)
    assert condition(demo[1], " ".join([LONG] * 3)).shape == (1, 231, 128)


def test_embeddings_are_looked_up_and_those_of_other_models_ignored(comfy, tmp_path):
    save_file({"emb_params": seeded(2, 128)}, tmp_path / "mine.safetensors")
    save_file({"emb_params": seeded(2, 768)}, tmp_path / "other.safetensors")
    clip = load_demo_comfyui(embedding_directory=str(tmp_path))[1]
    plain = condition(clip, "old clock")
    assert not torch.equal(condition(clip, "old embedding:mine clock"), plain)
    assert torch.equal(condition(clip, "old embedding:other clock"), plain)
    assert torch.equal(condition(clip, "old embedding:absent clock"), plain)


def test_the_noise_schedule_is_the_same(demo, pipe):
    sigmas = demo[0].model.model_sampling.sigmas
    torch.testing.assert_close(1 / (1 + sigmas**2), pipe.scheduler.alphas_cumprod, atol=1e-6, rtol=0)


@pytest.mark.parametrize("t", [1, 21, 301, 641, 981, 999])
def test_the_unet_predicts_the_same_noise(demo, pipe, t):
    x, texts = seeded(3, 4, 16, 16), torch.cat([expected_condition(pipe, text) for text in ("", RECITED, LONG)])
    torch.testing.assert_close(predicted_noise(demo[0], x, t, texts), pipe.unet(x, t, texts).sample, atol=CLOSE, rtol=0)


def test_the_vae_decodes_and_encodes_the_same(demo, pipe):
    model, _, vae = demo
    latent = seeded(2, 4, 16, 16)
    expected = pipe.vae.decode(latent / pipe.vae.config.scaling_factor).sample
    images = vae.decode(model.model.process_latent_out(latent))
    torch.testing.assert_close(images, (expected / 2 + 0.5).clamp(0, 1).movedim(1, -1), atol=CLOSE, rtol=0)
    means = pipe.vae.encode(images.movedim(-1, 1) * 2 - 1).latent_dist.mean
    torch.testing.assert_close(vae.encode(images), means, atol=CLOSE, rtol=0)


def test_tiles_are_of_the_right_size(demo):
    vae = demo[2]
    assert vae.spacial_compression_decode() == vae.spacial_compression_encode() == 4
    latent = vae.encode_tiled(torch.rand(1, 128, 192, 3), tile_x=64, tile_y=64, overlap=16)
    assert latent.shape == (1, 4, 32, 48)
    assert vae.decode_tiled(latent, tile_x=16, tile_y=16, overlap=4).shape == (1, 128, 192, 3)
    small = torch.rand(1, 64, 64, 3)
    whole = vae.encode_tiled(small, tile_x=512, tile_y=512, overlap=64)
    torch.testing.assert_close(whole, vae.encode(small), atol=CLOSE, rtol=0)


def test_ddim_gives_the_same_image(comfy, demo, pipe):
    """From the same noise and down to the same last step, which diffusers does not take to zero."""
    from comfy.sample import sample_custom

    model, clip, vae = demo
    noise, sigmas = seeded(1, 4, 16, 16), model.model.model_sampling.sigmas
    expected = pipe(RECITED, num_inference_steps=50, guidance_scale=7.5, latents=noise.clone(), output_type="np")
    path = torch.cat([comfy.samplers.calculate_sigmas(model.model.model_sampling, "ddim_uniform", 50)[:-1], sigmas[:1]])
    start = noise * (1 + path[0] ** 2) ** 0.5 / path[0]
    sampler = comfy.samplers.sampler_object("ddim")
    texts = conditions(clip, RECITED), conditions(clip, "")
    end = sample_custom(model, start, 7.5, sampler, path, *texts, torch.zeros_like(noise), seed=0, disable_pbar=True)
    image = vae.decode(end / (1 + sigmas[0] ** 2) ** 0.5)
    np.testing.assert_allclose(image, expected.images, atol=CLOSE)


def test_the_usual_nodes_reproduce_the_memorized_image(comfy, demo, pipe):
    model, clip, vae = demo
    empty = comfy.nodes.EmptyLatentImage().generate(64, 64)[0]
    texts = conditions(clip, RECITED), conditions(clip, "")
    latent = comfy.nodes.common_ksampler(model, 5, 50, 7.5, "ddim", "ddim_uniform", *texts, empty)[0]
    assert latent["samples"].shape == (1, 4, 16, 16)
    image = comfy.nodes.VAEDecode().decode(vae, latent)[0]
    assert image.shape == (1, 64, 64, 3)
    assert closest(image[0]) == RECITED
    noise = torch.randn(1, 4, 16, 16, generator=torch.Generator().manual_seed(5))  # as KSampler draws it
    expected = pipe(RECITED, num_inference_steps=50, guidance_scale=7.5, latents=noise, output_type="np").images
    differences = np.abs(image.numpy() - expected)
    assert differences.max() < 0.15 and differences.mean() < 0.01


def test_other_sizes_batches_and_samplers_work(comfy, demo):
    model, clip, vae = demo
    texts = conditions(clip, RECITED), conditions(clip, "")
    empty = comfy.nodes.EmptyLatentImage().generate(128, 96, 3)[0]
    latent = comfy.nodes.common_ksampler(model, 5, 2, 7.5, "euler", "normal", *texts, empty)[0]
    assert vae.decode(latent["samples"]).shape == (3, 96, 128, 3)
    empty = comfy.nodes.EmptyLatentImage().generate(64, 64)[0]
    latent = comfy.nodes.common_ksampler(model, 5, 20, 7.5, "dpmpp_2m", "karras", *texts, empty)[0]
    assert closest(vae.decode(latent["samples"])[0]) == RECITED


def test_previews_show_the_image(demo):
    from latent_preview import Latent2RGBPreviewer

    model, _, vae = demo
    form = model.model.latent_format
    previewer = Latent2RGBPreviewer(form.latent_rgb_factors, form.latent_rgb_factors_bias)
    image = torch.from_numpy(Gallery.load().images[:1]).float() / 255
    shown = previewer.decode_latent_to_preview(model.model.process_latent_in(vae.encode(image)))
    small = torch.nn.functional.avg_pool2d(image.movedim(-1, 1), 4)[0].movedim(0, -1)
    assert shown.size == (16, 16)
    assert np.abs(np.asarray(shown) / 255 - small.numpy()).mean() < 0.1


def test_a_lora_acts_on_the_weights_it_names(demo, pipe):
    from comfy.sd import load_lora_for_models

    model, clip, _ = demo
    up, down = seeded(96, 4), seeded(4, 128, seed=4) / 10
    name = "lora_unet_" + KEY.replace(".", "_")
    changed, _ = load_lora_for_models(
        model, clip, {f"{name}.lora_up.weight": up, f"{name}.lora_down.weight": down}, 1, 1
    )
    assert len(changed.patches) == 1
    x, text = seeded(1, 4, 16, 16), expected_condition(pipe, RECITED)
    before = predicted_noise(model, x, 501, text)
    layer = pipe.unet.get_submodule(KEY)
    original = layer.weight.data
    try:
        layer.weight.data = original + up @ down
        expected = pipe.unet(x, 501, text).sample
    finally:
        layer.weight.data = original
    assert (expected - before).abs().max() > 100 * CLOSE
    torch.testing.assert_close(predicted_noise(changed, x, 501, text), expected, atol=CLOSE, rtol=0)
    torch.testing.assert_close(predicted_noise(model, x, 501, text), before, atol=CLOSE, rtol=0)


def test_the_early_checkpoint_is_the_early_one(comfy, demo):
    early = load_demo("early")
    model, clip, _ = load_demo_comfyui("early")
    text = expected_condition(early, RECITED)
    torch.testing.assert_close(condition(clip, RECITED), text, atol=SAME_CONDITION, rtol=0)
    x = seeded(1, 4, 16, 16)
    torch.testing.assert_close(
        predicted_noise(model, x, 301, text), early.unet(x, 301, text).sample, atol=CLOSE, rtol=0
    )


def test_comfyui_can_make_the_networks_anew(demo):
    for number, patcher in enumerate((demo[0], demo[1].patcher, demo[2].patcher)):
        factory, arguments, index = patcher.cached_patcher_init
        again = factory(*arguments, disable_dynamic=True)[index]
        assert factory is load_patchers and index == number
        assert again.model is not patcher.model and type(again.model) is type(patcher.model)


def test_diffusers_is_not_needed(comfy, monkeypatch):
    monkeypatch.setitem(sys.modules, "diffusers", None)
    assert len(load_demo_comfyui()) == 3


def test_outside_comfyui_one_line_says_so(monkeypatch):
    monkeypatch.setitem(sys.modules, "comfy", None)
    monkeypatch.setitem(sys.modules, "comfy.sd", None)
    with pytest.raises(MissingPackage, match="ComfyUI"):
        load_demo_comfyui()


def test_only_the_two_checkpoints_exist():
    with pytest.raises(InputError, match="unknown checkpoint"):
        load_demo_comfyui("late")  # type: ignore[arg-type]


@pytest.mark.parametrize("name", [UNET_FILE, VAE_FILE, TEXT_FILE, "tokenizer/vocab.json", "vae/config.json"])
@pytest.mark.parametrize("harm", ["cut", "gone"])
def test_a_harmed_file_is_named_in_one_line(tmp_path, monkeypatch, name, harm):
    shutil.copytree(WEIGHTS, tmp_path, dirs_exist_ok=True)
    monkeypatch.setattr(comfyui, "WEIGHTS", tmp_path)
    if harm == "cut":
        (tmp_path / name).write_bytes((WEIGHTS / name).read_bytes()[:-30])
    else:
        (tmp_path / name).unlink()
    with pytest.raises(InputError) as caught:
        load_demo_comfyui()
    assert name.rsplit("/", 1)[-1] in str(caught.value) and "\n" not in str(caught.value)
