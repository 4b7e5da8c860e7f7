"""Does everything work on a GPU as on the CPU, and what does it cost there? `python -m benchmarks.cuda`, needs CUDA.

Three parts: every path of the built-in model on the device, in float32, float16 and bfloat16, offloaded, compiled and
short of memory, against the CPU's answers; small pipelines of several families in every way to run them; and networks
with the true shapes of Stable Diffusion 1.5 and XL, whose weights are random, since time and memory do not depend on
them.
"""

import gc
import statistics
import time
import traceback
import warnings
from collections.abc import Callable
from typing import Any

import torch
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from diffusers.schedulers.scheduling_ddim import DDIMScheduler

from cryptomnesia import Guard, MemorizationBlocked, load_demo
from cryptomnesia.adapters import to_denoiser
from cryptomnesia.demo.captions import select
from cryptomnesia.denoiser import CallableDenoiser
from cryptomnesia.errors import OutOfMemory
from cryptomnesia.signals.curvature import curvature_map
from cryptomnesia.signals.draws import draw_noise
from cryptomnesia.signals.membership import sima
from cryptomnesia.signals.memorization import memorization_score
from cryptomnesia.signals.spectral import signature
from tests.helpers.ways import WAYS
from tests.helpers.ways import tried as tried_on

from .common import RESULTS, arguments, store, stored
from .detection import benign

DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}
OFFLOADS = ("enable_model_cpu_offload", "enable_sequential_cpu_offload")
Outcome = dict[str, Any]


def texts(kind: str, split: str = "eval", most: int = 40) -> list[str]:
    return [c.text for c in select(kind, split)[:most]]


def calibrated(pipe: Any, policy: str = "warn") -> Guard:
    """A guard with a calibration that is made on the pipeline as it stands."""
    guard = Guard(pipe)
    return Guard(pipe, guard.calibrate(c.text for c in benign(stored("demo_model")["by_caption"])), policy)


def verdicts(guard: Guard) -> dict[str, float]:
    """Share flagged by kind."""
    shares = {}
    for kind in ("verbatim", "template", "general", "control"):
        reports = list(guard.check_many(texts(kind)))
        shares[kind] = sum(report.memorized for report in reports) / len(reports)
    return shares


def one_dtype(dtype: torch.dtype) -> Outcome:
    """Verdicts, attached images and every measurement, in a dtype on the device."""
    pipe = load_demo().to("cuda", dtype)
    guard = calibrated(pipe)
    found: Outcome = {"flagged": verdicts(guard)}
    found |= attached(pipe, guard)
    found |= measured(pipe)
    return found


def image(pipe: Any, prompt: str, seed: int = 1, device: str = "cuda", **options: Any) -> torch.Tensor:
    generator = torch.Generator(device).manual_seed(seed)
    made = pipe(prompt, num_inference_steps=20, generator=generator, output_type="pt", **options)
    return made.images.float().cpu()


def attached(pipe: Any, guard: Guard) -> Outcome:
    """Whether guarded images are those of an unguarded call, bit for bit, and whether each policy acts."""
    clear, flagged = texts("general")[0], texts("verbatim")[0]
    plain = image(pipe, clear)
    with guard.attached():
        same = torch.equal(plain, image(pipe, clear))
        report = pipe(flagged, num_inference_steps=20).memorization[0]
    found: Outcome = {
        "bit_identical": same,
        "attached_verdict": report.verdict,
        "again": torch.equal(plain, image(pipe, clear)),
    }
    for policy in ("block", "rewrite", "embed", "reseed"):
        other = Guard(pipe, guard.calibration, policy)
        try:
            with other.attached():
                report = pipe(flagged, num_inference_steps=20).memorization[0]
            found[policy] = f"{report.verdict}, {report.mitigation.method if report.mitigation else 'nothing tried'}"
        except MemorizationBlocked:
            found[policy] = "blocked"
    return found


def measured(pipe: Any) -> Outcome:
    """Relative distance of each measurement to the CPU's in float32, on the same noise."""
    results = []
    for where in (load_demo(), pipe):
        denoiser: Any = to_denoiser(where)
        condition = denoiser.encode(texts("verbatim", most=8))
        noise = torch.randn(2, *denoiser.latent_shape(), generator=torch.Generator().manual_seed(5))
        latents = torch.randn(4, *denoiser.latent_shape(), generator=torch.Generator().manual_seed(6))
        results.append(
            {
                "score": memorization_score(denoiser, condition, noise=noise).score,
                "curvature": curvature_map(denoiser, latents, denoiser.level(41), condition[[0, 1, 2, 3]]),
                "signature": signature(denoiser, latents[:2]),
                "sima": sima(denoiser, latents, [50, 100]),
            }
        )
    cpu, gpu = results
    far = {k: ((gpu[k].float().cpu() - cpu[k]).norm() / cpu[k].norm()).item() for k in cpu}
    guard = calibrated(pipe)
    far["located_share"] = guard.locate(texts("verbatim")[0], seed=3, steps=20).share
    return {"relative_distance": far}


def fingerprints() -> Outcome:
    """Equal on both devices in float32."""
    cpu, gpu = to_denoiser(load_demo()).fingerprint, to_denoiser(load_demo().to("cuda")).fingerprint
    half = to_denoiser(load_demo().to("cuda", torch.float16)).fingerprint
    return {"cpu_equals_cuda": cpu == gpu, "half_differs": half != gpu}


def offloaded(how: str) -> Outcome:
    """Weights that come to the device when they are needed."""
    pipe = load_demo().to(torch.float16)
    getattr(pipe, how)()
    guard = calibrated(pipe)
    found: Outcome = {"flagged": verdicts(guard), "fingerprint": guard.denoiser.fingerprint[:12]}
    plain = image(pipe, texts("general")[0], device="cpu")
    with guard.attached():
        found["bit_identical"] = torch.equal(plain, image(pipe, texts("general")[0], device="cpu"))
        report = pipe(texts("verbatim")[0], num_inference_steps=20).memorization[0]
        found["attached_verdict"] = report.verdict
    found["located_share"] = guard.locate(texts("verbatim")[0], seed=3, steps=20).share
    return found


def compiled() -> Outcome:
    """A network that is compiled in place."""
    pipe = load_demo().to("cuda", torch.float16)
    before = to_denoiser(pipe).fingerprint
    pipe.unet.compile()
    guard = calibrated(pipe)
    found: Outcome = {"same_fingerprint": before == guard.denoiser.fingerprint, "flagged": verdicts(guard)}
    with guard.attached():
        found["attached_verdict"] = pipe(texts("verbatim")[0], num_inference_steps=20).memorization[0].verdict
    return found


def ways_to_run() -> Outcome:
    """The ways of docs/ways-to-run.md on small pipelines, as its test tries them on the CPU."""
    found: Outcome = {}
    for name, ways in WAYS.items():
        for way in ways:
            found[f"{name} ({way.family})"] = tried(name, lambda way=way: tried_on(way, torch.device("cuda")))
    return found


def short_of_memory() -> Outcome:
    """Batches are halved until they fit; where not even one row fits there is one line."""
    gc.collect()
    torch.cuda.empty_cache()
    total = torch.cuda.get_device_properties(0).total_memory
    denoiser: Any = to_denoiser(load_demo().to("cuda"))
    prompts = (texts("general") + texts("control")) * 20
    condition = denoiser.encode(prompts)
    expected = memorization_score(denoiser, condition[list(range(80))], draws=4).score
    found: Outcome = {}
    try:
        for room in (600, 200, 60):  # MiB above what is taken
            gc.collect()
            torch.cuda.empty_cache()
            torch.cuda.set_per_process_memory_fraction((torch.cuda.memory_reserved() + room * 2**20) / total)
            torch.cuda.reset_peak_memory_stats()
            try:
                score = memorization_score(denoiser, condition, draws=4).score
                off = ((score[:80] - expected).abs() / expected).max().item()
                found[f"{room} MiB"] = f"done, peak {torch.cuda.max_memory_allocated() / 2**20:.0f}, off by {off:.1e}"
            except OutOfMemory as error:
                found[f"{room} MiB"] = f"refused: {error}"
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    wide = CallableDenoiser(
        lambda x, t, c: torch.empty(2**40, device="cuda").sum() + x,
        torch.linspace(0.999, 0.01, 1000),
        empty=torch.zeros(1, 1, 1),
        latent_shape=(4, 8, 8),
        fingerprint="wide",
    )
    try:
        memorization_score(wide, torch.zeros(1, 1, 1), noise=torch.zeros(1, 4, 8, 8))
        found["not one row"] = "went through"
    except OutOfMemory as error:
        found["not one row"] = f"one line: {error}"
    return found


SHAPES: dict[str, tuple[int, dict[str, Any]]] = {  # latent size, and what differs from the class's defaults
    "SD 1.5, 512 px": (64, {"cross_attention_dim": 768}),
    "SD 1.5, 768 px": (96, {"cross_attention_dim": 768}),
    "SDXL, 1024 px": (
        128,
        {
            "cross_attention_dim": 2048,
            "block_out_channels": (320, 640, 1280),
            "attention_head_dim": (5, 10, 20),
            "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
            "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
            "transformer_layers_per_block": (1, 2, 10),
            "use_linear_projection": True,
        },
    ),
}


def true_shapes(name: str) -> Outcome:
    """Time and memory of a check beside a guided step, in float16."""
    size, options = SHAPES[name]
    torch.set_default_dtype(torch.float16)
    try:
        with torch.device("cuda"):
            network: Any = UNet2DConditionModel(sample_size=size, **options).eval().requires_grad_(False)
    finally:
        torch.set_default_dtype(torch.float32)
    texts = torch.randn(2, 77, options["cross_attention_dim"], device="cuda", dtype=torch.float16)
    denoiser = CallableDenoiser(
        lambda x, t, text: network(x.half(), t, text).sample,
        DDIMScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear").alphas_cumprod,
        empty=texts[:1],
        latent_shape=(4, size, size),
        fingerprint=name,
    )
    noise = draw_noise(denoiser, 4, 0)
    x, late = noise[:1].half().cuda().repeat(2, 1, 1, 1), torch.full((2,), 981, device="cuda")
    return {
        "weights_GB": sum(p.numel() * p.element_size() for p in network.parameters()) / 1e9,
        "guided step": cost(lambda: network(x, late, texts).sample),
        "check": cost(lambda: memorization_score(denoiser, texts[1:], noise=noise)),
        "check without alignment": cost(lambda: memorization_score(denoiser, texts[1:], noise=noise, alignment=False)),
        "check, 2 rows a call": cost(lambda: memorization_score(denoiser, texts[1:], noise=noise, batch_rows=2)),
        "curvature map": cost(lambda: curvature_map(denoiser, noise[:1], denoiser.level(41), texts[1:])),
    }


def cost(work: Callable[[], object], rounds: int = 7) -> dict[str, float]:
    """Median and range of milliseconds, and the most memory above what was held before, in MB."""
    with torch.inference_mode():
        work()
        torch.cuda.synchronize()
        torch.cuda.empty_cache()
        held = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        times = []
        for _ in range(rounds):
            started = time.perf_counter()
            work()
            torch.cuda.synchronize()
            times.append(1000 * (time.perf_counter() - started))
    return {
        "ms": statistics.median(times),
        "least_ms": min(times),
        "most_ms": max(times),
        "peak_MB": (torch.cuda.max_memory_allocated() - held) / 1e6,
    }


def overhead() -> Outcome:
    """Guarded over unguarded wall time of the built-in model on the device, in pairs."""
    from .guard_overhead import paired

    pipe = load_demo().to("cuda", torch.float16)
    guard = calibrated(pipe)
    return {
        f"{images} images, {steps} steps": paired(pipe, guard, images, steps, 9)
        for images, steps in ((1, 50), (4, 50), (1, 20))
    }


def tried(name: str, work: Callable[[], Outcome]) -> Outcome:
    """The outcome, or what was raised: a path that fails is a finding, and must not hide the others."""
    started = time.perf_counter()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found = work()
    except Exception as error:  # noqa: BLE001
        where = traceback.extract_tb(error.__traceback__)[-1]
        found = {"failed": f"{type(error).__name__}: {error}"[:400], "at": f"{where.filename[-60:]}:{where.lineno}"}
        traceback.print_exc()
    gc.collect()
    torch.cuda.empty_cache()
    print(f"{name} ({time.perf_counter() - started:.0f} s): {found}", flush=True)
    return found


def main() -> None:
    options = arguments(__doc__, only={"nargs": "*", "default": None, "help": "names of paths, all by default"})
    paths: dict[str, Callable[[], Outcome]] = {
        **{name: lambda name=name: true_shapes(name) for name in SHAPES},
        "overhead": overhead,
        "fingerprints": fingerprints,
        **{name: lambda dtype=dtype: one_dtype(dtype) for name, dtype in DTYPES.items()},
        **{
            how: lambda how=how: offloaded(how) for how in ("enable_model_cpu_offload", "enable_sequential_cpu_offload")
        },
        "ways to run": ways_to_run,
        "short of memory": short_of_memory,
        "compiled": compiled,
    }
    chosen = {name: work for name, work in paths.items() if options.only is None or name in options.only}
    before = stored("cuda")["paths"] if (RESULTS / "cuda.json").exists() else {}
    document = {**before, **{name: tried(name, work) for name, work in chosen.items()}}
    store("cuda", {"device": torch.cuda.get_device_name(), "paths": document})


if __name__ == "__main__":
    main()
