"""Opens models and their calibrations for the commands; nothing heavy is imported before it is needed."""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import InputError
from .console import stderr, waiting

if TYPE_CHECKING:
    from ..calibration import Calibration
    from ..denoiser import Denoiser
    from ..guard import Guard
    from ..reference import Reference

DEMO, AUTO, NONE = "demo", "auto", "none"


def open_model(model: str, device: str = AUTO, dtype: str = AUTO, reference: "Reference | None" = None) -> "Denoiser":
    """Returns the denoiser of "demo", a diffusers folder, or a .safetensors file, where and in what it is to compute.

    Args:
        model, device, dtype: As the user gave them.
        reference: What prompts are compared with; by default what the model tells.

    Raises:
        InputError: It is none of these, or there is no such device or dtype, or ONNX files are to be moved, or the
            model cannot have that reference.
        OutOfMemory: The device has no room for it.
    """
    from .devices import check_choice, choose_device, choose_dtype

    check_choice(device, dtype)  # first: before a large model is read
    with waiting(f"loading the model {model}"):
        from ..adapters import to_denoiser
        from ..adapters.placement import place
        from ..adapters.quiet import quiet

        quiet()
        if _is_onnx(model):
            if (device, dtype) != (AUTO, AUTO):
                raise InputError(
                    f"{model} holds ONNX files, which compute in what they were exported in, where onnxruntime does: "
                    "leave out --device and --dtype"
                )
            return to_denoiser(open_pipeline(model), reference)
        pipe, chosen = open_pipeline(model), choose_device(device)
        place(pipe, chosen, choose_dtype(dtype, chosen, model))
    denoiser = to_denoiser(pipe, reference)
    if chosen.type != "cpu" or _bare(denoiser) != "float32":
        stderr().print(f"{Path(model).name} computes on {chosen} in {_bare(denoiser)}", style="dim", soft_wrap=True)
    return denoiser


def open_pipeline(model: str) -> Any:
    """Returns the pipeline of "demo", the built-in model, or of what `load_pipeline` reads, with its errors."""
    if model == DEMO:
        from ..demo import load_demo

        return load_demo()
    from ..adapters.loading import load_pipeline

    return load_pipeline(model)


def _bare(denoiser: "Denoiser") -> str:
    return str(denoiser.dtype).removeprefix("torch.")


def _is_onnx(model: str) -> bool:
    from ..adapters.onnx_loading import holds_onnx

    try:
        path = Path(model).expanduser()
        return model != DEMO and path.is_dir() and holds_onnx(path)
    except (OSError, ValueError, RuntimeError):  # a name that no file can have, which loading tells of
        return False


def check_alpha(alpha: float | None) -> None:
    """Raises InputError unless alpha is a rate."""
    if alpha is not None and not 0 < alpha < 1:
        raise InputError(f"--alpha is a false-alarm rate between 0 and 1, not {alpha}")


def open_guard(
    model: str,
    calibration: str,
    alpha: float | None,
    draws: int | None,
    size: tuple[int | None, int | None],
    *,
    device: str = AUTO,
    dtype: str = AUTO,
    reference: "Reference | None" = None,
    required: bool = False,
    seed: int = 0,
    words: Path | None = None,
) -> tuple["Guard", int]:
    """Returns a guard for the model, and the number of draws to use: as asked, as calibrated, or 4.

    Args:
        model, calibration, alpha, draws, device, dtype, reference: As for `open_model`, or as the user gave them.
        size: Height and width in pixels.
        required: Whether the command can do nothing without a calibration.
        seed, words: The seed and the word list of mitigations; see `Guard`.

    Raises:
        InputError: No such model, an odd size or alpha, or no calibration where one is required.
        CalibrationError: The calibration that was named is malformed or does not fit.
    """
    check_alpha(alpha)
    given = _load(calibration)  # first: a broken file is found before a large model is read
    denoiser = open_model(model, device, dtype, reference)
    from ..guard import Guard
    from ..signals.draws import DRAWS

    shape, reason = denoiser.latent_shape(*size), None
    if given is not None:
        given.require(denoiser, draws or given.draws, shape)
    elif calibration == AUTO:
        from ..calibration_store import find

        given, reason = find(denoiser, shape, draws)
    if given is None:
        reason = reason or f"{model} has no calibration: {how_to_calibrate(model, size, reference)}"
        if required or alpha is not None:
            need = "without a calibration there are no verdicts" if required else "--alpha needs a calibration"
            raise InputError(f"{need}: {reason}")
    elif alpha is not None:
        given = _with_alpha(given, alpha)
    guard = Guard(denoiser, given, seed=seed, words=words)
    guard.why_uncalibrated = reason if calibration == AUTO else "none was asked for: leave out --calibration none"
    return guard, draws or (given.draws if given else DRAWS)


def how_to_calibrate(
    model: str, size: tuple[int | None, int | None] = (None, None), reference: "Reference | None" = None
) -> str:
    """Returns the command that calibrates the model, as the end of a sentence."""
    flags = [f"{name} {value}" for name, value in zip(("--height", "--width"), size, strict=True) if value]
    flags += [f"--reference {reference.replace(' ', '-')}"] if reference else []
    return f"run `{' '.join(['cryptomnesia calibrate --model', model, *flags])}` once"


def _load(calibration: str) -> "Calibration | None":
    if calibration in (AUTO, NONE):
        return None
    from ..calibration import Calibration

    return Calibration.load(calibration)


def _with_alpha(calibration: "Calibration", alpha: float) -> "Calibration":
    least = 1 / (calibration.n + 1)
    if alpha < least:
        raise InputError(
            f"--alpha {alpha:g} is out of reach: {calibration.n} benign prompts support {least:.2g} or more; "
            "calibrate with more of them"
        )
    return replace(calibration, alpha=alpha)
