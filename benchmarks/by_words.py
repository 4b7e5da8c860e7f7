"""Memorization told by what words lead to expect: `python -m benchmarks.by_words --work WORK`.

A calibration by words takes a part of what the prompt's text embedding leads to expect off the score; see
`cryptomnesia.expectation`. Here beside the usual score, on the same noise and the same benign captions: the built-in
model before and after it memorized, its students, and rectified flow, on the captions that the rule was chosen on (dev;
see `benchmarks.by_words_tried`), those of the tables (eval), and of flow the sealed ones, which took part in no choice.
The guidance on every caption is measured once and kept in WORK, four draws each; at one draw, all four are tried.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from cryptomnesia.adapters import to_denoiser
from cryptomnesia.calibration import Calibration, from_spectra, level_at, private_noise
from cryptomnesia.condition import mean_text
from cryptomnesia.demo import load_demo
from cryptomnesia.demo.captions import Caption
from cryptomnesia.denoiser import Denoiser
from cryptomnesia.signals.guidance import Guidance
from cryptomnesia.signals.memorization import MemorizationResult, of_vectors
from training.flow_captions import SEALED, all_captions, select

from .common import arguments, store, stored, stored_models, table
from .detection import FED, NEGATIVES, POSITIVES, Scores, benign, by_truth, mean_of, pairs
from .known_truth import FLOW, STUDENTS, load

NAME = "by_words"
EARLY, FINAL = "early", "final"  # checkpoints of the built-in model
MODELS = (FINAL, *STUDENTS, FLOW, EARLY)
DRAWS, PER_FILE = 4, 64
USUAL, BY_WORDS = "usual", "by words"


class Measured(NamedTuple):
    """What a model answers about all captions: (P, 4, C, H, W) and (P, D), by the captions' numbers."""

    guidance: Tensor
    words: Tensor

    def result(self, numbers: list[int], draws: slice) -> MemorizationResult:
        """Returns the measurement of some captions on some of the draws."""
        return of_vectors(self.guidance[numbers][:, draws].float(), 0, words=self.words[numbers].float())


def measured(name: str, work: Path) -> Measured:
    """Measures a model's captions, as far as they are not in WORK; their numbers are those of their private noise."""
    work.mkdir(parents=True, exist_ok=True)
    texts = [c.text for c in all_captions() if name == FLOW or c.split != SEALED]
    denoiser, parts = None, []
    for start in range(0, len(texts), PER_FILE):
        path = work / f"{name}-{start:04}.npz"
        if not path.exists():
            denoiser = denoiser or open_model(name)
            numbers = range(start, min(start + PER_FILE, len(texts)))
            vectors, words = _guidance(denoiser, [texts[i] for i in numbers], numbers)
            with path.with_suffix(".part").open("wb") as file:
                np.savez(file, guidance=vectors.half().numpy(), words=words.half().numpy())
            path.with_suffix(".part").rename(path)
            print(name, numbers.stop, "of", len(texts), flush=True)
        parts.append(np.load(path))
    return Measured(*(torch.from_numpy(np.concatenate([part[key] for part in parts])) for key in ("guidance", "words")))


def open_model(name: str) -> Denoiser:
    """Returns a model, by its own reference."""
    return to_denoiser(load_demo(name) if name in (EARLY, FINAL) else load(name))  # type: ignore[arg-type]


def _guidance(denoiser: Any, texts: list[str], numbers: range) -> tuple[Tensor, Tensor]:
    noise = private_noise(denoiser, numbers, DRAWS, 1, denoiser.latent_shape())
    condition, level = denoiser.encode(texts), level_at(denoiser, None)
    vectors = [Guidance(denoiser, draws, level=level)(condition[[i]]) for i, draws in enumerate(noise)]
    return torch.cat(vectors), mean_text(condition)  # type: ignore[return-value]


def truth_of(name: str) -> dict[str, dict[str, float]]:
    """Returns how often each caption is reproduced; of the model before it memorized, by the one after."""
    if name in (EARLY, FINAL):
        return stored("demo_model")["by_caption"]
    return stored("known_truth_captions")["models"][name]["by_caption"]


def captions_of(name: str, split: str) -> list[Caption]:
    """Returns a split's captions by what the model really does; see `detection.by_truth`."""
    truth = stored_models("flow_sealed")[FLOW]["by_caption"] if split == SEALED else truth_of(name)
    return by_truth([c for c in select(split=split) if c.kind == "general" or c.text in truth[c.kind]], truth)[0]


def trials(draws: int) -> Iterator[slice]:
    """Yields the draws of each trial."""
    for start in range(0, DRAWS, draws):
        yield slice(start, start + draws)


def calibrations(denoiser: Any, normal: MemorizationResult) -> dict[str, Calibration]:
    """Returns a calibration of each way."""
    settings: dict[str, Any] = {"draws": normal.draws, "seed": 1, "alpha": 0.01, "shape": denoiser.latent_shape()}
    words = {USUAL: None, BY_WORDS: normal.words}
    return {way: from_spectra(denoiser, normal.spectrum, words=known, **settings) for way, known in words.items()}


def evaluate(denoiser: Any, answers: Measured, name: str, split: str, draws: int) -> dict[str, Any]:
    """Returns the mean over trials of AUC and TPR at 1 % for every pair of kinds, and what is flagged at alpha .01.

    Of the pairs twice: captions by what is reproduced, and all captions that were fed, reproduced or not.
    """
    number = {c.text: i for i, c in enumerate(all_captions())}
    captions, normal = captions_of(name, split), benign(truth_of(name))
    fed = [c for kind in FED for c in select(kind, split)] + [c for c in captions if c.kind in NEGATIVES]
    by_pair, by_fed, shares = [], [], []
    for trial in trials(draws):
        known = calibrations(denoiser, answers.result([number[c.text] for c in normal], trial))

        def scores(asked: list[Caption], known: dict[str, Calibration] = known, trial: slice = trial) -> Scores:
            result = answers.result([number[c.text] for c in asked], trial)
            return {way: calibration.score(result).numpy() for way, calibration in known.items()}

        found, kinds = scores(captions), np.array([c.kind for c in captions])
        by_pair.append(pairs(found, captions))
        by_fed.append(pairs(scores(fed), fed))
        present = [kind for kind in (*POSITIVES, *NEGATIVES) if (kinds == kind).any()]
        shares.append(
            {w: {k: float((found[w][kinds == k] > c.threshold).mean()) for k in present} for w, c in known.items()}
        )
    return {"pairs": mean_of(by_pair), "fed": mean_of(by_fed), "flagged_at_alpha_.01": mean_of(shares)}


def main() -> None:
    options = arguments(__doc__, work={"type": Path, "required": True}, only={"nargs": "*", "default": MODELS})
    torch.set_grad_enabled(False)
    models = stored_models(NAME)
    for name in options.only:
        answers, denoiser = measured(name, options.work), open_model(name)
        models[name] = {"benign": len(benign(truth_of(name)))}
        for split in ("dev", "eval", SEALED) if name == FLOW else ("dev", "eval"):
            captions = captions_of(name, split)
            about: dict[str, Any] = {"kept": {k: sum(c.kind == k for c in captions) for k in (*POSITIVES, *NEGATIVES)}}
            for draws in (1, DRAWS):
                about[f"n={draws}"] = found = evaluate(denoiser, answers, name, split, draws)
                print(f"\n{name}, {split}, n = {draws}: flagged {found['flagged_at_alpha_.01']}")
                kind = "fed" if name == EARLY else "pairs"
                rows = [[p, *(f"{v['auc']:.3f}/{v['tpr']:.2f}" for v in r.values())] for p, r in found[kind].items()]
                table(["positive / negative", USUAL, BY_WORDS], rows)
            models[name][split] = about
        store(NAME, {"noise_seed": 1, "models": models})


if __name__ == "__main__":
    main()
