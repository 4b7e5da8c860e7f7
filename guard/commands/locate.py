"""`cryptomnesia locate`: make an image and show which part of it is reproduced from training data."""

from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.text import Text

from ..errors import InputError
from ..files import write_atomically
from . import options
from .console import EXIT_MEMORIZED, exit_code, following, p_text, progress, stdout, tell_cost, verdict_text
from .documents import write_document
from .files import make_folder
from .models import open_guard

if TYPE_CHECKING:
    from ..guard import Guard
    from ..localization import Location

STEPS = 50
LARGEST_SEED = 2**64 - 1


def locate(
    prompt: Annotated[str, typer.Option("--prompt", "-p", metavar="PROMPT", help="What to make.")],
    out: Annotated[Path, typer.Option("--out", "-o", metavar="FOLDER", help="Where to put the image and its maps.")],
    model: options.Model = "demo",
    device: options.Device = "auto",
    dtype: options.Dtype = "auto",
    reference: options.Compared = "auto",
    calibration: options.Calibration = "auto",
    alpha: Annotated[float | None, typer.Option(help="False-alarm rate; the calibration's own by default.")] = None,
    seed: Annotated[int, typer.Option(min=0, max=LARGEST_SEED, help="Seed of the image and of the check.")] = 0,
    steps: Annotated[int, typer.Option(min=1, max=1000, help="Sampling steps.")] = STEPS,
    guidance: Annotated[
        float | None, typer.Option(min=0, help="Guidance scale; the pipeline's own by default.")
    ] = None,
    probes: Annotated[
        int, typer.Option(min=1, max=1024, help="Random probes of the map; more is steadier and slower.")
    ] = 4,
    seeds: Annotated[
        int,
        typer.Option(min=0, max=64, help="Make so many images of other seeds, too, if memorized: what do they share?"),
    ] = 0,
    height: options.Height = None,
    width: options.Width = None,
    as_json: options.Json = False,
) -> int:
    """Makes one image and shows which part of it is likely reproduced from training data.

    Writes image.png with its sidecar, map.png (for people), mask.png (white = likely reproduced) and map.npy (the map).

    Exit code: 0 nothing is likely reproduced, 3 a part is, 5 there is no verdict, 2 bad input, 130 stopped.
    """
    if not prompt.strip():
        raise InputError("an empty prompt reproduces nothing: give one with words in it")
    options.check_guidance(guidance)
    compared = options.reference_of(reference)
    make_folder(out)
    guard, _ = open_guard(
        model, calibration, alpha, None, (height, width), device=device, dtype=dtype, reference=compared
    )
    _tell_cost(guard, probes, guidance, seeds)
    with progress("steps") if not as_json else nullcontext() as bar:
        location = guard.locate(
            prompt,
            seed=seed,
            steps=steps,
            guidance=guidance,
            height=height,
            width=width,
            probes=probes,
            seeds=seeds,
            progress=following(bar, bar.add_task("sampling", total=steps)) if bar else None,
        )
    files = write(out, location, guard)
    if as_json:
        write_document({"schema": "cryptomnesia/location/1", **location.to_dict(), "files": files})
    else:
        _show(location, files)
    return EXIT_MEMORIZED if location.share else exit_code([location.report.verdict])


def _tell_cost(guard: "Guard", probes: int, guidance: float | None, seeds: int) -> None:
    from ..cost import rows_per_image
    from ..localization import OUTLINE, rows_of_map

    denoiser = guard.denoiser
    branches = denoiser.reference == "empty branch" and (guidance is None or guidance > 1)
    rows = rows_of_map(probes, known=branches) + OUTLINE
    beside = ", beside the image and its check" + (f", and {seeds} images more where it is memorized" if seeds else "")
    tell_cost(f"{probes} probes of the map and its outline", rows, rows / rows_per_image(denoiser), beside)


def write(out: Path, location: "Location", guard: "Guard") -> dict[str, str]:
    """Writes the files of one location; the image's sidecar vouches for the others.

    Returns:
        The paths by what they are; without "mask" where there is no mask.
    """
    import io

    import numpy as np
    from PIL import Image

    def png(picture: Any) -> bytes:
        buffer = io.BytesIO()
        picture.save(buffer, "PNG")
        return buffer.getvalue()

    array = io.BytesIO()
    np.save(array, location.map.numpy(), allow_pickle=False)
    parts = {"heatmap": ("map.png", png(location.overlay())), "map": ("map.npy", array.getvalue())}
    if location.mask is not None:
        parts["mask"] = ("mask.png", png(Image.fromarray(location.mask.numpy().astype(np.uint8) * 255)))
    else:
        (out / "mask.png").unlink(missing_ok=True)  # of an earlier image
    for name, data in parts.values():
        write_atomically(out / name, data)
    evidence = [(kind, out / name) for kind, (name, _) in parts.items()]
    sampling = {"steps": location.steps, "guidance_scale": location.guidance}
    image = location.image.permute(1, 2, 0)
    path = out / "image.png"
    sidecar = guard.save(image, path, location.report, seed=location.seed, sampling=sampling, evidence=evidence)
    files = {kind: str(out / name) for kind, (name, _) in parts.items()}
    return {"image": str(path), **files, "sidecar": str(sidecar)}


def _show(location: "Location", files: dict[str, str]) -> None:
    """Prints the verdict, which area is likely reproduced, and where the pictures are."""
    report, console = location.report, stdout()
    score = "-" if report.score is None else f"{report.score:.2f}"
    line = verdict_text(report.verdict)
    line.append(f"  p-value {p_text(report.p_value)}, score {score}: {location.prompt}", style="default not bold")
    console.print(line, soft_wrap=True)
    if location.share is None:
        area = f"no mask: {location.reason}"
    elif location.share:
        percent = f"{100 * location.share:.1f} % of the image"
        how = "found again from other noise" if location.threshold is None else "map above half its peak"
        area = f"likely reproduced: {percent} ({how})"
    else:
        area = "likely reproduced: nothing"
    notes = [note for note in (report.note, location.note) if note]
    for text in (area, *notes):
        console.print(Text(f"  {text}"), soft_wrap=True)
    for kind, path in files.items():
        console.print(Text(f"  {kind:<8} {path}", style="dim"), soft_wrap=True)
