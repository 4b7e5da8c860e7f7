"""Calibrates the loaded model from the web UI: said as it goes on, and stopped by a button."""

import html
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from types import SimpleNamespace
from typing import Any

from cryptomnesia import calibration_store
from cryptomnesia.calibration_misfit import binding_of
from cryptomnesia.calibration_run import CalibrationRun, extent
from cryptomnesia.cost import in_words, rows_per_image
from cryptomnesia.errors import CryptomnesiaError, NotApplicable
from cryptomnesia.printable import printable
from cryptomnesia.prompts import benign

from . import models
from .rewriting import TAG

_stop = threading.Event()
_running = threading.Lock()


def cancel() -> str:
    """Stops a calibration after the prompts that it is at; what is measured is kept, and the next one goes on there."""
    if not _running.locked():
        return _line("no calibration is running")
    _stop.set()
    return _line("stopping; what is measured is kept")


def calibrate(width: Any, height: Any, quick: bool, prompt: str = "") -> Iterator[str]:
    """Measures what is normal on the loaded model, and keeps it where a check finds it; yields lines for people.

    Args:
        width, height: Of images in pixels, since a calibration is for one size.
        quick: Whether to measure 100 prompts once, in place of all of them four times.
        prompt: Whose LoRA tags take part.
    """
    if not _running.acquire(blocking=False):
        yield _line("a calibration is running already")
        return
    _stop.clear()
    try:
        yield _line("waiting for the model")
        with _queue(), _loras(prompt or "") as said:
            yield from _steps(int(height), int(width), quick, said)
    except CryptomnesiaError as error:
        yield _line(printable(error, 400))
    except Exception as error:  # noqa: BLE001  # the page would show no more than "Error"
        yield _line(f"the calibration failed ({type(error).__name__}: {printable(error, 200)})")
    finally:
        _running.release()


@contextmanager
def _loras(prompt: str) -> Iterator[str]:
    """Switches on what the tags of a prompt name, as the web UI does before it samples, and gives words for it.

    Raises NotApplicable where that is not known how, so that nothing else is calibrated in its place.
    """
    tags, model = TAG.findall(prompt), models.ui("shared").sd_model
    if not tags or model is None:
        yield ""
        return
    if models.is_pipeline(model) or hasattr(model, "forge_objects"):
        raise NotApplicable("LoRAs are calibrated in AUTOMATIC1111 alone: take their tags out of the prompt")
    networks = models.ui("extra_networks")
    _, data = networks.parse_prompts([" ".join(tags)])
    stand_in = SimpleNamespace(all_prompts=[prompt], extra_generation_params={}, sd_model=model, scripts=None)
    networks.activate(stand_in, data)
    try:
        yield f" with {' '.join(tags)}"
    finally:
        networks.deactivate(stand_in, data)


def _steps(height: int, width: int, quick: bool, said: str) -> Iterator[str]:
    import torch

    with torch.inference_mode(False), torch.no_grad():
        denoiser = models.loaded(height, width)
        denoiser.require_guidance()
        texts, draws = extent(benign(), None, quick)
        shape = denoiser.latent_shape(height, width)
        calibration_store.make_folder()
        binding = binding_of(denoiser, shape, draws)
        path, partial = calibration_store.path_for(binding), calibration_store.partial_for(binding)
        run = CalibrationRun(denoiser, texts, draws=draws, seed=0, alpha=0.01, partial=partial, latent_shape=shape)
        if run.finished(path) is not None:
            yield _line(f"this model is calibrated for {width} x {height}{said} already")
            return
        rows = run.forward_rows
        yield _line(f"calibrating: {in_words(rows, rows / rows_per_image(denoiser))}")
        for done in run.steps():
            yield _line(f"{done} of {run.total} prompts")
            if _stop.is_set() or models.ui("shared").state.interrupted:
                yield _line(f"stopped at {done} of {run.total} prompts; it goes on from there")
                return
        made = run.finish(path)
        yield _line(
            f"calibrated for {width} x {height}{said}, by {made.n} benign prompts, {made.draws} "
            f"{'draw' if made.draws == 1 else 'draws'} each; at most "
            f"{made.alpha:.3g} of such prompts are flagged by mistake"
        )


def _queue() -> AbstractContextManager[Any]:
    """The web UI's own lock, so that nothing is sampled meanwhile."""
    try:
        return models.ui("call_queue").queue_lock
    except (AttributeError, ImportError):
        return nullcontext()


def _line(text: str) -> str:
    return f"<p>{html.escape(text)}</p>"
