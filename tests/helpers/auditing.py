"""Small audits: a denoiser that reads texts, a job that opens it, and what a run wrote."""

import hashlib
import os
import signal
import time
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import torch

from cryptomnesia import Guard
from cryptomnesia.audit.prompts import PromptJob
from cryptomnesia.audit.run import Audit, open_engine
from cryptomnesia.calibration import calibrate
from cryptomnesia.denoiser import CallableDenoiser, Condition
from cryptomnesia.errors import OutOfMemory

ABAR = torch.linspace(0.9999, 0.005, 1000, dtype=torch.float64)
SHAPE = (4, 8, 8)


class Reader(CallableDenoiser):
    """A convolution whose bias is a text's digest.

    Args:
        seed: Of its weights.
        rows: Most rows of a call; more are too many for its memory.
        seconds: What a call takes.
    """

    def __init__(self, seed=0, rows=None, seconds=0.0):
        generator = torch.Generator().manual_seed(seed)
        self.weights = torch.randn(4, 4, 3, 3, generator=generator) / 8
        super().__init__(self.answer, ABAR, empty=condition_of([""]), latent_shape=SHAPE)
        self.rows, self.seconds, self.asked = rows, seconds, []

    def answer(self, x, time_, condition):
        time.sleep(self.seconds)
        self.asked.append(len(x))
        if self.rows is not None and len(x) > self.rows:
            raise OutOfMemory("too many")
        answer = torch.nn.functional.conv2d(x, self.weights, padding=1)
        pull = condition.mean(1)[:, :4, None, None] * (1 + condition[:, 0, 4:, None, None])
        return answer + pull * (1 + 0.3 * x.tanh())

    def encode(self, prompt):
        return Condition(text=condition_of(prompt))

    def truncated(self, prompt):
        return False


def condition_of(texts):
    """(P, 2, 5), by a digest of each text; of the empty text zeros. Some texts do harm."""
    return torch.stack([_condition(text) for text in texts])


def _condition(text):
    if text.startswith("not a number"):
        return torch.full((2, 5), torch.nan)
    if text.startswith("deadly"):
        os.kill(os.getpid(), signal.SIGKILL)
    digest = hashlib.sha256(text.encode()).digest()[:10]
    return torch.tensor(list(digest)).float().view(2, 5) / 255 if text else torch.zeros(2, 5)


@cache
def calibration():
    """Of Reader(0), at two draws."""
    return calibrate(Reader(), condition_of([f"benign {i}" for i in range(120)]), draws=2, alpha=0.05)


@dataclass(frozen=True)
class Opener:
    """Opens a guard on a Reader; its seed may stand in a file, so that it can be replaced."""

    seed: int | str = 0
    rows: int | None = None
    seconds: float = 0.0
    calibrated: bool = True

    def __call__(self):
        seed = int(Path(self.seed).read_text()) if isinstance(self.seed, str) else self.seed
        return Guard(Reader(seed, self.rows, self.seconds), calibration() if self.calibrated else None), 2


def log(folder, count, odd=()):
    """A .txt of that many prompts, some of them given by their row."""
    rows = dict(odd)
    path = folder / "log.txt"
    path.write_text("\n".join(rows.get(i, f"prompt number {i}") for i in range(count)))
    return path


def audit(source, out, *, engine="local", batch=None, workers=None, seed=0, opener=None):
    """A whole run, and what it wrote."""
    job = PromptJob(opener or Opener(), seed)
    run = Audit(source, job, out)
    with open_engine(engine, job, workers) as opened:
        for _ in run.steps(opened, batch):
            pass
    run.finish()
    return results(out)


def results(out, name="results"):
    """All rows of a run's results or rejects, in order."""
    import pyarrow.parquet as pq

    return [row for file in sorted((out / name).glob("part-*.parquet")) for row in pq.read_table(file).to_pylist()]


def equal(some, others, tolerance=0.0):
    """Whether two lists of rows say the same, numbers within a tolerance relative to 1 or their size."""
    if len(some) != len(others):
        return False
    pairs = [(a[key], b[key]) for a, b in zip(some, others, strict=True) for key in a]
    return all(
        abs(a - b) <= tolerance * max(1, abs(a)) if isinstance(a, float) and isinstance(b, float) else a == b
        for a, b in pairs
    )
