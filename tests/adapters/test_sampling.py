"""The one caller of pipelines: its images are those of a plain call, bit for bit, and the pipeline is as before."""

import inspect
from typing import Any

import numpy as np
import pytest
import torch
from diffusers.pipelines.auto_pipeline import AutoPipelineForImage2Image
from diffusers.schedulers.scheduling_ddim import DDIMScheduler
from diffusers.schedulers.scheduling_heun_discrete import HeunDiscreteScheduler

from cryptomnesia import Guard
from cryptomnesia.adapters import to_denoiser
from cryptomnesia.adapters.sampling import TextToImage, as_bytes, ddim
from cryptomnesia.audit import gallery
from cryptomnesia.commands.sampling import Sampler
from cryptomnesia.demo import showcase
from cryptomnesia.errors import InputError, NonFiniteError, OutOfMemory
from cryptomnesia.lineage import Recipe, generate
from cryptomnesia.localization.trajectory import Sampling
from cryptomnesia.mitigation.mitigate import failed
from cryptomnesia.mitigation.result import Mended

from ..helpers.guarded import flags_all, seeded
from ..helpers.pipelines import FAMILIES, build

SMALL = {"height": 16, "width": 16}
SHAPE = (4, 8, 8)
every_family = pytest.mark.parametrize("family", FAMILIES)


def plain(pipe, prompt, seeds, **options):
    """By the pipeline's own call."""
    if "PixArt" in type(pipe).__name__:
        options |= {"use_resolution_binning": False}
    generators = seeded(*seeds)
    generator = generators if isinstance(prompt, list) else generators[0]
    return pipe(prompt, generator=generator, output_type="np", **(SMALL | options)).images


def maker(pipe, **options):
    settings: dict[str, Any] = {"steps": 2} | SMALL | options
    return TextToImage(pipe, **settings)


def state(pipe):
    return str(vars(pipe.scheduler)), dict(pipe.config), pipe._progress_bar_config, torch.get_rng_state().tolist()


# --- the same images as before, whoever asks ---


@every_family
def test_images_are_those_of_a_plain_call(family):
    pipe, prompts, seeds = build(family), ["a cat", "two dogs", "a"], [5, 2**64 - 1, 5]
    before, scheduler = state(pipe), pipe.scheduler
    found = maker(pipe).images(prompts, seeds)
    one = maker(pipe).images(prompts, seeds, per_call=1)
    assert pipe.scheduler is scheduler and state(pipe) == before
    other = build(family)
    assert np.array_equal(found, plain(other, prompts, seeds, num_inference_steps=2))
    for i, prompt in enumerate(prompts):
        assert np.array_equal(one[i : i + 1], plain(other, prompt, seeds[i : i + 1], num_inference_steps=2))


@every_family
def test_each_room_makes_the_images_of_a_plain_call(family, tmp_path):
    pipe, other = build(family), build(family)
    single = plain(other, "a cat", [7], num_inference_steps=2)
    recipe = Recipe("a cat", "model", steps=2, **SMALL)
    seeds = [recipe.noise_seed(number) for number in range(3)]
    batches = [plain(other, ["a cat"] * len(s), s, num_inference_steps=2) for s in (seeds[:2], seeds[2:])]
    files = generate(pipe, recipe, tmp_path, count=3, per_call=2)
    pillow = pytest.importorskip("PIL.Image")
    assert np.array_equal([np.asarray(pillow.open(file)) for file in files], as_bytes(np.concatenate(batches)))
    denoiser = to_denoiser(pipe)
    sampler = Sampler(denoiser, SHAPE, count=1, seed=7, steps=2)
    assert np.array_equal(sampler.before("a cat").images, as_bytes(single))
    if denoiser.family != "flux":  # whose calls cannot be read while it samples
        image, _ = Sampling(denoiser, seed=7, steps=2, guidance=None, shape=SHAPE).run("a cat")
        assert torch.equal(image, torch.from_numpy(single[0]).permute(2, 0, 1).float())


@pytest.mark.parametrize("family", ["sd1", "sdxl", "sd3", "pixart"])
def test_embeddings_and_noise_lead_to_the_images_of_a_plain_call(family):
    pipe, other = build(family), build(family)
    denoiser, chosen = to_denoiser(pipe), torch.randn(1, *SHAPE, generator=seeded(3)[0])
    sampler = Sampler(denoiser, SHAPE, count=2, seed=7, steps=2)
    reseeded = sampler.after("a cat", Mended(failed("reseed", "a cat", "").mitigation, noise=chosen))
    expected = plain(other, "a cat", [7], latents=chosen, num_inference_steps=2)
    assert np.array_equal(reseeded.images[:1], as_bytes(expected))
    moved = Mended(failed("embed", "a cat", "").mitigation, condition=denoiser.encode("two dogs"))
    names = {"text": "prompt_embeds", "pooled": "pooled_prompt_embeds", "mask": "prompt_attention_mask"}
    embeds = {names[name]: tensor for name, tensor in moved.condition.tensors.items()}
    embeds |= {f"negative_{names[name]}": tensor for name, tensor in denoiser.empty.tensors.items()}
    expected = [plain(other, None, [s], num_inference_steps=2, negative_prompt=None, **embeds) for s in (7, 8)]
    assert np.array_equal(sampler.after("a cat", moved).images, as_bytes(np.concatenate(expected)))


def test_the_demo_samples_with_ddim_of_its_own():
    pipe, other = build("sd1"), build("sd1")
    pipe.scheduler = HeunDiscreteScheduler.from_config(pipe.scheduler.config)
    other.scheduler = ddim(pipe)
    found = showcase.sample(pipe, ["a", "b", "c", "d", "e"], 2, steps=2)
    rows, seeds = [text for text in "abcde" for _ in range(2)], [0, 1] * 5
    options = {"num_inference_steps": 2, "guidance_scale": 7.5}
    parts = [plain(other, rows[i : i + 8], seeds[i : i + 8], **options) for i in (0, 8)]
    assert np.array_equal(found.reshape(10, 16, 16, 3), as_bytes(np.concatenate(parts)))
    assert type(pipe.scheduler).__name__ == "HeunDiscreteScheduler" and type(ddim(pipe)) is DDIMScheduler


def test_a_gallery_shows_the_image_of_a_plain_call():
    from cryptomnesia.audit.page import Exhibit

    fields: dict[str, Any] = dict.fromkeys(Exhibit.__dataclass_fields__) | {"text": "a cat"}
    exhibit = Exhibit(**fields)
    shown = gallery._plain(Guard(build("sd1")), exhibit, "no map")
    image, _ = shown.pictures[0]
    expected = build("sd1")("a cat", generator=seeded(gallery.SEED)[0], output_type="np").images[0]
    assert np.array_equal(image, gallery._pixels(expected))


# --- settings ---


@every_family
def test_guidance_changes_images_and_negative_prompts_do(family):
    pipe = build(family)
    network = getattr(pipe, "unet", None) or pipe.transformer
    with torch.no_grad():  # the networks are so small that guidance moves images by less than a shade
        for name, weight in network.named_parameters():
            if "guidance" in name or "context" in name or "attn2" in name or "caption" in name:
                weight.mul_(4)
    made = [maker(pipe, guidance=g).images(["a cat"], [3]) for g in (1.0, 4.0, 9.0)]
    assert not np.array_equal(made[0], made[1]) and not np.array_equal(made[1], made[2])
    if family == "flux-guided":
        with pytest.raises(InputError, match="leave out the negative prompt"):
            maker(pipe, guidance=9.0, negative="zzz")
        return
    away = maker(pipe, guidance=9.0, negative="zzz").images(["a cat", "a cat"], [3, 3])
    assert np.array_equal(away[0], away[1]) and not np.array_equal(away[:1], made[2])


def test_what_a_pipeline_does_by_itself_is_told():
    assert (maker(build("sd1"), steps=None).steps, maker(build("sd1")).guidance) == (50, 7.5)
    assert maker(build("flux")).guidance == 1.0 and maker(build("flux-guided")).guidance == 3.5
    pipe = build("sd1")
    assert maker(pipe).scheduler == "DDIMScheduler"
    assert maker(pipe, scheduler=HeunDiscreteScheduler()).scheduler == "HeunDiscreteScheduler"


# --- progress and cancel ---


@pytest.mark.parametrize("family", ["sd1", "pixart"])  # PixArt has the older callback only
def test_progress_counts_steps_of_all_images(family):
    pipe, told = build(family), []
    found = maker(pipe, steps=3).images(["a"] * 3, [0, 1, 2], per_call=2, progress=lambda *n: told.append(n))
    assert told == [(2, 9), (4, 9), (6, 9), (7, 9), (8, 9), (9, 9)]
    assert np.array_equal(found, maker(pipe, steps=3).images(["a"] * 3, [0, 1, 2], per_call=2))


def test_schedulers_that_take_more_steps_count_no_more():
    pipe, told = build("sd1"), []
    pipe.scheduler = HeunDiscreteScheduler.from_config(pipe.scheduler.config)
    maker(pipe, steps=3).images(["a"], [0], progress=lambda *n: told.append(n))
    assert told == [(1, 3), (2, 3), (3, 3)]


@pytest.mark.parametrize("error", [KeyboardInterrupt, InputError])
def test_what_progress_raises_ends_the_sampling_and_nothing_else(error):
    pipe, done, freed = build("sd1"), [], []
    before, scheduler = state(pipe), pipe.scheduler
    pipe.maybe_free_model_hooks = lambda: freed.append(True)

    def stop(*told):
        done.append(told)
        raise error("enough")

    with pytest.raises(error, match=r"^enough$"):
        maker(pipe, steps=4).images(["a"] * 2, [0, 1], per_call=1, progress=stop)
    assert done == [(1, 8)] and freed == [True]
    assert pipe.scheduler is scheduler and state(pipe) == before


def test_an_attached_guard_does_not_step_in():
    pipe = build("sd1")
    expected = maker(build("sd1")).images(["a cat"], [1])
    with Guard(pipe, flags_all("sd1"), "block", unverified="block").attached():
        assert np.array_equal(maker(pipe).images(["a cat"], [1]), expected)


# --- what goes wrong ---


def full_above(pipe, most, monkeypatch):
    """A pipeline whose device has memory for that many images at once; returns what it was asked for."""
    original, asked = type(pipe).__call__, []

    def call(self, prompt, **options):
        asked.append(len(prompt))
        if len(prompt) > most:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return original(self, prompt, **options)

    call.__signature__ = inspect.signature(original)
    monkeypatch.setattr(type(pipe), "__call__", call)
    return asked


def test_batches_are_halved_where_memory_is_short(monkeypatch):
    pipe, seeds = build("sd1"), list(range(7))
    expected = maker(pipe).images(["a"] * 7, seeds)
    asked, told = full_above(pipe, 2, monkeypatch), []
    made = maker(pipe)
    found = made.images(["a"] * 7, seeds, progress=lambda *n: told.append(n))
    assert asked == [7, 3, 1, 1, 1, 1, 1, 1, 1] and told[-1] == (14, 14)
    assert np.allclose(found, expected, atol=1e-5)
    made.images(["a"] * 2, [0, 1])
    assert asked[9:] == [1, 1]  # it remembers


def test_no_memory_for_one_image_is_said_in_one_line(monkeypatch):
    pipe = build("sd1")
    full_above(pipe, 0, monkeypatch)
    with pytest.raises(OutOfMemory, match="no memory for one image: give a smaller height and width"):
        maker(pipe).images(["a"], [0])
    with pytest.raises(OutOfMemory, match="no memory for 2 images in one call, nor for one alone"):
        maker(pipe).images(["a"] * 2, [0, 1])


def test_refusals_and_broken_models_are_named():
    pipe = build("sd1")
    with pytest.raises(InputError, match="StableDiffusionPipeline refuses to sample: "):
        maker(pipe, steps=1001).images(["a"], [0])
    with pytest.raises(InputError, match="starts from an image"):
        maker(AutoPipelineForImage2Image.from_pipe(pipe))
    pipe.unet.conv_out.bias.data.fill_(torch.nan)
    with pytest.raises(NonFiniteError):
        maker(pipe).images(["a"], [0])
