"""Ways to run a pipeline: what makes it smaller, faster or other, done as its user would, on any device."""

import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import diffusers
import torch
from accelerate import cpu_offload
from diffusers.models.attention_processor import AttnProcessor

from cryptomnesia import Guard
from cryptomnesia.adapters import to_denoiser

from .guarded import above, attached, call, flags_all
from .pipelines import build
from .recording import network_of

Apply = Callable[[Any, torch.device], object]
FOLDERS: list[tempfile.TemporaryDirectory[str]] = []  # which are gone when these are


@dataclass(frozen=True)
class Way:
    """A way to run a pipeline.

    Attributes:
        apply: apply(pipe, device): puts the pipeline, which is on the CPU, onto that device in this way.
        family: The kind of pipeline that it is tried on.
    """

    apply: Apply
    family: str = "sd1"


def there(change: Callable[[Any], object]) -> Apply:
    """Moves the pipeline to the device, and changes it there."""
    return lambda pipe, device: change(pipe.to(device))


def modules_of(pipe: Any) -> list[torch.nn.Module]:
    return [part for part in pipe.components.values() if isinstance(part, torch.nn.Module)]


def sequential(pipe: Any, device: torch.device) -> None:
    if device.type != "cpu":
        return pipe.enable_sequential_cpu_offload(device=device)
    for part in modules_of(pipe):  # as the pipeline does it, which wants an accelerator
        cpu_offload(part, device)


def group(**options: Any) -> Apply:
    return lambda pipe, device: pipe.enable_group_offload(device, torch.device("cpu"), **options)


def to_disk(pipe: Any, device: torch.device) -> None:
    FOLDERS.append(tempfile.TemporaryDirectory())
    group(offload_type="leaf_level", offload_to_disk_path=FOLDERS[-1].name)(pipe, device)


def backend(device: torch.device) -> str:
    return "eager" if device.type == "cpu" else "inductor"


def compiled(pipe: Any, device: torch.device) -> None:
    network_of(pipe.to(device)).compile(backend=backend(device), fullgraph=True)


def wrapped(pipe: Any, device: torch.device) -> None:
    name = "unet" if hasattr(pipe, "unet") else "transformer"
    setattr(pipe, name, torch.compile(network_of(pipe.to(device)), backend=backend(device), fullgraph=True))


def by_blocks(pipe: Any, device: torch.device) -> None:
    network_of(pipe.to(device)).compile_repeated_blocks(backend=backend(device), fullgraph=True)


def cast(pipe: Any) -> None:
    network = network_of(pipe)
    network.enable_layerwise_casting(storage_dtype=torch.float8_e4m3fn, compute_dtype=network.dtype)


def cache(name: str, **options: Any) -> Apply:
    def enable(pipe: Any) -> None:
        if name in ("PyramidAttentionBroadcast", "FasterCache"):
            options["current_timestep_callback"] = lambda: pipe.current_timestep
        network_of(pipe).enable_cache(getattr(diffusers, f"{name}Config")(**options))

    return there(enable)


def image_prompts(pipe: Any) -> None:
    """An IP-Adapter, loaded and not used."""
    unet = pipe.unet
    width, layers = unet.config.cross_attention_dim, {}
    crossing = [name for name in unet.attn_processors if name.endswith("attn2.processor")]
    for number, name in enumerate(crossing):
        rows = unet.get_submodule(name.removesuffix(".processor")).to_k.out_features
        layers |= {f"{2 * number + 1}.to_{part}_ip.weight": torch.ones(rows, width) for part in "kv"}
    projection = {"proj.weight": torch.ones(4 * width, 8), "proj.bias": torch.ones(4 * width)}
    projection |= {"norm.weight": torch.ones(width), "norm.bias": torch.ones(width)}
    unet._load_ip_adapter_weights([{"image_proj": projection, "ip_adapter": layers}])


def another_scheduler(pipe: Any) -> None:
    pipe.scheduler = diffusers.EulerDiscreteScheduler.from_config(pipe.scheduler.config)


class Doubled(AttnProcessor):
    """Attention that somebody wrote."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return 2 * super().__call__(*args, **kwargs)


def tried(way: Way, device: torch.device, steps: int = 3, *, briefly: bool = False) -> dict[str, str]:
    """What a guard does with a small pipeline that is run in that way, by the table's columns: "yes", "no" where it is
    not applicable, or what went wrong. Briefly, without what takes the most time, rewriting and locating."""
    size: dict[str, Any] = {"height": 16, "width": 16}
    pipe = build(way.family)
    before = to_denoiser(pipe).fingerprint
    way.apply(pipe, device)
    denoiser = to_denoiser(pipe)
    first = denoiser.fingerprint
    # as if it had been made of this pipeline, with a draw beside the pipeline's own
    known = replace(flags_all(way.family), fingerprint=first, dtype=str(denoiser.dtype), draws=2)
    guard, clear = Guard(pipe, known), Guard(pipe, above(known, 1e9))
    found = {"fingerprint": "the same" if first == before else "its own"}
    report = guard.check("a cat", **size)
    if report.verdict == "not applicable":
        return found | dict.fromkeys(("check", "attach", "rewrite", "locate"), "no")
    plain = call(pipe, steps=steps).images
    outputs = [attached(clear, steps=steps) for _ in range(2)]  # what one leaves behind would show in the next
    images = [out.images for out in outputs] + [call(pipe, steps=steps).images]
    verdicts = [out.memorization[0].verdict for out in outputs]
    same = all(torch.equal(image, plain) for image in images)
    found["attach"] = "yes" if same and verdicts == ["clear"] * 2 else f"{verdicts}, images are the same: {same}"
    if not briefly:
        mended = Guard(pipe, above(known, report.score - 1e-4)).mitigate("a cat", "rewrite", **size).mitigation
        found["rewrite"] = "yes" if mended and mended.score_before is not None else "nothing was tried"
        shape = guard.locate("a cat", steps=steps, **size).map.shape
        found["locate"] = "yes" if shape == (16, 16) else f"a map of {tuple(shape)}"
    scores = [report.score, guard.check("a cat", **size).score]
    found["check"] = "yes" if report.memorized and scores[0] == scores[1] else f"{report.verdict}, {scores}"
    return found if denoiser.fingerprint == first else found | {"fingerprint": "changes"}


EVERY_STEP: Any = (-1, 1001)
# by the first column of the table in docs/ways-to-run.md
WAYS: dict[str, list[Way]] = {
    "float16, bfloat16": [
        Way(there(lambda pipe: pipe.to(torch.float16))),
        Way(there(lambda pipe: pipe.to(torch.bfloat16)), "sd3"),
    ],
    "layers kept in float8 (`enable_layerwise_casting`)": [Way(there(cast))],
    "`enable_model_cpu_offload`": [Way(lambda pipe, device: pipe.enable_model_cpu_offload(device=device))],
    "`enable_sequential_cpu_offload`": [Way(sequential)],
    "`enable_group_offload`": [
        Way(group(offload_type="leaf_level")),
        Way(group(offload_type="block_level", num_blocks_per_group=1), "sd3"),
    ],
    "`enable_group_offload`, to disk": [Way(to_disk)],
    "attention in slices": [Way(there(lambda pipe: pipe.enable_attention_slicing(1)))],
    "the autoencoder in slices and tiles": [
        Way(there(lambda pipe: (pipe.vae.enable_slicing(), pipe.vae.enable_tiling())))
    ],
    "`channels_last`": [Way(there(lambda pipe: pipe.unet.to(memory_format=torch.channels_last)))],
    "`network.compile(fullgraph=True)`": [Way(compiled, "sd3")],
    "`torch.compile(network)`": [Way(wrapped, "sd3")],
    "`compile_repeated_blocks`": [Way(by_blocks, "flux")],
    "`fuse_qkv_projections`": [Way(there(lambda pipe: pipe.fuse_qkv_projections()))],
    "FreeU": [Way(there(lambda pipe: pipe.enable_freeu(s1=0.9, s2=0.2, b1=1.2, b2=1.4)))],
    "caches: first block, PAB, TaylorSeer, MagCache": [
        Way(cache("FirstBlockCache", threshold=10.0), "flux"),
        Way(
            cache(
                "PyramidAttentionBroadcast",
                spatial_attention_block_skip_range=2,
                spatial_attention_timestep_skip_range=EVERY_STEP,
            ),
            "flux",
        ),
        Way(cache("TaylorSeerCache", cache_interval=2, disable_cache_before_step=1), "flux"),
        Way(cache("MagCache", mag_ratios=[1.0] * 4, num_inference_steps=4, retention_ratio=0.25), "flux"),
    ],
    "another scheduler of the same schedule": [Way(there(another_scheduler))],
    "attention of diffusers, set by hand": [Way(there(lambda pipe: pipe.unet.set_attn_processor(AttnProcessor())))],
    "attention of others": [Way(there(lambda pipe: pipe.unet.set_attn_processor(Doubled())))],
    "an embedding more (`load_textual_inversion`)": [
        Way(there(lambda pipe: pipe.load_textual_inversion(torch.ones(1, 16), token="<style>")))
    ],
    "an IP-Adapter, loaded": [Way(there(image_prompts))],
}
