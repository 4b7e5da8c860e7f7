"""Opens models and their calibrations for the commands; nothing heavy is imported before it is needed."""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import CalibrationError, InputError, require
from .console import stderr, waiting

if TYPE_CHECKING:
    from ..calibration import Calibration
    from ..guard import Guard

DEMO = "demo"


def quiet() -> None:
    """Keeps the progress bars and hints of diffusers and transformers out of a command's output."""
    for package in ("diffusers", "transformers"):
        logging = require(f"{package}.utils.logging", "diffusers")
        logging.set_verbosity_error()
        logging.disable_progress_bar()


def open_model(model: str) -> Any:
    """The denoiser of "demo", a diffusers folder, or a .safetensors file. Raises InputError if it is none of these."""
    with waiting(f"loading the model {model}"):
        from ..adapters import to_denoiser
        from ..adapters.loading import load_pipeline

        quiet()
        return to_denoiser(load_pipeline(model))


def check_alpha(alpha: float | None) -> None:
    """Raises InputError unless alpha is a rate."""
    if alpha is not None and not 0 < alpha < 1:
        raise InputError(f"--alpha is a false-alarm rate between 0 and 1, not {alpha}")


def open_guard(
    model: str,
    calibration: Path | None,
    alpha: float | None,
    draws: int | None,
    size: tuple[int | None, int | None],
    *,
    required: bool = False,
    **options: Any,
) -> tuple["Guard", int]:
    """A guard for the model, and the number of draws to use: as asked, as calibrated, or 4.

    The built-in model brings its own calibration, which is left out, with a hint, where it does not fit.

    Args:
        model, calibration, alpha, draws: As the user gave them.
        size: Height and width in pixels.
        required: Whether the command can do nothing without a calibration.
        options: Further arguments of the guard.

    Raises:
        InputError: No such model, an odd size or alpha, or no calibration where one is required.
        CalibrationError: The calibration that was named, or is required, is malformed or does not fit.
    """
    check_alpha(alpha)
    given = _load(calibration)  # first: a broken file is found before a large model is read
    if required and given is None and model != DEMO and Path(model).expanduser().exists():
        raise InputError(
            f"{model} has no calibration, and without one there are no verdicts: run `cryptomnesia calibrate --model "
            f"{model} --out FILE` once, then give it as --calibration FILE"
        )
    denoiser = open_model(model)
    from ..guard import Guard

    shape = denoiser.latent_shape(*size)
    own = _demo_calibration() if model == DEMO and given is None else None
    found = given or own
    draws = draws or (found.draws if found else 4)
    if found is not None:
        try:
            found.require(denoiser, draws, shape)
        except CalibrationError as error:
            if given is not None or required:
                raise
            stderr().print(f"no verdicts: {error}", style="yellow", markup=False)
            found = None
    if found is not None and alpha is not None:
        found = _with_alpha(found, alpha)
    elif alpha is not None:
        raise InputError(
            "--alpha needs a calibration: run `cryptomnesia calibrate`, and give its file as --calibration"
        )
    return Guard(denoiser, found, **options), draws


def _load(path: Path | None) -> "Calibration | None":
    if path is None:
        return None
    from ..calibration import Calibration

    return Calibration.load(path)


def _demo_calibration() -> "Calibration":
    from ..demo import demo_calibration

    return demo_calibration()


def _with_alpha(calibration: "Calibration", alpha: float) -> "Calibration":
    least = 1 / (calibration.n + 1)
    if alpha < least:
        raise InputError(
            f"--alpha {alpha:g} is out of reach: {calibration.n} benign prompts support {least:.2g} or more; "
            "calibrate with more of them"
        )
    return replace(calibration, alpha=alpha)
