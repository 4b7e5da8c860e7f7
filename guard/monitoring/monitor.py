"""Watches a training for memorization: the share of its captions that score as only memorized ones do."""

import random
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..calibration import check_promise
from ..denoiser import Condition, Denoiser
from ..errors import InputError, NonFiniteError, NotApplicable, OutOfMemory
from ..printable import first_line
from ..prompt_text import fault
from ..prompts import benign as benign_prompts
from ..protocols import encoder_of
from ..signals.draws import draw_noise
from ..signals.guidance import Guidance
from ..signals.rings import ring_energy
from .history import History
from .judging import chance, most_allowed, scored, share_interval
from .parts import TextKept, fresh_denoiser, modules_of, pipeline_of_parts, text_is_trained
from .record import CaptionScore, EpochRecord
from .undisturbed import undisturbed

DRAWS, MOST, BENIGN, WORST = 4, 64, 100, 5
ALPHA, SIGNIFICANCE = 0.01, 0.01
ENCODED = 64  # captions at a time


class MemorizationMonitor:
    """Tells, while a model is trained, whether it begins to learn its images by heart.

    Made once before training, with what the training script holds, and called after each epoch; the first call, before
    training, is the ground that later ones are compared with. A call measures the captions that are trained on and
    benign ones on the weights of that moment and the same noise. It leaves the training as it was: modes, gradients,
    generators, autocast. Call it in one process; see docs/training.md.

    Args:
        pipe: A diffusers pipeline around what is trained, or a Denoiser; or leave it out, and give the parts.
        captions: The captions that are trained on, all or a sample.
        benign: At least 100 captions of the same kind that are not trained on, by default a shipped list of ordinary
            prompts; those that are trained on are left out, and of more than 100 a sample is taken.
        unet, text_encoder, tokenizer, scheduler, vae: The parts of Stable Diffusion 1.x, 2.x or XL (a list of two
            encoders and tokenizers), bare or wrapped by accelerate, PEFT or torch.compile. The autoencoder may be
            left out.
        height, width: The size of the images that are trained on, in pixels, by default the model's own.
        most: Captions that are measured, a sample of that size where there are more.
        draws: Noise draws per caption; each costs a row.
        alpha: The share of benign captions that may score as high as a flagged one.
        significance: How often a training that memorizes nothing may be said to take off, over all calls together.
        seed: The seed of noise and sample; nothing else is drawn.
        log: A file that gets one line of JSON per call; one that is there goes on, as for a training that is resumed.
        log_captions: Write captions as they are; by default only the first digits of their SHA-256.

    Raises:
        InputError: No captions, too few benign ones, parts that are missing or fit no pipeline, or a log of another
            monitor.
        NotApplicable: The model cannot be asked from pure noise.

    Example:
        >>> from cryptomnesia import MemorizationMonitor, load_demo
        >>> monitor = MemorizationMonitor(load_demo(), ["the restless beacon of grimsby"], draws=1)
        >>> monitor(0).flagged
        1
    """

    def __init__(
        self,
        pipe: Any = None,
        captions: Iterable[str] = (),
        benign: Iterable[str] | None = None,
        *,
        unet: Any = None,
        text_encoder: Any = None,
        tokenizer: Any = None,
        scheduler: Any = None,
        vae: Any = None,
        height: int | None = None,
        width: int | None = None,
        most: int = MOST,
        draws: int = DRAWS,
        alpha: float = ALPHA,
        significance: float = SIGNIFICANCE,
        seed: int = 0,
        log: str | Path | None = None,
        log_captions: bool = False,
    ):
        if pipe is None:
            parts = {"unet": unet, "text_encoder": text_encoder, "tokenizer": tokenizer, "scheduler": scheduler}
            pipe = pipeline_of_parts(**parts, vae=vae)
        if not 0 < significance < 1:
            raise InputError(f"significance is a false-alarm rate between 0 and 1, not {significance}")
        if most < 1:
            raise InputError(f"most is {most}: at least one caption is measured")
        self._pipe, self._size, self._seed = pipe, (height, width), seed
        self.captions, self.benign = _chosen(captions, benign, most, seed)
        check_promise(len(self.benign), alpha, draws)
        self.draws, self.alpha, self.significance = draws, alpha, significance
        denoiser = fresh_denoiser(pipe)
        denoiser.require_guidance()
        self._shape = denoiser.latent_shape(height, width)
        self._condition, self._empty = self._encoded(denoiser)
        settings = {"draws": draws, "alpha": alpha, "significance": significance, "seed": seed, "shape": self._shape}
        self._history = History(log, settings, self.captions, self.benign, with_captions=log_captions)

    @property
    def history(self) -> list[EpochRecord]:
        """The records of all calls, in order."""
        return list(self._history.records)

    @property
    def take_off(self) -> EpochRecord | None:
        """The first record in which more captions are flagged than chance explains; None as long as there is none."""
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
            trained, benign, rows = self._measured(denoiser)
        except (NonFiniteError, OutOfMemory, NotApplicable) as error:
            record = self._nothing(epoch, first_line(error, 300), time.perf_counter() - began)
        else:
            record = self._judged(epoch, trained, benign, rows, time.perf_counter() - began)
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
        """All captions and benign ones, and the empty one, read by the text encoders as they are now."""
        texts, parts = [*self.captions, *self.benign], []
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

    def _measured(self, denoiser: Denoiser) -> tuple[Tensor, Tensor, int]:
        """Energies per ring of the trained captions and of the benign ones, (P, 8) each, and the rows they took."""
        if text_is_trained(denoiser):
            self._condition, self._empty = self._encoded(denoiser)
        with undisturbed(modules_of(denoiser), denoiser.device):
            asked = TextKept(denoiser, self._empty)
            guidance = Guidance(asked, draw_noise(denoiser, self.draws, self._seed, self._shape))
            step = max(1, guidance.batch_rows // self.draws)
            parts = [
                ring_energy(guidance(self._condition[slice(start, start + step)]).mean(1)).cpu()
                for start in range(0, len(self._condition), step)
            ]
        energies = torch.cat(parts)
        return energies[: len(self.captions)], energies[len(self.captions) :], guidance.forward_rows

    # --- judging ---

    def _judged(self, epoch: float, trained: Tensor, benign: Tensor, rows: int, seconds: float) -> EpochRecord:
        scores, p_values = scored(trained, benign)
        flags = tuple(i for i, p_value in enumerate(p_values.tolist()) if p_value <= self.alpha)
        before = self._history.flagged_at_first
        newly = () if before is None else set(flags) - set(before)
        allowed = most_allowed(len(benign), self.alpha)
        p_value = chance(len(newly), len(trained), len(benign), allowed)
        level = self._history.next_level(self.significance)
        order = scores.argsort(descending=True)[:WORST].tolist()
        return EpochRecord(
            epoch=epoch,
            captions=len(self.captions),
            flagged=len(flags),
            flags=flags,
            share=len(flags) / len(self.captions),
            interval=share_interval(len(flags), len(self.captions)),
            already=len(flags if before is None else before),
            newly=len(newly),
            p_value=p_value,
            level=level,
            took_off=p_value <= level,
            worst=tuple(CaptionScore(self.captions[i], scores[i].item(), p_values[i].item()) for i in order),
            forward_rows=rows,
            seconds=seconds,
        )

    def _nothing(self, epoch: float, reason: str, seconds: float) -> EpochRecord:
        level = self._history.next_level(self.significance)
        counts: dict[str, Any] = {
            "captions": 0,
            "flagged": 0,
            "flags": (),
            "share": None,
            "interval": None,
            "already": 0,
            "newly": 0,
        }
        tested: dict[str, Any] = {"p_value": 1.0, "level": level, "took_off": False, "worst": ()}
        return EpochRecord(epoch=epoch, **counts, **tested, forward_rows=0, seconds=seconds, reason=reason)


def _chosen(captions: Iterable[str], benign: Iterable[str] | None, most: int, seed: int) -> tuple[list[str], list[str]]:
    """The captions to measure, each once, and benign ones that are none of them."""
    if isinstance(captions, str):
        raise InputError("captions are a list of texts, and not one text")
    every = list(dict.fromkeys(text for text in captions if not isinstance(text, str) or text.strip()))
    for number, text in enumerate(every, 1):
        reason = fault(text) if isinstance(text, str) else "is no text"
        if reason is not None:
            raise InputError(f"caption {number} of {len(every)} {reason}: leave it out")
    if not every:
        raise InputError("there are no captions to watch: give those that the model is trained on")
    trained = set(every)
    others = [text for text in benign_prompts(() if benign is None else benign) if text not in trained]
    return _sample(every, most, seed), _sample(others, BENIGN, seed)


def _sample(texts: list[str], most: int, seed: int) -> list[str]:
    return texts if len(texts) <= most else random.Random(f"monitor/{seed}").sample(texts, most)
