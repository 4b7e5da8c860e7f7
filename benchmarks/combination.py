"""Which combination becomes the default score: `python -m benchmarks.combination --checkpoints FOLDER`.

Candidates learn from benign captions of the calibration split; they are compared on the dev split alone, at every
checkpoint and n = 1 and 4, by their AUC for the captions that reproduce at that checkpoint against each negative kind.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sklearn.covariance import LedoitWolf
from torch import Tensor

from cryptomnesia.adapters import to_denoiser
from cryptomnesia.benchmark.rates import stands_out
from cryptomnesia.calibration import private_noise
from cryptomnesia.demo import WEIGHTS, load_folder
from cryptomnesia.demo.captions import select
from cryptomnesia.signals.memorization import MemorizationResult, memorization_score

from .common import arguments, generate, store, stored, table
from .demo_model import POSITIVE, reproduction_by_caption
from .detection import FED, NEGATIVES, benign, true_kinds

Candidate = Callable[[MemorizationResult, MemorizationResult], Tensor]  # (benign, asked) -> (P,)


def _cloud(result: MemorizationResult, aniso: Tensor) -> Tensor:
    return torch.stack([result.iso.log(), aniso], 1).double()


def _distance(benign: Tensor, asked: Tensor) -> Tensor:
    """Returns the Mahalanobis distance from the benign cloud, with shrunk covariance; iso below its mean does not
    count."""
    centre = benign.mean(0)
    precision = torch.from_numpy(LedoitWolf().fit(benign.numpy()).precision_)
    away = asked - centre
    away[:, 0] = away[:, 0].clamp_min(0)
    return (away @ precision * away).sum(1)


def _rings(reference: Tensor, asked: MemorizationResult) -> Tensor:
    return (asked.spectrum.double() / reference).sum(1).log()


CANDIDATES: dict[str, Candidate] = {
    "iso": lambda normal, asked: asked.iso,
    "authors' sum": lambda normal, asked: asked.iso + 2 * asked.aniso,
    "consensus": lambda normal, asked: asked.spectrum.sum(1),
    "iso + aniso cloud, per pixel": lambda b, a: _distance(_cloud(b, b.aniso), _cloud(a, a.aniso)),
    "iso + aniso cloud, flattened": lambda b, a: _distance(_cloud(b, b.aniso_flat), _cloud(a, a.aniso_flat)),
    "rings / mean": lambda b, a: _rings(b.spectrum.double().mean(0), a),
    "rings / geometric mean": lambda b, a: _rings(b.spectrum.double().log().mean(0).exp(), a),
    "rings / 95 % quantile": lambda b, a: _rings(b.spectrum.double().quantile(0.95, 0), a),
    "rings, largest": lambda b, a: (a.spectrum.double() / b.spectrum.double().mean(0)).max(1).values.log(),
}


def measured(denoiser: Any, captions: list[Any], draws: int, seed: int) -> MemorizationResult:
    noise = private_noise(denoiser, range(len(captions)), draws, seed, denoiser.latent_shape())
    return memorization_score(denoiser, denoiser.encode([c.text for c in captions]), noise=noise)


def at_checkpoint(folder: Path, truth: dict[str, Any]) -> dict[str, Any]:
    """Returns the AUC per candidate, draws and negative kind, for dev captions that reproduce there."""
    pipe = load_folder(WEIGHTS, folder)
    denoiser = to_denoiser(pipe)
    fed = [c for kind in FED for c in select(kind, "dev")]
    rates = reproduction_by_caption(fed, generate(pipe, [c.text for c in fed], 4), truth["limits"])
    quiet = true_kinds("dev", truth["by_caption"])[0]
    asked = [c for c in fed if rates[c.text] >= POSITIVE] + [c for c in quiet if c.kind in NEGATIVES]
    normal_captions = benign(truth["by_caption"])
    kinds = np.array([c.kind for c in asked])
    positive = np.isin(kinds, FED)
    found: dict[str, Any] = {"reciting": int(positive.sum())}
    if not positive.any():
        return found
    for draws in (1, 4):
        normal, result = measured(denoiser, normal_captions, draws, 1), measured(denoiser, asked, draws, 2)
        for name, candidate in CANDIDATES.items():
            values = candidate(normal, result).double().numpy()
            for kind in NEGATIVES:
                found[f"{name} | n={draws} | {kind}"] = stands_out(values[positive], values[kinds == kind])
    return found


def main() -> None:
    options = arguments(__doc__, checkpoints={"type": Path, "required": True, "help": "training's checkpoint folder"})
    torch.set_grad_enabled(False)
    truth = stored("demo_model")
    found = {c.name: at_checkpoint(c, truth) for c in sorted(options.checkpoints.iterdir())}
    rows = []
    for name in CANDIDATES:
        values = [v for entry in found.values() for key, v in entry.items() if key.startswith(name + " |")]
        rows.append([name, float(np.mean(values)), float(np.min(values))])
    table(["candidate", "mean AUC", "worst AUC"], rows)
    store(
        "combination",
        {"split": "dev", "checkpoints": found, "summary": {r[0]: {"mean": r[1], "worst": r[2]} for r in rows}},
    )


if __name__ == "__main__":
    main()
