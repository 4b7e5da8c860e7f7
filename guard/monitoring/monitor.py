"""Watches a training for memorization: whether its images are known better than others of their kind can be."""

import random
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..condition import Condition
from ..denoiser import Denoiser
from ..errors import InputError, NonFiniteError, NotApplicable, OutOfMemory
from ..printable import first_line
from ..prompt_text import fault
from ..protocols import encoder_of
from .errors import denoising_errors
from .history import History
from .judging import chance, least_held_out, most_allowed, scored, share_interval
from .parts import TextKept, fresh_denoiser, modules_of, pipeline_of_parts, text_is_trained
from .pictures import latents_of, require_apart
from .record import CaptionScore, EpochRecord
from .undisturbed import undisturbed

DRAWS, MOST, WORST = 4, 64, 5
FRACTION = 0.85  # of the schedule: so noisy that details are known by heart or not at all; chosen on a LoRA of its own
ALPHA, SIGNIFICANCE = 0.05, 0.01
ENCODED = 64  # captions at a time


class MemorizationMonitor:
    """Tells, while a model or a LoRA is trained, whether it begins to learn its images by heart.

    Made once before the first step, with what the training script holds, and called after each epoch. It needs a few
    images that are held back from the training. Noisy copies of all images are denoised, before training and at each
    call: a training image is flagged where the error fell further than that of nearly all held-out ones. A call costs
    `draws` rows of the network per image, and leaves the training as it was: modes, gradients, generators, autocast.
    Call it in one process; see docs/training.md.

    Args:
        pipe: A diffusers pipeline around what is trained, or a Denoiser; or leave it out, and give the parts.
        captions: The captions that are trained on, all or a sample, one per image.
        images: Their images: PIL images, cropped to the model's size; a tensor (N, 3, H, W) in [0, 1]; or latents
            (N, C, h, w), scaled as the network takes them.
        held_out_captions, held_out_images: The same of images of the same kind that are not trained on; at least 19 at
            an alpha of .05.
        unet, text_encoder, tokenizer, scheduler, vae: The parts of Stable Diffusion 1.x, 2.x or XL (a list of two
            encoders and tokenizers), bare or wrapped by accelerate, PEFT or torch.compile. The autoencoder may be
            left out where latents are given.
        height, width: The size of the images that are trained on, in pixels, by default the model's own.
        most: Trained images that are measured, a sample where there are more; of held-out ones twice as many, or as
            many as alpha needs.
        draws: Noisy copies per image.
        fraction: How noisy these are: 0 is clean, 1 pure noise.
        alpha: The share of held-out images that may have fallen as far as a flagged one.
        significance: How often a training that memorizes nothing may be said to take off, over all calls together.
        seed: The seed of noise and sample; nothing else is drawn.
        log: A file that gets one line of JSON per call; one that is there goes on, as for a training that is resumed.
        log_captions: Write captions as they are; by default only the first digits of their SHA-256.

    Attributes:
        captions: The captions that are measured; records number them from 0.

    Raises:
        InputError: Captions and images that do not fit, too few or none, images that are in both sets, parts that are
            missing or fit no pipeline, or a log of another monitor.
        NonFiniteError, OutOfMemory: The network cannot be measured before training.
    """

    def __init__(
        self,
        pipe: Any = None,
        captions: Iterable[str] = (),
        images: Any = None,
        *,
        held_out_captions: Iterable[str] = (),
        held_out_images: Any = None,
        unet: Any = None,
        text_encoder: Any = None,
        tokenizer: Any = None,
        scheduler: Any = None,
        vae: Any = None,
        height: int | None = None,
        width: int | None = None,
        most: int = MOST,
        draws: int = DRAWS,
        fraction: float = FRACTION,
        alpha: float = ALPHA,
        significance: float = SIGNIFICANCE,
        seed: int = 0,
        log: str | Path | None = None,
        log_captions: bool = False,
    ):
        if pipe is None:
            parts = {"unet": unet, "text_encoder": text_encoder, "tokenizer": tokenizer, "scheduler": scheduler}
            pipe = pipeline_of_parts(**parts, vae=vae)
        _require(0 < significance < 1, f"significance is a false-alarm rate between 0 and 1, not {significance}")
        _require(0 < alpha < 1, f"alpha is a share between 0 and 1, not {alpha}")
        _require(0 < fraction <= 1, f"fraction lies in (0, 1], not {fraction}: 1 is pure noise")
        _require(most >= 1 and draws >= 1, f"most is {most} and draws {draws}: each is at least 1")
        self._pipe, self._seed, self._fraction, self._draws = pipe, seed, fraction, draws
        self.alpha, self.significance = alpha, significance
        trained, others = _captions(captions, "captions"), _captions(held_out_captions, "held_out_captions")
        least = least_held_out(alpha)
        _require(len(others) >= least, f"{len(others)} held-out images are too few: alpha {alpha:g} needs {least}")
        trained_rows, other_rows = _sample(len(trained), most, seed), _sample(len(others), max(2 * most, least), seed)
        self.captions, self._others = [trained[i] for i in trained_rows], [others[i] for i in other_rows]
        denoiser, size = fresh_denoiser(pipe), (height, width)
        with undisturbed(modules_of(denoiser), denoiser.device):
            known = latents_of(denoiser, images, len(trained), trained_rows, size, "images")
            unknown = latents_of(denoiser, held_out_images, len(others), other_rows, size, "held_out_images")
        require_apart(known, unknown)
        self._latents = torch.cat([known, unknown])
        self._condition, self._empty = self._encoded(denoiser)
        settings = {"draws": draws, "fraction": fraction, "alpha": alpha, "significance": significance, "seed": seed}
        self._history = History(log, settings, self.captions, self._others, with_captions=log_captions)
        if self._history.before is None:
            self._history.begin(self._errors(denoiser).tolist())

    @property
    def history(self) -> list[EpochRecord]:
        """The records of all calls, in order."""
        return list(self._history.records)

    @property
    def take_off(self) -> EpochRecord | None:
        """The first record in which more images are flagged than chance explains; None as long as there is none."""
        return next((record for record in self._history.records if record.took_off), None)

    @property
    def should_stop(self) -> bool:
        """Whether the training has begun to memorize: the state of the epoch before is the one to keep."""
        return self.take_off is not None

    def __call__(self, epoch: float) -> EpochRecord:
        """Measures the model as it is now, and returns the record, which is also kept in `history`.

        Where the network answers with NaN, or memory is short, the record says so, and the training can go on.

        Args:
            epoch: The number of the epoch or step, larger than at the call before.

        Raises:
            InputError: The epoch is no finite number or not larger, or the weights cannot be asked.
        """
        self._history.require_next(epoch)
        began = time.perf_counter()
        denoiser = fresh_denoiser(self._pipe)
        try:
            if text_is_trained(denoiser):
                self._condition, self._empty = self._encoded(denoiser)
            errors = self._errors(denoiser)
        except (NonFiniteError, OutOfMemory, NotApplicable) as error:
            record = self._nothing(epoch, first_line(error, 300), time.perf_counter() - began)
        else:
            record = self._judged(epoch, errors, time.perf_counter() - began)
        return self._history.add(record)

    def plot(self, *, width: int = 720) -> Any:
        """Draws the flagged share per epoch, its interval, and where it took off; a Pillow image.

        Raises:
            InputError: It was never called.
            MissingPackage: Pillow is not installed.
        """
        from .plots import monitor_plot

        return monitor_plot(self.history, self.alpha, width=width)

    # --- measuring ---

    def _encoded(self, denoiser: Denoiser) -> tuple[Condition, Condition]:
        """All captions, and the empty one, read by the text encoders as they are now."""
        texts, parts = [*self.captions, *self._others], []
        with undisturbed(modules_of(denoiser), denoiser.device):
            try:
                for start in range(0, len(texts), ENCODED):
                    parts.append(encoder_of(denoiser).encode(texts[start : start + ENCODED]))
                return Condition.cat(parts), denoiser.empty
            except RuntimeError as error:
                raise InputError(
                    f"the captions cannot be read ({first_line(error)}): make the monitor when network and text "
                    "encoders are on one device"
                ) from error

    def _errors(self, denoiser: Denoiser) -> Tensor:
        """The error of each image, (N + held-out,) float64, on the weights as they are."""
        with undisturbed(modules_of(denoiser), denoiser.device):
            return denoising_errors(
                TextKept(denoiser, self._empty),
                self._condition,
                self._latents,
                fraction=self._fraction,
                draws=self._draws,
                seed=self._seed,
            )

    # --- judging ---

    def _judged(self, epoch: float, errors: Tensor, seconds: float) -> EpochRecord:
        before, count = torch.tensor(self._history.before, dtype=torch.float64), len(self.captions)
        scores, p_values = scored(before, errors, count)
        flags = tuple(i for i, p_value in enumerate(p_values.tolist()) if p_value <= self.alpha)
        p_value = chance(len(flags), count, len(self._others), most_allowed(len(self._others), self.alpha))
        level = self._history.next_level(self.significance)
        order = scores.argsort(descending=True)[:WORST].tolist()
        return EpochRecord(
            epoch=epoch,
            captions=count,
            flagged=len(flags),
            flags=flags,
            share=len(flags) / count,
            interval=share_interval(len(flags), count),
            p_value=p_value,
            level=level,
            took_off=p_value <= level,
            worst=tuple(CaptionScore(self.captions[i], scores[i].item(), p_values[i].item()) for i in order),
            forward_rows=self._draws * len(errors),
            seconds=seconds,
        )

    def _nothing(self, epoch: float, reason: str, seconds: float) -> EpochRecord:
        level = self._history.next_level(self.significance)
        counts: dict[str, Any] = {"captions": 0, "flagged": 0, "flags": (), "share": None, "interval": None}
        tested: dict[str, Any] = {"p_value": 1.0, "level": level, "took_off": False, "worst": ()}
        return EpochRecord(epoch=epoch, **counts, **tested, forward_rows=0, seconds=seconds, reason=reason)


def _require(holds: bool, message: str) -> None:
    if not holds:
        raise InputError(message)


def _captions(captions: Iterable[str], what: str) -> list[str]:
    """All captions as a list; the empty one is allowed, since trainings have it."""
    if isinstance(captions, str):
        raise InputError(f"{what} are a list of texts, and not one text")
    every = list(captions)
    for number, text in enumerate(every, 1):
        reason = "is no text" if not isinstance(text, str) else fault(text) if text.strip() else None
        if reason is not None:
            raise InputError(f"caption {number} of {len(every)} in {what} {reason}: give a text, or leave the pair out")
    if not every:
        raise InputError(f"there are no {what}: give one for each of the images")
    return every


def _sample(count: int, most: int, seed: int) -> Sequence[int]:
    return range(count) if count <= most else sorted(random.Random(f"monitor/{seed}").sample(range(count), most))
