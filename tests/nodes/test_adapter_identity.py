"""Which patches make another model of a ComfyUI model: those that change a branch, by their strengths and tensors."""

from collections.abc import Callable
from typing import Any

import pytest
import torch

from cryptomnesia.adapters.comfyui import ComfyDenoiser
from cryptomnesia.adapters.comfyui_weights import patches_of

from . import models
from .graphs import demo, keep, links, ours, ran, report_of, with_check
from .harness import Comfy
from .results import node

pytestmark = pytest.mark.usefixtures("comfy")


def identity(patch: Callable[[Any], Any], kind: str = "eps", **options: Any) -> str:
    """The fingerprint of a fresh model under that patch; whatever is patched can be read."""
    model = models.model(kind)
    denoiser = ComfyDenoiser(patch(model) or model, **options)
    assert denoiser.unreadable == []
    return denoiser.fingerprint


class Adapter:
    """Like an IPAdapter's patch: an image's embedding, read by layers of its own, at a weight."""

    def __init__(self, weight: float, seed: int = 0):
        generator = torch.Generator().manual_seed(seed)
        self.weight, self.embedding = weight, torch.randn(1, 4, models.WIDTH, generator=generator)
        self.keys = torch.nn.Linear(models.WIDTH, models.WIDTH)
        models.fill(self.keys, seed)
        self.mask = None

    def __call__(self, q, k, v, extra_options):
        return q, k + self.weight * self.keys(self.embedding).mean(), v


def replacing(weight: float) -> Callable[[Any], None]:
    return lambda model: model.set_model_attn2_replace(Adapter(weight), "middle", 0, 0)


def wrapped(weight: float) -> Callable[[Any], None]:
    def wrapper(apply_model, args):
        return apply_model(args["input"], args["timestep"], **args["c"]) * weight

    return lambda model: model.set_model_unet_function_wrapper(wrapper)


def inner(place: str) -> Callable[[float], Callable[[Any], None]]:
    """A wrapper inside ComfyUI's own call, kept by the model or in its options."""

    def make(weight: float) -> Callable[[Any], None]:
        def wrapper(executor, *arguments, **options):
            return executor(*arguments, **options) * weight

        return lambda model: model.add_wrapper(place, wrapper)

    return make


def in_options(weight: float) -> Callable[[Any], None]:
    def change(model: Any) -> None:
        import comfy.patcher_extension as extension

        def wrapper(executor, *arguments, **options):
            return executor(*arguments, **options) * weight

        extension.add_wrapper("diffusion_model", wrapper, model.model_options, is_model_options=True)

    return change


def lora(strength: float, alpha: float = 1.0, key: int = 0) -> Callable[[Any], None]:
    def change(model: Any) -> None:
        from comfy.weight_adapter.lora import LoRAAdapter

        names = [name for name in model.model.state_dict() if name.endswith("to_q.weight")]
        size = model.model.state_dict()[names[key]].shape
        generator = torch.Generator().manual_seed(0)
        up, down = torch.randn(size[0], 2, generator=generator), torch.randn(2, size[1], generator=generator)
        adapter = LoRAAdapter(set(), (up, down, alpha, None, None, None))
        assert model.add_patches({names[key]: adapter}, strength)

    return change


def injected(strength: float) -> Callable[[Any], None]:
    """A LoRA in bypass mode, beside the weights."""

    def change(model: Any) -> None:
        from comfy.weight_adapter import BypassInjectionManager
        from comfy.weight_adapter.lora import LoRAAdapter

        name = next(name for name in model.model.state_dict() if name.endswith("to_q.weight"))
        size = model.model.state_dict()[name].shape
        manager = BypassInjectionManager()
        manager.add_adapter(
            name,
            LoRAAdapter(set(), (torch.ones(size[0], 2), torch.ones(2, size[1]), 1.0, None, None, None)),
            strength=strength,
        )
        model.set_injections("bypass_lora", manager.create_injections(model.model))

    return change


def sampled(shift: float) -> Callable[[Any], Any]:
    from comfy_extras.nodes_model_advanced import ModelSamplingSD3

    return lambda model: ModelSamplingSD3().patch(model, shift)[0]


def freeu(value: float) -> Callable[[Any], Any]:
    from comfy_extras.nodes_freelunch import FreeU

    return lambda model: FreeU.execute(model, value, 1.2, 0.9, 0.2).result[0]


def rope(value: float) -> Callable[[Any], None]:
    return lambda model: model.set_model_rope_options(value, 0, 1, 0, 1, 0)


def hook(weight: float) -> Callable[[Any], None]:
    def change(model: Any) -> None:
        block = model.model.diffusion_model.middle_block
        block.register_forward_hook(lambda module, arguments, output: output * weight)

    return change


def replaced(weight: float) -> Callable[[Any], None]:
    def change(model: Any) -> None:
        block = model.model.diffusion_model.middle_block
        own = block.forward
        block.forward = lambda *arguments, **options: own(*arguments, **options) * weight

    return change


def attached(weight: float) -> Callable[[Any], None]:
    def change(model: Any) -> None:
        model.set_attachments("pack", {"weight": weight})

    return change


STRENGTHS: dict[str, Callable[[float], Callable[[Any], Any]]] = {
    "IPAdapter-like": lambda weight: lambda model: model.set_model_attn2_patch(Adapter(weight)),
    "attention replaced": replacing,
    "function wrapper": wrapped,
    "apply_model wrapper": inner("apply_model"),
    "wrapper in the options": in_options,
    "LoRA": lora,
    "alpha of a LoRA": lambda alpha: lora(1.0, alpha),
    "bypass LoRA": injected,
    "FreeU": freeu,
    "rope": rope,
    "forward hook": hook,
    "forward replaced": replaced,
    "attachment": attached,
}


@pytest.mark.parametrize("name", STRENGTHS)
def test_two_strengths_are_two_models(name: str):
    make = STRENGTHS[name]
    plain = identity(lambda model: None)
    assert len({plain, identity(make(0.5)), identity(make(3.0))}) == 3
    assert identity(make(3.0)) == identity(make(3.0))


def test_a_shift_of_the_schedule_is_another_model():
    assert identity(sampled(1.0), "sd3") == identity(sampled(1.0), "sd3") != identity(sampled(3.0), "sd3")


def test_another_image_or_mask_is_another_model():
    first, second, masked = Adapter(1.0, 0), Adapter(1.0, 1), Adapter(1.0, 0)
    masked.mask = torch.ones(1, 64, 64)
    found = {
        identity(lambda model, patch=patch: model.set_model_attn2_patch(patch)) for patch in (first, second, masked)
    }
    assert len(found) == 3


def test_which_tensors_have_which_strength_counts():
    """Also where names, shapes and strengths are the same."""

    def two(model: Any, order: tuple[float, float]) -> None:
        name = next(name for name in model.model.state_dict() if name.endswith("to_q.weight"))
        size = model.model.state_dict()[name].shape
        for strength, seed in zip((1.0, 0.5), order, strict=True):
            model.add_patches({name: (torch.full(size, float(seed)),)}, strength)

    assert identity(lambda model: two(model, (1, 2))) != identity(lambda model: two(model, (2, 1)))
    assert identity(lora(1.0, key=0)) != identity(lora(1.0, key=1))


def test_a_lora_of_no_strength_is_none():
    assert identity(lora(0.0)) == identity(lambda model: None)


def test_a_patch_that_names_the_model_itself_can_be_read():
    def change(model: Any) -> None:
        base, block = model.model, model.model.diffusion_model.middle_block
        model.set_model_attn1_patch(lambda q, k, v, options: (q, k * len(base.latent_format.__dict__), v))
        model.set_model_attn2_patch(lambda q, k, v, options: (q, k, v) if block and model else None)

    assert identity(change) == identity(change) != identity(lambda model: None)


def test_a_patch_with_a_model_of_its_own_is_told_by_its_weights():
    def change(seed: int) -> Callable[[Any], None]:
        other = models.model("eps", seed)
        return lambda model: model.set_model_attn2_patch(lambda q, k, v, options: (q, k, v) if other else None)

    assert identity(change(1)) == identity(change(1)) != identity(change(2))


def test_hooks_of_a_conditioning_count():
    def hooked(strength: float, start: float = 0.0) -> str:
        import comfy.hooks

        group = comfy.hooks.create_hook_lora({"a": torch.ones(2)}, strength, strength)
        frames = comfy.hooks.HookKeyframeGroup()
        frames.add(comfy.hooks.HookKeyframe(1.0, start))
        group.set_keyframes_on_hooks(frames)
        ((text, options),) = models.conditioning("eps")
        return identity(lambda model: None, like=[[text, {**options, "hooks": group}]])

    found = [hooked(1.0), hooked(0.5), hooked(1.0, 0.5), identity(lambda model: None)]
    assert len(set(found)) == 4 and hooked(1.0) == found[0]


def test_what_cannot_be_read_is_another_model_each_time():
    def change(model: Any) -> Any:
        generator = torch.Generator()
        model.set_model_attn1_patch(lambda q, k, v, options: (q, k, v) if generator else None)
        return model

    first, second = (ComfyDenoiser(change(models.model("eps"))) for _ in range(2))
    assert first.fingerprint != second.fingerprint and first.fingerprint == first.fingerprint
    assert len(first.unreadable) == 1 and "Generator" in first.unreadable[0]


def test_a_plain_model_has_no_patches(comfy: Comfy):
    result = ran(comfy, demo() | {"kept": keep("load"), "clip": keep("load", 1)})
    model, clip = result.outputs["kept"][0], result.outputs["clip"][0]
    assert patches_of(model) == ([], []) == patches_of(clip.patcher)


# node -> its settings; all of them act after or beside the two branches
BESIDE = {
    "RescaleCFG": {"multiplier": 0.7},
    "PerturbedAttentionGuidance": {"scale": 3.0},
    "SkipLayerGuidanceDiT": {
        "double_layers": "0",
        "single_layers": "0",
        "scale": 3.0,
        "start_percent": 0.0,
        "end_percent": 1.0,
        "rescaling_scale": 0.0,
    },
    "PerpNeg": {"empty_conditioning": ["empty", 0], "neg_scale": 1.0},
    "Mahiro": {},
    "APG": {"eta": 1.0, "norm_threshold": 5.0, "momentum": 0.0},
    "TCFG": {},
    "FreSca": {"scale_low": 1.0, "scale_high": 1.25, "freq_cutoff": 2},
    "CFGZeroStar": {},
    "CFGNorm": {"strength": 1.0},
    "RenormCFG": {"cfg_trunc": 100.0, "renorm_cfg": 1.0},
    "VideoLinearCFGGuidance": {"min_cfg": 1.0},
    "Epsilon Scaling": {"scaling_factor": 1.005},
    "TemporalScoreRescaling": {"tsr_k": 0.95, "tsr_sigma": 1.0},
    "DifferentialDiffusion": {"strength": 1.0},
}


def beside(name: str) -> dict[str, Any]:
    return demo() | {"changed": node(name, model=["load", 0], **BESIDE[name])}


@pytest.mark.parametrize("name", BESIDE)
def test_what_leaves_the_branches_alone_costs_no_verdict(comfy: Comfy, name: str):
    """Bit for bit the same measurements, under the same calibration."""
    plain = report_of(comfy, with_check(comfy, demo()))
    assert plain["verdict"] == "memorized"
    assert report_of(comfy, with_check(comfy, beside(name), model=["changed", 0])) == plain


def test_prompts_are_rewritten_under_them(comfy: Comfy):
    prompt = beside("RescaleCFG")
    inputs = {key: link for key, link in links(prompt).items() if key != "positive"}
    prompt["mend"] = ours(comfy, "RewritePrompt", **inputs | {"model": ["changed", 0]}, text="monkey face on blue")
    assert report_of(comfy, prompt | {"kept": keep("mend")}, "mend", 3)["verdict"] == "clear"


def test_self_attention_guidance_has_an_identity_of_its_own(comfy: Comfy):
    """It computes the branches another way, and keeps what it saw: the same model before and after a run."""
    prompt = demo() | {"changed": node("SelfAttentionGuidance", model=["load", 0], scale=0.5, blur_sigma=2.0)}
    plain = report_of(comfy, with_check(comfy, demo(), calibration="none"))
    found = [
        report_of(comfy, with_check(comfy, prompt, model=["changed", 0], calibration="none", check_seed=seed))
        for seed in (0, 0, 1)
    ]
    assert {report["fingerprint"] for report in found} == {found[0]["fingerprint"]} != {plain["fingerprint"]}
    assert found[0]["score"] == pytest.approx(plain["score"], rel=1e-3)
