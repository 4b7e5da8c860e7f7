"""ComfyDenoiser on its own: rows, families, sizes, memory, and what it refuses."""

from collections.abc import Iterator
from typing import Any

import pytest
import torch

from cryptomnesia.adapters.comfyui import ComfyDenoiser
from cryptomnesia.denoiser import Condition, NoiseLevel
from cryptomnesia.errors import InputError, NonFiniteError, OutOfMemory

from . import models
from .graphs import Texts
from .harness import Comfy

every_kind = pytest.mark.parametrize("kind", models.KINDS)


@pytest.fixture(autouse=True)
def _as_in_a_node(comfy: Comfy) -> Iterator[None]:
    with torch.inference_mode():
        yield


def denoiser(kind: str, model: Any = None) -> ComfyDenoiser:
    texts = models.clip(kind) if models.KINDS[kind].clip else Texts(kind)
    return ComfyDenoiser(models.model(kind) if model is None else model, texts)


def rows(kind: str, made: ComfyDenoiser, numbers: list[int], tokens: int = 8) -> Condition:
    return Condition.cat([made.read(models.conditioning(kind, number, tokens=tokens)) for number in numbers])


def latents(kind: str, count: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(4)
    made = models.KINDS[kind]
    return torch.randn(count, made.channels, made.size, made.size, generator=generator)


def levels(made: ComfyDenoiser, count: int) -> NoiseLevel:
    steps = made.levels.sampling(50)
    return NoiseLevel.cat([steps[i] for i in (0, 20, 47, 33)[:count]])


@every_kind
def test_rows_do_not_touch_each_other(kind: str):
    made = denoiser(kind)
    x, level = latents(kind, 4), levels(made, 4)
    condition = Condition.cat([rows(kind, made, [1, 2, 3]), rows(kind, made, [4], tokens=16)])
    together = made.predict(x, level, condition)
    for i in range(4):
        alone = made.predict(x[[i]], level[[i]], condition[[i]])
        torch.testing.assert_close(together.raw[[i]], alone.raw, rtol=1e-3, atol=1e-3)
    assert (together.raw[0] - together.raw[1]).abs().max() > 0.01


@pytest.mark.parametrize("kind", ["eps", "sd3"])
def test_time_ranges_are_judged_for_each_row(kind: str):
    """ComfyUI looks at the first row of a call only."""
    made = denoiser(kind)
    ((text, options),) = models.conditioning(kind, 1)
    early = made.read([[text, options | {"start_percent": 0.0, "end_percent": 0.3}]])
    x, level = latents(kind, 1).repeat(2, 1, 1, 1), levels(made, 3)[[0, 2]]
    found, plain = (made.predict(x, level, condition) for condition in (early, rows(kind, made, [1])))
    torch.testing.assert_close(found.x0[0], plain.x0[0], rtol=1e-3, atol=1e-3)
    assert found.x0[1].abs().max() < 1e-3 < plain.x0[1].abs().max()  # nothing is asked there any more


@every_kind
def test_a_prediction_splits_the_noisy_latent(kind: str):
    """x = alpha x0 + sigma noise, whatever the network puts out."""
    made = denoiser(kind)
    x, level = latents(kind, 3), levels(made, 3)
    found = made.predict(x, level, rows(kind, made, [1, 2, 3]))
    alpha, sigma = (value.view(-1, 1, 1, 1) for value in (level.alpha, level.sigma))
    scale = 1 + (alpha * found.x0).abs().amax()
    assert ((alpha * found.x0 + sigma * found.noise - x).abs() < 1e-3 * scale).all()
    expected = {
        "epsilon": found.noise,
        "v": alpha * found.noise - sigma * found.x0,
        "sample": found.x0,
        "flow": found.noise - found.x0,
    }[made.prediction_type]
    torch.testing.assert_close(found.raw, expected, rtol=1e-2, atol=1e-2 * float(expected.abs().max()))


@pytest.mark.parametrize("kind", ["sd3", "schnell"])
def test_flow_models_answer_with_the_velocity(kind: str):
    made = denoiser(kind)
    x, level = latents(kind, 3), levels(made, 3)
    condition = rows(kind, made, [1, 2, 3])
    found = made.predict(x, level, condition)
    sigma = level.sigma.view(-1, 1, 1, 1)
    torch.testing.assert_close(found.raw, (x - found.x0) / sigma, rtol=1e-3, atol=1e-3)
    assert torch.equal(found.pull, found.raw) and level.sigma[0] == 1.0
    # at pure noise the noise is x itself
    torch.testing.assert_close(found.noise[0], x[0], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kind", ["eps", "v", "sdxl"])
def test_the_network_itself_says_the_same(kind: str):
    """ComfyUI's apply_model, asked at the same place without a sampler."""
    from comfy.model_management import load_models_gpu

    made = denoiser(kind)
    x, level = latents(kind, 2), levels(made, 2)
    value = models.conditioning(kind, 1, rows=2)
    found = made.predict(x, level, made.read(value))
    load_models_gpu([made.model])
    alpha, extra = level.alpha.view(-1, 1, 1, 1), {}
    if models.KINDS[kind].pooled:
        pooled = value[0][1]["pooled_output"]
        extra["y"] = made.model.model.encode_adm(pooled_output=pooled, width=64, height=64).to(x)
    ratio = level.sigma / level.alpha
    clean = made.model.model.apply_model(x / alpha, ratio, c_crossattn=value[0][0], **extra)
    torch.testing.assert_close(alpha * found.x0, alpha * clean, rtol=1e-3, atol=1e-3)


class Small:
    """A network on a device with memory for so many rows."""

    def __init__(self, limit: int):
        self.limit, self.sizes = limit, []

    def __call__(self, apply_model: Any, args: dict[str, Any]) -> torch.Tensor:
        self.sizes.append(len(args["input"]))
        if len(args["input"]) > self.limit:
            raise torch.OutOfMemoryError("no room")
        return apply_model(args["input"], args["timestep"], **args["c"])


@pytest.mark.parametrize("kind", ["eps", "sdxl", "sd3"])
@pytest.mark.parametrize("limit", [1, 2])
def test_too_many_rows_are_asked_in_parts(kind: str, limit: int):
    small, model = Small(limit), models.model(kind)
    whole = denoiser(kind, model.clone())
    model.set_model_unet_function_wrapper(small)
    made = denoiser(kind, model)
    x, level = latents(kind, 7), NoiseLevel.cat([levels(made, 4), levels(made, 3)])
    numbers = list(range(7))
    found = made.predict(x, level, rows(kind, made, numbers))
    expected = whole.predict(x, level, rows(kind, whole, numbers))
    torch.testing.assert_close(found.raw, expected.raw, rtol=1e-3, atol=1e-3)
    assert small.sizes[0] == 7 and sum(size for size in small.sizes if size <= limit) == 7


def test_no_room_for_one_row_is_told():
    model = models.model("eps")
    model.set_model_unet_function_wrapper(Small(0))
    made = denoiser("eps", model)
    with pytest.raises(OutOfMemory, match="3 rows"):
        made.predict(latents("eps", 3), levels(made, 3), rows("eps", made, [1, 2, 3]))


def test_other_errors_stay_what_they_are():
    def broken(apply_model, args):
        raise RuntimeError("the driver has gone")

    model = models.model("eps")
    model.set_model_unet_function_wrapper(broken)
    made = denoiser("eps", model)
    with pytest.raises(RuntimeError, match="the driver has gone"):
        made.predict(latents("eps", 1), levels(made, 1), rows("eps", made, [1]))


def test_numbers_that_are_none_are_told():
    model = models.model("eps")
    model.set_model_unet_function_wrapper(lambda apply_model, args: args["input"] * float("nan"))
    made = denoiser("eps", model)
    with pytest.raises(NonFiniteError):
        made.predict(latents("eps", 1), levels(made, 1), rows("eps", made, [1]))


def test_the_clip_of_another_family_is_told():
    with pytest.raises(InputError, match="32 wide and this model reads 64"):
        denoiser("sdxl").read(models.conditioning("eps"))
    with pytest.raises(InputError, match="connect the one"):
        ComfyDenoiser(models.model("eps")).encode("a cat")


def test_latents_of_another_family_are_told():
    made = denoiser("eps")
    with pytest.raises(InputError, match="cannot take this conditioning or latent"):
        made.predict(latents("sd3", 1), levels(made, 1), rows("eps", made, [1]))


@every_kind
def test_sizes(kind: str):
    made, factor = denoiser(kind), models.KINDS[kind].factor
    assert made.latent_shape(8 * factor, 16 * factor) == (models.KINDS[kind].channels, 8, 16)
    for size in ((8 * factor, 8 * factor - 4), (0, 8 * factor), (None, 8 * factor), (-factor, factor)):
        with pytest.raises(InputError):
            made.latent_shape(*size)


def test_families_and_kinds():
    expected = {
        "eps": ("stable-diffusion", "epsilon"),
        "v": ("stable-diffusion", "v"),
        "zsnr": ("stable-diffusion", "v"),
        "edm": ("stable-diffusion", "sample"),
        "sdxl": ("stable-diffusion-xl", "epsilon"),
        "sd3": ("stable-diffusion-3", "flow"),
        "flux": ("flux", "flow"),
        "chroma": ("chroma", "flow"),
        "qwen": ("qwen-image", "flow"),
        "wan": ("wan21", "flow"),
        "schnell": ("flux", "flow"),
        "flux2": ("flux-2", "flow"),
        "klein": ("flux-2", "flow"),
        "lumina": ("lumina-2", "flow"),
        "z-image": ("z-image", "flow"),
        "hunyuan": ("hunyuan-image", "flow"),
        "hunyuan-distilled": ("hunyuan-image", "flow"),
        "hidream": ("hidream", "flow"),
        "aura": ("auraflow", "flow"),
        "pixart": ("pixart", "epsilon"),
    }
    made = {kind: denoiser(kind) for kind in models.KINDS}
    assert {kind: (d.family, d.prediction_type) for kind, d in made.items()} == expected
    distilled = {kind for kind, d in made.items() if d.reference == "empty prompt"}
    assert distilled == {"flux", "schnell", "flux2", "hunyuan-distilled"}
    assert {d.reference for d in made.values()} == {"empty prompt", "empty branch"}
    for d in made.values():
        d.require_guidance()
    del made["zsnr"]  # the weights of v
    assert len({d.fingerprint for d in made.values()}) == len(made)
    again = denoiser("sdxl")
    assert again.fingerprint == made["sdxl"].fingerprint
    assert denoiser("sdxl", models.model("sdxl", 1)).fingerprint != again.fingerprint


@every_kind
def test_gradients_are_those_of_the_answers(kind: str):
    """Along a random direction of the text; ComfyUI's fused kernels have none."""
    made = denoiser(kind)
    made.predict(latents(kind, 1), levels(made, 1), rows(kind, made, [1]))  # loaded, as it is after a check
    with torch.inference_mode(False), torch.enable_grad():
        condition, x, level = rows(kind, made, [1]), latents(kind, 1), levels(made, 2)[[1]]
        push = torch.randn(condition.tensors["text"].shape, generator=torch.Generator().manual_seed(5))
        wanted = torch.randn(x.shape, generator=torch.Generator().manual_seed(6))

        def along(step: Any, grad: bool) -> torch.Tensor:
            moved = condition.tensors["text"] + step * push
            answer = made.predict(x, level, Condition(**{**condition.tensors, "text": moved}), grad=grad).x0
            return (answer * wanted).double().sum()

        step = torch.zeros((), requires_grad=True)
        (found,) = torch.autograd.grad(along(step, True), step)
        size = 1e-3
        expected = (along(size, False) - along(-size, False)) / (2 * size)
        assert float(along(step, True).detach()) == pytest.approx(float(along(0.0, False)), rel=1e-4, abs=1e-3)
    assert float(found) == pytest.approx(float(expected), rel=0.05, abs=0.02) and abs(float(expected)) > 1e-3


def test_comfyui_is_not_left_in_training():
    import comfy.model_management

    made = denoiser("flux")
    with torch.inference_mode(False), torch.enable_grad():
        condition = rows("flux", made, [1])
        condition.tensors["text"].requires_grad_()
        made.predict(latents("flux", 1), levels(made, 1), condition, grad=True)
    assert comfy.model_management.in_training is False
