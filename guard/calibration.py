"""From scores to p-values and verdicts, with a promised false-alarm rate.

A calibration holds what benign prompts score on one model under one setting. Conformal p-value of a new prompt:
p = (1 + #{benign >= score}) / (n + 1); "memorized" if p <= alpha. If benign prompts are exchangeable with the user's,
at most a share alpha of benign prompts is flagged (Vovk et al. 2005; Bates et al. 2023, arXiv 2104.08279). That holds
exactly for a fixed score, and approximately here: the score's eight reference energies are learned from the same
prompts, so each benign prompt is scored with the others' references.
"""

import datetime
import hashlib
import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .calibration_file import LEAST, MOST_DRAWS, SCHEMA, read_values
from .calibration_misfit import Binding, binding_of, misfit
from .combination import Combination, left_out_scores, require_finite
from .condition import mean_text
from .denoiser import Condition, Denoiser, NoiseLevel
from .errors import CalibrationError, InputError
from .expectation import Expectation, learn
from .false_discovery import adjusted, rejected
from .files import write_atomically
from .reference import Reference
from .signals.draws import derived_seed, draw_noise
from .signals.memorization import MemorizationResult, memorization_score
from .signals.rings import RINGS


def conformal(benign: Tensor, scores: Tensor) -> Tensor:
    """Returns conformal p-values (P,) float64 of scores against benign ones (n,); small = unlike benign.

    Raises NonFiniteError for NaN or infinity, which would sort as the highest score.
    """
    for values in (benign, scores):
        require_finite(values, "the scores")
    benign = benign.double().sort().values
    at_least = len(benign) - torch.searchsorted(benign, scores.double().contiguous())
    return (1 + at_least).double() / (len(benign) + 1)


def benjamini_hochberg(p_values: Sequence[float], alpha: float = 0.01) -> list[bool]:
    """Returns which of many p-values to reject so that the expected share of false alarms among them is <= alpha.

    Raises NonFiniteError for NaN, and InputError for what else is no p-value.

    Reference: Benjamini & Hochberg 1995.
    """
    values = np.asarray(p_values, dtype=np.float64)
    require_finite(torch.from_numpy(values), "the p-values")
    return rejected(adjusted(values), alpha).tolist()


@dataclass(frozen=True)
class Calibration:
    """Benign scores of one model (fingerprint), at one latent size, dtype and draw count.

    Attributes:
        fingerprint, family, dtype, latent_shape, draws: The model and settings that it holds for.
        alpha: The promised false-alarm rate.
        seed, created: The seed and the date that it was made with and on.
        combination: What turns measurements into a score.
        scores: Leave-one-out scores of the benign prompts.
        prompts: SHA-256 of the benign prompts, where their texts are known.
        reference: What prompts were compared with; see `reference`.
        time: The timestep that guidance is taken at, where it is not the model's own at pure noise: the first of a
            sampler's, so that an attached guard reads its call.
        expectation: What the prompt's words lead to take off the score; None where words were not asked for.
    """

    fingerprint: str
    family: str
    dtype: str
    latent_shape: tuple[int, int, int]
    draws: int
    alpha: float
    seed: int
    created: str
    combination: Combination
    scores: list[float]
    prompts: str | None = None
    reference: Reference = "empty branch"
    time: int | None = None
    expectation: Expectation | None = None

    @property
    def n(self) -> int:
        """Number of benign prompts."""
        return len(self.scores)

    @property
    def threshold(self) -> float:
        """Scores above it are called memorized; infinite if there are too few benign prompts for alpha."""
        allowed = math.floor(self.alpha * (self.n + 1)) - 1
        return math.inf if allowed < 0 else sorted(self.scores, reverse=True)[allowed]

    @cached_property
    def identity(self) -> str:
        """A short digest of the whole calibration."""
        return hashlib.sha256(json.dumps(self._document(), sort_keys=True).encode()).hexdigest()[:16]

    def level(self, denoiser: Denoiser) -> NoiseLevel:
        """Returns the level that its scores are taken at on a model that it fits."""
        return level_at(denoiser, self.time)

    def score(self, result: MemorizationResult) -> Tensor:
        """Returns the score (P,) float64 that was learned from benign prompts; higher = more likely memorized.

        Raises CalibrationError if the result was measured with another number of draws, or lacks the alignment that
        the score weighs, or the embeddings that it reads.
        """
        if result.draws != self.draws:
            raise CalibrationError(
                f"calibrated at {self.draws} draws, measured with {result.draws}: use the same number"
            )
        return self.combination.score(result.spectrum, result.alignments) - self.expected(result.words)

    def expected(self, words: Tensor | None) -> Tensor | float:
        """Returns what is taken off the scores of prompts with mean text embeddings (P, D); see `Expectation.of`."""
        return 0.0 if self.expectation is None else self.expectation.of(words)

    def p_value(self, result: MemorizationResult) -> Tensor:
        """Returns (P,) float64 conformal p-values in (0, 1]; small = unlike benign prompts. Errors as in `score`."""
        return self.p_of(self.score(result))

    def p_of(self, scores: Tensor) -> Tensor:
        """Returns (P,) float64 conformal p-values of scores that `score` gave."""
        return conformal(torch.tensor(self.scores, dtype=torch.float64), scores)

    def require(
        self, denoiser: Denoiser, draws: int, latent_shape: Sequence[int], fingerprint: str | None = None
    ) -> None:
        """Raises CalibrationError, saying what differs and how to fix it, unless it was made for this.

        The denoiser's fingerprint may be given where it is known already.
        """
        reason = misfit(self.binding, binding_of(denoiser, latent_shape, draws, fingerprint), denoiser)
        if reason is not None:
            raise CalibrationError(f"this calibration is {reason}")

    @property
    def binding(self) -> Binding:
        """The model and settings that it holds for."""
        return Binding(
            self.family, self.dtype, self.fingerprint, tuple(self.latent_shape), self.draws, self.reference, self.time
        )

    def save(self, path: str | Path) -> None:
        """Writes a *.calibration.json atomically."""
        write_json(Path(path), self._document())

    def _document(self) -> dict[str, Any]:
        document = {"schema": SCHEMA, "n": self.n, **asdict(self)}
        if self.prompts is None:  # as files of the time before it was kept
            del document["prompts"]
        if self.reference == "empty branch":  # likewise
            del document["reference"]
        if self.time is None:
            del document["time"]
        if self.combination.weights is None:
            del document["combination"]["weights"]
        if self.expectation is None:
            del document["expectation"]
        return document | {"seed": str(self.seed), "latent_shape": list(self.latent_shape)}

    @staticmethod
    def load(path: str | Path) -> "Calibration":
        """Loads a file that `save` wrote. Raises CalibrationError if anything in it is missing, extra or odd."""
        values = read_values(Path(path))
        expectation = values.pop("expectation")
        return Calibration(
            combination=Combination(values.pop("energies"), values.pop("weights")),
            expectation=None if expectation is None else Expectation(**expectation),
            **values,
        )


def write_json(path: Path, document: Any) -> None:
    """Writes a document as a JSON file, atomically."""
    write_atomically(path, json.dumps(document, indent=1).encode())


def private_noise(denoiser: Denoiser, prompts: range, draws: int, seed: int, shape: tuple[int, int, int]) -> Tensor:
    """Returns noise (P, draws, C, H, W), other for each prompt, so that a calibration does not depend on one noise."""
    return torch.stack([draw_noise(denoiser, draws, derived_seed(seed, i), shape) for i in prompts])


def level_at(denoiser: Denoiser, time: int | None) -> NoiseLevel:
    """Returns the level at a timestep; None is the model's own at pure noise.

    Raises InputError for a timestep that the model has not, and for any where there are none, as in flow matching.
    """
    if time is None:
        return denoiser.levels.pure_noise
    if denoiser.prediction_type == "flow":
        raise InputError("a model of flow matching is sampled from time 1 on, whatever the steps: leave out time")
    return denoiser.level(time)


def measure_benign(
    denoiser: Denoiser,
    condition: Condition,
    prompts: range,
    draws: int,
    seed: int,
    shape: tuple[int, int, int],
    time: int | None = None,
    alignment: bool = False,
) -> Tensor:
    """Returns spectra (P, 8) of the benign prompts with those numbers, with alignment also both of these (P, 10).

    `condition` has their rows.
    """
    noise = private_noise(denoiser, prompts, draws, seed, shape)
    level = level_at(denoiser, time)
    measured = memorization_score(denoiser, condition, noise=noise, level=level, alignment=alignment)
    return measured.spectrum if measured.alignments is None else torch.cat([measured.spectrum, measured.alignments], 1)


def check_promise(prompts: int, alpha: float, draws: int = 1) -> None:
    """Raises InputError unless that many benign prompts can promise a false-alarm rate of alpha, with those draws."""
    if not 1 <= draws <= MOST_DRAWS:
        raise InputError(f"a calibration takes at least one noise draw and at most {MOST_DRAWS}, not {draws}")
    if prompts < LEAST:
        raise InputError(f"{prompts} benign prompts are too few: a calibration needs at least {LEAST}")
    if not 0 < alpha < 1:
        raise InputError(f"alpha is a false-alarm rate between 0 and 1, not {alpha}")
    if alpha * (prompts + 1) < 1:
        raise InputError(
            f"{prompts} benign prompts cannot promise a false-alarm rate of {alpha}: "
            f"give at least {math.ceil(1 / alpha) - 1}, or raise alpha"
        )


def from_spectra(
    denoiser: Denoiser,
    benign: Tensor,
    *,
    draws: int,
    seed: int,
    alpha: float,
    shape: tuple[int, int, int],
    prompts: str | None = None,
    time: int | None = None,
    weights: list[float] | None = None,
    words: Tensor | None = None,
) -> Calibration:
    """Returns a calibration from what `measure_benign` gave, (n, 8), or (n, 10) for a score of those weights.

    With the prompts' mean text embeddings, `words` (n, D), it is one by words. Raises InputError for under 100 prompts
    or an odd alpha.
    """
    check_promise(len(benign), alpha, draws)
    spectrum, scores = benign[:, :RINGS], left_out_scores(benign, weights)
    expectation = None
    if words is not None:
        expectation, taken_off = learn(words, scores)
        scores = scores - taken_off
    return Calibration(
        fingerprint=denoiser.fingerprint,
        family=denoiser.family,
        dtype=str(denoiser.dtype),
        latent_shape=shape,
        draws=draws,
        alpha=alpha,
        seed=seed,
        created=datetime.date.today().isoformat(),
        combination=Combination.learn(spectrum, weights),
        scores=scores.tolist(),
        prompts=prompts,
        reference=denoiser.reference,
        time=time,
        expectation=expectation,
    )


def calibrate(
    denoiser: Denoiser,
    condition: Condition | Tensor,
    *,
    draws: int = 4,
    seed: int = 0,
    alpha: float = 0.01,
    latent_shape: tuple[int, int, int] | None = None,
    time: int | None = None,
    by_words: bool = False,
) -> Calibration:
    """Learns from benign prompts what is normal on this model.

    Args:
        denoiser: The model.
        condition: At least 100 benign prompts.
        draws: Noise draws per prompt; a check must use the same number.
        seed: The seed of the private noise, which differs from prompt to prompt.
        alpha: The false-alarm rate to promise.
        latent_shape: The latent's shape (C, H, W), by default the model's own.
        time: The timestep that guidance is taken at, by default the model's own at pure noise; the first of your
            sampler's makes an attached guard cheaper.
        by_words: Take off the score a part of what the prompt's words lead to expect; see `expectation`.

    Returns:
        The calibration, bound to the model as it is now, the shape and the number of draws.

    Raises:
        InputError: Too few prompts, zero draws, odd alpha, a timestep that the model has not, or no text embeddings to
            calibrate by.
        NotApplicable, NonFiniteError: As in `memorization_score`.
    """
    condition, shape = Condition.of(condition), latent_shape or denoiser.latent_shape()
    words = require_words(condition) if by_words else None
    benign = measure_benign(denoiser, condition, range(len(condition)), draws, seed, shape, time)
    return from_spectra(denoiser, benign, draws=draws, seed=seed, alpha=alpha, shape=shape, time=time, words=words)


def require_words(condition: Condition) -> Tensor:
    """Returns the prompts' mean text embeddings, (P, D). Raises InputError where the model has none."""
    words = mean_text(condition)
    if words is None:
        raise InputError("this model's prompts are no text embeddings (P, L, D): calibrate without by_words")
    require_finite(words, "the text embeddings")
    return words
