"""Writes the provenance of each image that the web UI saves: a file beside it, and into its own file if asked."""

import re
import warnings
from contextlib import suppress
from pathlib import Path
from typing import Any

from cryptomnesia.errors import CryptomnesiaError, UnsignedWarning
from cryptomnesia.printable import printable
from cryptomnesia.sidecar import Generation, load_signer, write_sidecar

from . import models
from .job import Batch, Job, job_of

_UNSIGNED = (
    "Cryptomnesia: there is no key, so images carry unsigned metadata, which anyone can change: make a key with "
    "`cryptomnesia keys new`"
)
_STAGE = re.compile(r"-(mask|mask-composite)$|-before-[a-z-]+$")
_SHA256 = re.compile(r"[0-9a-f]{64}")


def saved(params: Any) -> None:
    """Writes the provenance of one image that was saved; nothing for grids, masks and images on the way.

    The infotext in the file stays as it is. What goes wrong is said under the gallery: the image itself is there.
    """
    p: Any = getattr(params, "p", None)
    job = job_of(p)
    if p is None or job is None or job.choices.prompts == "no file":
        return
    found = _image_of(job, p, Path(params.filename))
    if found is None:
        return
    batch, image = found
    batch.written.add(image)
    calibration = job.calibrations.calibration
    report = batch.reports[image]
    embed = job.choices.embed
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UnsignedWarning)  # said below, where people look
            write_sidecar(
                params.filename,
                report,
                generation(p, batch, image),
                prompts=job.choices.prompts,  # type: ignore[arg-type]
                calibration=calibration if report.calibration_id is not None else None,
                embed=embed,
            )
        if embed and not job.unsigned and load_signer() is None:
            job.unsigned = True
            p.comment(_UNSIGNED)
    except CryptomnesiaError as error:
        what = "the provenance is not all there" if embed else "no provenance file"
        p.comment(f"Cryptomnesia: {what}: {printable(error, 400)}")


def _image_of(job: Job, p: Any, path: Path) -> tuple[Batch, int] | None:
    """The batch and the number of the image that a file holds; None where it is none of them."""
    batch, index = job.batches.get(p.iteration), getattr(p, "batch_index", None)
    if batch is None or batch.kept is None or index is None or not 0 <= index < len(batch.kept):
        return None
    grids = getattr(p, "outpath_grids", None)
    samples = getattr(p, "outpath_samples", None)
    apart = bool(grids) and grids != samples and Path(grids).absolute() in path.absolute().parents
    if apart or path.stem.startswith("grid") or path.stem.endswith("-grid") or _STAGE.search(path.stem):
        return None
    image = batch.kept[index]
    return None if image in batch.written else (batch, image)


def generation(p: Any, batch: Batch, image: int) -> Generation:
    """Returns how the web UI made an image."""
    sampling: dict[str, Any] = {}
    for name, said in (
        ("steps", "steps"),
        ("cfg_scale", "cfg"),
        ("sampler_name", "sampler"),
        ("scheduler", "scheduler"),
        ("width", "width"),
        ("height", "height"),
        ("subseed_strength", "variation strength"),
        ("clip_skip", "clip skip"),
    ):
        value = getattr(p, name, None)
        if isinstance(value, bool | int | float | str) and value not in ("", 0):
            sampling[said] = value
    if getattr(p, "enable_hr", False):
        for name in ("hr_scale", "hr_upscaler", "hr_second_pass_steps", "denoising_strength"):
            value = getattr(p, name, None)
            if isinstance(value, int | float | str):
                sampling[f"hires {name.removeprefix('hr_').replace('_', ' ')}"] = value
    negative = batch.negatives[image] if image < len(batch.negatives) else None
    return Generation(
        host=models.program(),
        models=[_model(p, batch.reports[image].fingerprint), *_loras(p)],
        sampling=sampling,
        seed=batch.seeds[image] if image < len(batch.seeds) else None,
        prompt=batch.original(image),
        negative=negative or None,
    )


def _model(p: Any, fingerprint: str | None) -> dict[str, Any]:
    info = getattr(getattr(p, "sd_model", None), "sd_checkpoint_info", None)
    name = getattr(p, "sd_model_name", None) or getattr(info, "name_for_extra", None) or getattr(info, "name", None)
    digest = str(getattr(info, "sha256", "") or "")
    entry = {"role": "model", "name": str(name or "unknown"), "fingerprint": fingerprint}
    return entry | ({"sha256": digest} if _SHA256.fullmatch(digest) else {})


def _loras(p: Any) -> list[dict[str, Any]]:
    """The LoRAs that the prompts of a batch name, with the strength that they are given."""
    networks = getattr(p, "extra_network_data", None) or getattr(p, "network_data", None) or {}
    found = []
    for network in networks.get("lora", ()) if isinstance(networks, dict) else ():
        items = [str(item) for item in getattr(network, "items", None) or ()]
        if not items:
            continue
        entry: dict[str, Any] = {"role": "lora", "name": items[0]}
        with suppress(ValueError):
            entry["strength"] = float(items[1]) if len(items) > 1 else 1.0
        found.append(entry)
    return found
