"""What a check costs: `python -m benchmarks.speed`. Ratios within one run, medians with spread.

The authors' procedure, per prompt and draw: four network calls of two rows (two of them unused), each with the prompt
and the empty prompt. Encoding the prompts is left out on both sides. A check asks at pure noise alone, and about the
empty prompt once per model; with alignment it measures all that theirs does.
"""

import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import torch

from cryptomnesia import Guard
from cryptomnesia.adapters import to_denoiser
from cryptomnesia.demo import load_demo
from cryptomnesia.demo.captions import captions
from cryptomnesia.denoiser import Condition
from cryptomnesia.signals.draws import draw_noise
from cryptomnesia.signals.guidance import Guidance
from cryptomnesia.signals.memorization import memorization_score, score_on

from .common import arguments, peak_memory, store

PROMPTS = 64


def authors(denoiser: Any, condition: Condition, noise: torch.Tensor) -> None:
    """Four calls of two rows per prompt and draw."""
    for i in range(len(condition)):
        pair = Condition.cat([condition[[i]], denoiser.empty])
        for x in noise:
            for t in (981, 41, 981, 41):
                denoiser.predict(torch.stack([x, x]), denoiser.level(t), pair)


def seconds(work: Callable[[], object]) -> float:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    start = time.perf_counter()
    work()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - start


def paired(ours: Callable[[], object], theirs: Callable[[], object], rounds: int) -> dict[str, Any]:
    """Ratios ours / theirs of alternating runs."""
    seconds(ours)
    seconds(theirs)
    times = [(seconds(ours), seconds(theirs)) for _ in range(rounds)]
    ratios = sorted(a / b for a, b in times)
    return {
        "ratio": statistics.median(ratios),
        "spread": [ratios[0], ratios[-1]],
        "our_seconds": statistics.median(a for a, _ in times),
        "their_seconds": statistics.median(b for _, b in times),
    }


def peak_of_a_check(prompts: int) -> int:
    """Peak resident bytes of a process that checks that many prompts on the CPU."""
    code = f"import benchmarks.speed as s; s.check_in_own_process({prompts})"
    return int(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout)


def check_in_own_process(prompts: int) -> None:
    from cryptomnesia import Guard

    texts = [c.text for c in captions()]
    for _ in Guard(load_demo()).check_many((texts * (prompts // len(texts) + 1))[:prompts]):
        pass
    print(peak_memory())


IMPORTS = """
import time
start = time.perf_counter()
import torch, numpy
middle = time.perf_counter()
import cryptomnesia
from cryptomnesia import CallableDenoiser
print(middle - start, time.perf_counter() - middle)
"""


def import_cost(rounds: int) -> dict[str, Any]:
    """Seconds of `import cryptomnesia` after torch's, and as a share of torch's, each in a process of its own."""
    runs = []
    for _ in range(rounds):
        out = subprocess.run([sys.executable, "-c", IMPORTS], capture_output=True, text=True, check=True).stdout
        runs.append(tuple(map(float, out.split())))
    ratios = sorted(own / torchs for torchs, own in runs)
    return {
        "seconds": statistics.median(own for _, own in runs),
        "ratio": statistics.median(ratios),
        "spread": [ratios[0], ratios[-1]],
    }


def on_device(device: str, rounds: int) -> dict[str, Any]:
    denoiser: Any = to_denoiser(load_demo().to(device))
    condition = denoiser.encode([c.text for c in captions()[:PROMPTS]])
    result = {}
    for draws in (1, 4):
        noise = draw_noise(denoiser, draws, 0)
        guidance = Guidance(denoiser, noise)
        for name, few, times in (("one prompt", condition[[0]], 3 * rounds), (f"{PROMPTS} prompts", condition, rounds)):
            result[f"{name}, n={draws}"] = paired(
                lambda guidance=guidance, few=few: score_on(guidance, few),
                lambda noise=noise, few=few: authors(denoiser, few, noise),
                times,
            )
            result[f"{name}, n={draws}, with alignment"] = paired(
                lambda noise=noise, few=few: memorization_score(denoiser, few, noise=noise),
                lambda noise=noise, few=few: authors(denoiser, few, noise),
                times,
            )
    return result


def outside_the_networks(rounds: int) -> dict[str, Any]:
    """The share of a single check's time, with calibration and text, that is spent outside of network and text encoder,
    on the built-in model: 4.8 million parameters, so that there is little to divide by."""
    guard, inside = Guard(load_demo(), "auto"), [0.0]
    denoiser: Any = guard.denoiser

    def timed(own: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any) -> Any:
            start = time.perf_counter()
            answer = own(*arguments)
            inside[0] += time.perf_counter() - start
            return answer

        return call

    denoiser.output, denoiser._encode = timed(denoiser.output), timed(denoiser._encode)
    guard.check("warm up")
    shares, totals = [], []
    for number in range(rounds * 5):
        inside[0] = 0.0
        totals.append(seconds(lambda number=number: guard.check(f"the keeper of {number}")))
        shares.append(1 - inside[0] / totals[-1])
    return {
        "share": statistics.median(shares),
        "spread": [min(shares), max(shares)],
        "seconds": statistics.median(totals),
    }


def main() -> None:
    options = arguments(__doc__, rounds={"type": int, "default": 7})
    torch.set_grad_enabled(False)
    document: dict[str, Any] = {"rounds": options.rounds, "import": import_cost(options.rounds)}
    print(f"import: {document['import']['seconds']:.3f} s, {document['import']['ratio']:.3f} of torch's")
    for device in ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]:
        document[device] = on_device(device, options.rounds)
        for name, row in document[device].items():
            print(f"{device}: {name}: {row['ratio']:.3f} of the authors' time, spread {row['spread']}")
    document["outside_the_networks"] = outside_the_networks(options.rounds)
    print("outside the networks", document["outside_the_networks"])
    small, large = peak_of_a_check(64), peak_of_a_check(1000)
    document["peak_memory"] = {"64 prompts": small, "1000 prompts": large, "ratio": large / small}
    print(json.dumps(document["peak_memory"]))
    store("speed", document)


if __name__ == "__main__":
    main()
