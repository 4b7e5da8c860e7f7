"""Calibrations kept for the user, one file per model, dtype, size and number of draws, and found again by these.

Nothing is written here unless the user calibrates.
"""

import hashlib
import os
import sys
import warnings
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from .calibration import Calibration
from .calibration_misfit import Binding, binding_of, differences, misfit
from .calibration_run import ONE_WAY, CalibrationRun, extent
from .denoiser import Denoiser
from .errors import CalibrationError, InputError
from .known_run import KnownRun
from .printable import printable
from .progress import Progress
from .prompts import benign
from .protocols import encoder_of

HOME = "CRYPTOMNESIA_HOME"
ENDING = ".calibration.json"
BUILT_IN = Path(__file__).parent / "demo" / "weights" / f"demo{ENDING}"  # of the built-in model


def folder() -> Path:
    """Returns the folder that calibrations are kept in: in $CRYPTOMNESIA_HOME, or else this user's cache folder."""
    home = os.environ.get(HOME)
    if home:
        return Path(home).expanduser().absolute() / "calibrations"
    user = Path(os.path.expanduser("~"))
    if sys.platform == "darwin":
        cache = user / "Library" / "Caches"
    else:
        name, usual = ("LOCALAPPDATA", "AppData/Local") if sys.platform == "win32" else ("XDG_CACHE_HOME", ".cache")
        named = Path(os.environ.get(name, ""))
        cache = named if named.is_absolute() else user / usual  # a relative one is to be ignored
    return cache / "cryptomnesia" / "calibrations"


def path_for(binding: Binding) -> Path:
    """Returns the file of a calibration with that binding; another one with the same binding takes its place."""
    model = hashlib.sha256(binding.fingerprint.encode()).hexdigest()[:16]
    size = "x".join(map(str, binding.latent_shape))
    first = "" if binding.time is None else f"-t{binding.time}"
    return folder() / f"{model}-{binding.dtype.removeprefix('torch.')}-{size}-{binding.draws}{first}{ENDING}"


def partial_for(binding: Binding) -> Path:
    """Returns where the measurements of a calibration lie until it is finished."""
    path = path_for(binding)
    return path.with_name(path.name + ".partial")


def known_for(binding: Binding) -> Path:
    """Returns where measurements of known prompts are kept, so that the same ones are not measured again."""
    path = path_for(binding)
    return path.with_name(path.name + ".known")


def make_folder() -> Path:
    """Returns the folder, made for its owner alone. Raises CalibrationError if it cannot be."""
    directory = folder()
    try:
        directory.parent.mkdir(parents=True, exist_ok=True)
        directory.mkdir(mode=0o700, exist_ok=True)
    except OSError as error:
        raise CalibrationError(
            f"calibrations cannot be kept in {directory} ({error.strerror}): set {HOME} to a folder of yours"
        ) from error
    return directory


def keep(calibration: Calibration) -> Path:
    """Keeps a calibration where `find` finds it, and returns its file. Raises CalibrationError if it cannot be."""
    make_folder()
    path = path_for(calibration.binding)
    try:
        calibration.save(path)
    except OSError as error:
        raise CalibrationError(f"the calibration cannot be kept as {path} ({error.strerror})") from error
    return path


def make(
    denoiser: Denoiser,
    prompts: Iterable[str] | None = None,
    *,
    draws: int | None,
    seed: int,
    alpha: float,
    quick: bool = False,
    latent_shape: tuple[int, int, int],
    time: int | None = None,
    known: Iterable[str] | None = None,
    by_words: bool = False,
    progress: Progress | None = None,
) -> Calibration:
    """Calibrates a model and keeps the result; arguments and errors as in `Guard.calibrate` and `calibrate`."""
    if known is not None and by_words:
        raise InputError(ONE_WAY)
    texts, draws = extent(benign() if prompts is None else _different(prompts), draws, quick)
    encoder_of(denoiser)
    make_folder()
    binding = binding_of(denoiser, latent_shape, draws, time=time)
    path, partial = path_for(binding), partial_for(binding)
    settings: dict[str, Any] = {
        "draws": draws,
        "seed": seed,
        "alpha": alpha,
        "latent_shape": latent_shape,
        "time": time,
    }
    weights, before = None, 0
    if known is not None:
        measuring = KnownRun(denoiser, _different(known), texts, partial=known_for(binding), **settings)
        before = measuring.total
        for done in measuring.steps():
            if progress:
                progress(done, before + len(measuring.rest))
        weights = measuring.learned().weights
        texts = texts if weights is None else measuring.rest
    run = CalibrationRun(denoiser, texts, partial=partial, weights=weights, by_words=by_words, **settings)
    found = run.finished(path)
    if found is not None:
        keep(found)
        return found
    for done in run.steps():
        if progress:
            progress(before + done, before + run.total)
    return run.finish(path)


def _different(prompts: Iterable[str]) -> list[str]:
    """Each once, since prompts that are counted twice make a promise look firmer than it is."""
    if isinstance(prompts, str):
        raise InputError("prompts are a list of texts: one text alone was given")
    texts = list(prompts)
    if not all(isinstance(text, str) for text in texts):
        raise InputError("prompts are a list of texts: something else is among them")
    return list(dict.fromkeys(stripped for text in texts if (stripped := text.strip())))


def find(
    denoiser: Denoiser,
    shape: Sequence[int],
    draws: int | None = None,
    fingerprint: str | None = None,
    time: int | None = None,
) -> tuple[Calibration | None, str | None]:
    """Returns the calibration for a model as it is now; or why the nearest one does not fit.

    Of several that fit, one at the timestep; else one at the model's own; else any, since it tells where to measure. Of
    equals, the newest.

    Both are None where none is near: that of another model says nothing.

    Args:
        denoiser: The model.
        shape: (C, H, W) of its latents.
        draws: That must fit, or None for any number.
        fingerprint: The model's, where it is known already.
        time: The sampler's first timestep; None for the model's own at pure noise.
    """
    now = binding_of(denoiser, shape, draws or 0, fingerprint, time)
    nearest: tuple[int, Binding] | None = None
    fitting: dict[int | None, Calibration] = {}
    for calibration in kept():
        made, wanted = calibration.binding, now if draws else now._replace(draws=calibration.draws)
        differing = differences(made, wanted)
        if not differing:
            if made.time == time:
                return calibration, None
            fitting.setdefault(made.time, calibration)
        # of another model there may be any number; only those that may be this model's own are worth a word
        elif not {"family", "weights"} & set(differing) and (nearest is None or len(differing) < nearest[0]):
            nearest = len(differing), made
    if fitting:
        return fitting.get(None) or next(iter(fitting.values())), None
    if nearest is None:
        return None, None
    wanted = now if draws else now._replace(draws=nearest[1].draws)
    return None, f"the calibration that is kept is {misfit(nearest[1], wanted, denoiser)}"


def kept() -> Iterator[Calibration]:
    """Yields all calibrations that are kept, the newest first, then the built-in model's; warns of broken ones."""
    for path in sorted(_files(), key=_age):
        try:
            yield Calibration.load(path)
        except CalibrationError as error:
            warnings.warn(f"a kept calibration was left out: {printable(error, 400)}", UserWarning, stacklevel=2)
    yield Calibration.load(BUILT_IN)


def _files() -> list[Path]:
    try:
        return [path for path in folder().iterdir() if path.name.endswith(ENDING)]
    except OSError:  # there is none, or it is not ours to read
        return []


def _age(path: Path) -> tuple[float, str]:
    try:
        return -path.stat().st_mtime_ns, path.name
    except OSError:
        return 0, path.name
