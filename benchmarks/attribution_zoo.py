"""The zoo for the benchmark of attribution: its models, and what was measured on their images, kept in a folder."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from cryptomnesia.adapters import to_denoiser
from cryptomnesia.attribution.candidates import Candidate
from cryptomnesia.attribution.evidence import Evidence, default_groups, gather
from cryptomnesia.signals.spectral import signature
from training.zoo.load import load_model
from training.zoo.members import MEMBERS
from training.zoo.train import made

from .attribution_images import changed, images_of, prompts_of, tensors, write

MEASURED = default_groups(prompted=True)
ALTERED = 4  # every fourth image is looked at after a change, too


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
        """Returns evidence on a model's images under every candidate of the pool; keeps one file for each pair."""
        files = {name: self._file("evidence", maker, split, change, name) for name in self.pool}
        missing = [name for name, file in files.items() if not file.exists()]
        if missing:
            images, prompts = images_of(maker, split, self.work), prompts_of(split)
            if change != "clean":
                images, prompts = images[::ALTERED], prompts[::ALTERED]
            measured = gather(
                tensors(changed(images, change)), [self.candidate(n) for n in missing], prompts, groups=MEASURED
            )
            for i, name in enumerate(missing):
                write(files[name], **{group: values[:, i].numpy() for group, values in measured.groups.items()})
            print(f"measured {maker}'s {split} images, {change}, under {', '.join(missing)}", flush=True)
        parts = [np.load(files[name]) for name in self.pool]
        groups = {group: torch.from_numpy(np.stack([part[group] for part in parts], 1)) for group in MEASURED}
        return Evidence(tuple(self.pool), groups)

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
