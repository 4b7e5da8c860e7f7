"""The zoo for the benchmark of attribution: its models, and what was measured on their images, kept in a folder."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from cryptomnesia.adapters import to_denoiser
from cryptomnesia.attribution.candidates import Candidate
from cryptomnesia.attribution.evidence import Evidence, gather
from cryptomnesia.attribution.guessing import Captions
from cryptomnesia.signals.spectral import signature
from training.zoo.load import load_model
from training.zoo.members import MEMBERS
from training.zoo.train import made

from .attribution_images import changed, guessable, images_of, prompts_of, tensors, write

MEASURED = ("empty", "clean", "prompt", "autoencoder")
GUESS = "prompt, guessed"


class Zoo:
    """The models that are there, opened when first used, and what was measured on their images."""

    def __init__(self, work: Path, only: list[str] | None = None, learned: Sequence[str] = ("calibration",)):
        self.work, self.learned = work, learned
        members = [m for m in MEMBERS if made(m) and (not only or m.name in only)]
        self.pool = [m.name for m in members if m.in_pool]
        self.unseen = [m.name for m in members if not m.in_pool]
        self._open: dict[str, Candidate] = {}

    @property
    def makers(self) -> list[str]:
        """The names of all models: those of the pool, then the unseen ones."""
        return [*self.pool, *self.unseen]

    def candidate(self, name: str) -> Candidate:
        """Returns the model of that name, opened when first asked for."""
        if name not in self._open:
            self._open[name] = Candidate(name, to_denoiser(load_model(name)))
        return self._open[name]

    def evidence(self, maker: str, split: str, change: str = "clean") -> Evidence:
        """Returns evidence on a model's images under every candidate of the pool; keeps one file for each pair.

        Beside the groups of `gather`, "prompt, guessed" is the group "prompt" with prompts that were guessed.
        """
        prompts = prompts_of(split)[:: 1 if change == "clean" else 3]
        known = self._measured("evidence", maker, split, change, prompts, MEASURED)
        guessed = self._measured("guessed", maker, split, change, self.guesses(maker, split, change), ("prompt",))
        return Evidence(tuple(self.pool), known | {GUESS: guessed["prompt"]})

    def guesses(self, maker: str, split: str, change: str = "clean") -> list[str]:
        """Returns what the prompts of a model's images are taken for, by the first model of the pool."""
        file = self._file("guesses", maker, split, change)
        if not file.exists():
            write(file, texts=self._captions().guess(self.candidate(self.pool[0]), self._shown(maker, split, change)))
        return np.load(file)["texts"].tolist()

    def _captions(self) -> Captions:
        """What prompts are guessed from, learned from the images that are learned from."""
        file = self._file("captions", *self.pool, *self.learned)
        if not file.exists():
            shown = [one for split in self.learned for maker in self.pool for one in self._shown(maker, split, "clean")]
            made = Captions.learn(guessable(), [self.candidate(name) for name in self.pool], shown)
            write(file, drawings=made.drawings.numpy(), weights=made.weights.numpy())
        found = np.load(file)
        return Captions(tuple(guessable()), *(torch.from_numpy(found[name]) for name in ("drawings", "weights")))

    def _shown(self, maker: str, split: str, change: str) -> list[Tensor]:
        images = images_of(maker, split, self.work)
        return tensors(images if change == "clean" else changed(images[::3], change))

    def _measured(
        self, kind: str, maker: str, split: str, change: str, prompts: list[str], groups: Sequence[str]
    ) -> dict[str, Tensor]:
        """Evidence under every candidate, (n, C, F) per group, measured where it is not in the folder."""
        files = {name: self._file(kind, maker, split, change, name) for name in self.pool}
        missing = [name for name, file in files.items() if not file.exists()]
        if missing:
            asked = [self.candidate(name) for name in missing]
            found = gather(self._shown(maker, split, change), asked, prompts, groups=groups)
            for i, name in enumerate(missing):
                write(files[name], **{group: values[:, i].numpy() for group, values in found.groups.items()})
            print(f"measured {kind} of {maker}'s {split} images, {change}, under {', '.join(missing)}", flush=True)
        parts = [np.load(file) for file in files.values()]
        return {group: torch.from_numpy(np.stack([part[group] for part in parts], 1)) for group in groups}

    def signatures(self, prober: str, maker: str, split: str, plan: Any, count: int | None = None) -> Tensor:
        """Returns signatures of a model's n images under a denoiser, (n, N)."""
        file = self._file("signatures", plan, prober, maker, split, str(count or "all"))
        if not file.exists():
            images = images_of(maker, split, self.work)[:count]
            candidate = self.candidate(prober)
            latents = torch.cat([candidate.coder.encode_image(image) for image in tensors(images)])
            write(file, values=signature(candidate.denoiser, latents, plan=plan).numpy())
            print(f"measured {plan} signatures of {maker}'s {split} images under {prober}", flush=True)
        return torch.from_numpy(np.load(file)["values"])

    def _file(self, *parts: str) -> Path:
        return self.work / ("-".join(parts).replace(" ", "_").replace("%", "") + ".npz")
