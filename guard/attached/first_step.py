"""The sampler's first network call, read for what it says about memorization.

The network is asked about the prompt on x_T anyway, and with guidance about the empty prompt, too. Where that is at the
level that the score is defined at, and by the model's own reference, nothing has to be computed again.
"""

from dataclasses import dataclass, replace
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from ..adapters.network_calls import read_call
from ..branches import SCALE, Branches
from ..condition import UNTIL, is_empty, mean_text, own_copy, with_extras, without_extras, without_step
from ..denoiser import Condition, Denoiser, NoiseLevel, Prediction
from ..errors import NonFiniteError, NotApplicable
from ..protocols import PipelineDenoiser
from ..signals.alignment import Alignment, cosines, low_noise
from ..signals.guidance import Guidance
from ..signals.memorization import MemorizationResult, of_vectors

MOST_UNLIKE = 0.2  # of mean and standard deviation of starting latents to 0 and 1; the smallest have 256 values


@dataclass(frozen=True)
class FirstStep:
    """The sampler's first call, one row per image.

    Attributes:
        noise: The starting noise x_T, (B, C, H, W).
        time: The model's own time of the call.
        positive: The prompts' conditions.
        negative: Those of the other branch; None where the prompts alone are asked about in this call.
        upper, lower: What the network answered about the prompts, and about what they are compared with, by the
            model's reference, each (B, C, H, W); None where the call does not tell.
    """

    noise: Tensor
    time: float
    positive: Condition
    negative: Condition | None
    upper: Tensor | None
    lower: Tensor | None

    @property
    def shape(self) -> tuple[int, int, int]:
        """The latent's shape (C, H, W)."""
        channels, height, width = self.noise.shape[1:]
        return channels, height, width

    def timestep(self, denoiser: Denoiser) -> int | None:
        """The timestep of the call, where a score can be taken at it and it is not the model's own at pure noise."""
        whole = denoiser.prediction_type != "flow" and self.time.is_integer()
        return int(self.time) if whole and not self.is_at(denoiser.levels.pure_noise) else None

    def is_at(self, level: NoiseLevel) -> bool:
        """Whether the call was made at that level."""
        return abs(self.time - level.time.item()) <= 1e-6

    @staticmethod
    def read(
        denoiser: Denoiser, host: PipelineDenoiser, arguments: dict[str, Any], output: Any, images: int
    ) -> "FirstStep":
        """Reads the network's arguments and its output. Raises NotApplicable where there is nothing to judge."""
        x, time, condition, raw = read_call(host, arguments, output)
        answers = UNTIL not in condition.tensors  # else the sampler asked about the whole of its step
        condition = without_step(condition)
        if len(x) not in (images, 2 * images):
            raise NotApplicable(
                f"the network is asked with {len(x)} rows for {images} images, a layout that is not known: check the "
                "prompt with guard.check() instead"
            )
        noise = x[-images:].detach().float()
        spread, centre = noise.flatten(1).std(1) - 1, noise.flatten(1).mean(1)
        if not (torch.stack([spread, centre]).abs() <= MOST_UNLIKE).all():  # so that NaN is unlike, too
            raise NotApplicable(
                "sampling does not start from standard normal noise, where a check says nothing: leave out latents, or "
                "give normal ones"
            )
        positive = own_copy(condition[slice(len(x) - images, None)])
        if not positive.tensors["text"].any():
            raise NotApplicable("the embeddings hold no words (all are zero): no training image can be meant by them")
        negative = own_copy(condition[slice(0, images)]) if len(x) == 2 * images else None
        step = FirstStep(noise, float(torch.as_tensor(time).flatten()[0]), positive, negative, None, None)
        return step._with_answers(denoiser, x, raw) if answers else step

    def _with_answers(self, denoiser: Denoiser, x: Tensor, raw: Tensor) -> "FirstStep":
        """Adds what the call tells, where it was made at a level and guidance scale that a score can be taken at."""
        level, told = denoiser.levels.pure_noise, self.positive.tensors.get(SCALE)
        time = self.timestep(denoiser)
        if time is not None:
            level = denoiser.level(time)
        elif not self.is_at(level):
            return self
        if told is not None and not torch.allclose(told.float().cpu(), torch.tensor(float(denoiser.scales[1]))):
            return self
        pull = Prediction.from_output(denoiser.prediction_type, raw, x, level.to(x.device).expand(len(x))).pull
        if not torch.isfinite(pull).all():
            raise NonFiniteError("the model answered with NaN or infinity: no score can be drawn from that")
        images = len(self.noise)
        given = self.negative is not None and is_empty(self.negative, denoiser.empty, self.positive)
        shared = denoiser.reference != "guidance scales"
        return replace(self, upper=pull[-images:], lower=pull[:images] if given and shared else None)


def look(
    denoiser: Denoiser,
    step: FirstStep,
    numbers: list[int],
    private: Guidance | None,
    level: NoiseLevel,
    *,
    weighed: bool = False,
    low: Alignment | None = None,
) -> MemorizationResult:
    """Measures each image's guidance on its own x_T and on the private draws, which images of a prompt share.

    Args:
        denoiser: The model.
        step: The sampler's first call.
        numbers: Which prompt each image belongs to.
        private: Guidance on further draws at that level, or None for x_T alone.
        level: The score's level.
        weighed: Whether alignment is measured, too, as the score of a calibration with known prompts needs it.
        low: Alignment on the private draws, where that is so.

    Returns:
        One row per image; `forward_rows` are those that the look cost beside the sampler's own.

    Raises:
        NonFiniteError, OutOfMemory: As in `Guidance`.
    """
    told = step if step.is_at(level) else replace(step, upper=None, lower=None)
    firsts = [numbers.index(number) for number in sorted(set(numbers))]
    texts, each = without_extras(step.positive[firsts], denoiser.empty), torch.tensor(numbers)
    (first, _), shared, rows = _guidance(denoiser, told, _Question(level, "pull", private), texts)
    vectors, alignments = first.unsqueeze(1), None
    if shared is not None:
        vectors = torch.cat([vectors, shared[0][each]], dim=1)
    if weighed:
        question = _Question(low_noise(denoiser), "noise", None if low is None else low.guidance)
        (first, start), shared, asked = _guidance(denoiser, replace(step, upper=None, lower=None), question, texts)
        alignments, rows = cosines(start, first).unsqueeze(1), rows + asked
        if shared is not None:
            alignments = torch.cat([alignments, cosines(shared[1], shared[0])[each]], dim=1)
    return of_vectors(vectors, rows, alignments, mean_text(step.positive))


class _Question(NamedTuple):
    """Where and in what branches are compared, and the private draws that are asked about beside x_T."""

    level: NoiseLevel
    answer: Literal["pull", "noise"]
    private: Guidance | None


_Compared = tuple[Tensor, Tensor]  # guidance vectors, and what they start from


def _guidance(
    denoiser: Denoiser, step: FirstStep, question: _Question, texts: Condition
) -> tuple[_Compared, _Compared | None, int]:
    """Guidance on x_T, (B, C, H, W), and on private draws, (P, draws, C, H, W), and the rows that the step left open.

    All rows share a call where they can.
    """
    upper, lower, width = _both(denoiser, step)
    wanted = [] if step.upper is not None else [upper]
    wanted += [] if step.lower is not None else [lower]
    private, shared, rows = question.private, None, len(wanted) * len(step.noise)
    # a prompt may be longer than the encoder reads at once
    alike = len({tuple(condition.tensors["text"].shape[1:]) for condition in wanted}) == 1
    if private is not None and alike:
        x = step.noise.repeat(len(wanted), 1, 1, 1)
        vectors, start, answer, rows = private.beside(texts, x, Condition.cat(wanted))
        shared, answers = (vectors, start), list(answer.chunk(len(wanted)))
    else:
        answers = _answers(denoiser, step.noise, question, wanted, alike)
        if private is not None:
            vectors, start, more = private.compared(texts)
            shared, rows = (vectors, start), rows + more
    above = answers.pop(0) if step.upper is None else step.upper
    compared = answers.pop(0) if step.lower is None else step.lower
    return ((above - compared) / width, compared), shared, rows


def _both(denoiser: Denoiser, step: FirstStep) -> tuple[Condition, Condition, float]:
    """What is asked about each image, what it is compared with, one row each, and the width of the comparison."""
    asked = denoiser.branches(step.positive)
    lower = with_extras(asked.lower, asked.upper) if asked.shared else asked.lower
    return asked.upper, Branches(asked.upper, lower, asked.width).lower_rows(len(step.noise)), asked.width


def _answers(
    denoiser: Denoiser, noise: Tensor, question: _Question, conditions: list[Condition], alike: bool
) -> list[Tensor]:
    """What the network answers about each condition on the same noise, in one call where their texts are alike."""

    def ask(x: Tensor, condition: Condition) -> Tensor:
        return getattr(denoiser.predict(x, question.level, condition), question.answer)

    if not alike:
        return [ask(noise, condition) for condition in conditions]
    both = ask(noise.repeat(len(conditions), 1, 1, 1), Condition.cat(conditions))
    return list(both.chunk(len(conditions)))
