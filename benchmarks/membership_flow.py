"""Membership on rectified flow: `python -m benchmarks.membership_flow WORK` (needs the font).

The small flow transformer's training images against held-out ones of the same kinds, without captions, on the sealed
captions: at the default level and half way, where Rao & Moyer 2026 (arXiv 2603.13421) see most, and divided by the
image's complexity, as they do. The default stayed what it was by captions of the split "eval" (`--split eval`). Fixed
images were seen over and over, general ones seldom.
"""

import argparse
import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from cryptomnesia.adapters import to_denoiser
from cryptomnesia.comparability import IMAGE_FEATURES, image_features
from cryptomnesia.membership.settings import NOISE_TO_SIGNAL
from cryptomnesia.signals.membership_methods import METHODS
from cryptomnesia.two_samples import auc, auc_interval, permutation_p, rank_sum_p
from training.demo.records import Record
from training.flow_captions import select
from training.latents import pictures

from .common import store, table
from .known_truth import FLOW, load
from .membership_data import LATER

DEFAULT = NOISE_TO_SIGNAL / (1 + NOISE_TO_SIGNAL)
HALF_WAY = 0.5
DRAWS, PART, GENERAL = 8, 20, 40
SIZE, TRIALS, ALPHA = 20, 200, 0.05
ASKED = (("sima_mc", HALF_WAY), ("sima_mc", DEFAULT), ("sima", HALF_WAY), ("sima", DEFAULT))


def kinds(split: str) -> dict[str, tuple[list[Record], list[Record]]]:
    """By kind, images that were trained on and others like them. Control captions have no fixed image, but are composed
    as fixed images are."""
    fixed, like = select("verbatim", split), select("control", split)
    general = select("general", split)[:GENERAL]
    return {
        "fixed images": ([Record(c, 0) for c in fixed], [Record(c, 512) for c in like]),
        "general images": ([Record(c, n % 16) for n, c in enumerate(general)], [Record(c, LATER) for c in general]),
    }


def drawn(records: list[Record]) -> torch.Tensor:
    """(B, 3, 64, 64) in [0, 1]."""
    return torch.from_numpy(pictures(records)).permute(0, 3, 1, 2).float() / 255


def statistic(denoiser: Any, method: str, time: float, records: list[Record], work: Path) -> NDArray[np.float64]:
    """The log of the statistic of each image, without captions; kept."""
    about = (FLOW, method, time, DRAWS, [(r.caption.text, r.rendering) for r in records])
    file = work / f"{hashlib.sha256(repr(about).encode()).hexdigest()[:24]}.npy"
    if not file.exists():
        parts = []
        for images in drawn(records).split(PART):
            z = denoiser.encode_image(images)
            parts.append(METHODS[method](denoiser, z, [time], None, DRAWS, 0)[0].double().log())
        np.save(file, torch.cat(parts).numpy())
    return np.load(file)


def told(members: NDArray[np.float64], others: NDArray[np.float64]) -> dict[str, Any]:
    """AUC per image, and how often folders of SIZE are found, and of others alone are called so."""
    value, rng = auc(members, others), np.random.default_rng(0)
    rates = {"power": [], "false_alarms": []}
    half = min(SIZE, len(others) // 2)
    for trial in range(TRIALS):
        order = rng.permutation(len(others))
        one, rest = others[order[:half]], others[order[half : 2 * half]]
        some = rng.choice(members, min(SIZE, len(members)), replace=False)
        for name, low, high in (("power", some, others[order[:SIZE]]), ("false_alarms", one, rest)):
            rates[name].append(max(permutation_p(low, high, trial, 499), rank_sum_p(low, high)) <= ALPHA)
    found = {name: float(np.mean(values)) for name, values in rates.items()}
    return {"auc": value, "interval": auc_interval(value, len(members), len(others)), **found}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("work", type=Path)
    parser.add_argument("--split", default="sealed", help="captions to report on; eval to choose by")
    options = parser.parse_args()
    options.work.mkdir(parents=True, exist_ok=True)
    denoiser, sets = to_denoiser(load(FLOW)), kinds(options.split)
    column = IMAGE_FEATURES.index("compressed size")
    found: dict[str, Any] = {}
    for kind, (members, others) in sets.items():
        plain = [[image_features(image[None])[column] for image in drawn(records)] for records in (members, others)]
        sizes = [np.array(numbers) for numbers in plain]
        for method, time in ASKED:
            low, high = (statistic(denoiser, method, time, records, options.work) for records in (members, others))
            for name, divided in (("as it is", 0.0), ("by complexity", 1.0)):
                row = told(low - divided * sizes[0], high - divided * sizes[1])
                found.setdefault(kind, {})[f"{method}, s = {time:.2f}, {name}"] = row
            print(kind, method, time, {k: v["auc"] for k, v in found[kind].items()}, flush=True)
        table(
            [f"{kind}: {len(members)}, {len(others)}", "AUC", "power", "false alarms"],
            [[name, row["auc"], row["power"], row["false_alarms"]] for name, row in found[kind].items()],
        )
    if options.split == "sealed":
        counts = {kind: [len(members), len(others)] for kind, (members, others) in sets.items()}
        store("membership_flow", {"draws": DRAWS, "size": SIZE, "trials": TRIALS, "images": counts, "kinds": found})


if __name__ == "__main__":
    torch.set_grad_enabled(False)
    main()
