"""`cryptomnesia lineage`: which model of a pool does this one come from, by its images alone, or by weights?"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import typer
from rich.table import Table
from rich.text import Text

from .. import __version__
from ..errors import InputError, require
from ..images import png
from ..progress import Progress
from . import options
from .attribute import pairs
from .console import EXIT_CLEAR, EXIT_NO_VERDICT, following, progress, stderr, stdout
from .documents import write_document
from .files import make_folder, write_text
from .lineage_weights import by_weights
from .models import DEMO, open_model

if TYPE_CHECKING:
    from ..lineage import Parentage
    from ..lineage.folders import Images

REPORT, PLOT, PAGE, IMAGES = "lineage.json", "lineage.png", "lineage.html", "images"
EXAMPLES = 8
LEAST = 11


class Settings(NamedTuple):
    """The steps, guidance and first seed of the images that models make; None for the pipeline's own."""

    steps: int | None
    guidance: float | None
    seed: int


def lineage(
    target: Annotated[
        str, typer.Option("--target", "-t", metavar="FOLDER|MODEL", help="The model in question, or images it made.")
    ],
    pool: Annotated[
        list[str] | None,
        typer.Option("--pool", metavar="NAME=FOLDER|MODEL", help="A model that may be its parent; repeat for each."),
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", metavar="FOLDER", help="Where results and images are kept.")
    ] = None,
    weights: Annotated[bool, typer.Option("--weights", help="Compare the models' weights, and no images.")] = False,
    prompt: Annotated[
        list[str] | None,
        typer.Option("--prompt", "-p", help="What models are asked for, detailed and unusual; repeat, best eight."),
    ] = None,
    images: Annotated[int, typer.Option(min=LEAST, max=10_000, help="Images per model and prompt.")] = 100,
    steps: Annotated[int | None, typer.Option(min=1, max=1000, help="Sampling steps; the pipeline's own.")] = None,
    guidance: Annotated[float | None, typer.Option(min=0, help="Guidance scale; the pipeline's own.")] = None,
    encoder: Annotated[
        Path | None,
        typer.Option(metavar="FILE.onnx|FOLDER", help="Another image encoder: ONNX, or transformers' CLIP."),
    ] = None,
    scale: Annotated[
        list[int] | None, typer.Option(min=1, max=8, help="Of the features; repeat for several, e.g. 1 and 2.")
    ] = None,
    device: options.Device = "auto",
    dtype: options.Dtype = "auto",
    seed: options.Seed = 0,
    as_json: options.Json = False,
) -> int:
    """Which model of a pool does this one come from, or none of them? Looks at nothing but images, or at --weights.

    With --weights all are models, as folders or .safetensors files in any format: says who is a fine-tune, has a LoRA
    merged in, or is a merge of two, with their shares. Without, all must be of the same prompts: what images say of
    theirs is compared. Folders hold images of one prompt, or a folder for each prompt. Models are asked for --images
    images of each --prompt, which are kept: a second run goes on where the first one stopped. Exit code: 0, whichever
    it is, also none of these; 2 bad input, such as other prompts, the same images or equal weights; 5 no verdict: a
    pool too small to test, or no majority among the prompts.
    """
    from ..lineage import MultiScale, find_parent, open_encoder

    options.check_guidance(guidance)
    named = pairs(pool or [], "--pool", "FOLDER|MODEL")
    if not named:
        raise InputError("the pool is empty: name models that may be the parent as --pool NAME=FOLDER|MODEL")
    if weights:
        return by_weights(target, named, out, as_json)
    if out is None:
        raise InputError("results and images need a place: give --out FOLDER")
    prompts = list(dict.fromkeys(prompt or []))
    sources = {"": target, **named}
    _check(sources, prompts)
    # what is missing or broken is found before images are made
    require("sklearn", "audit")
    multiscale = MultiScale(open_encoder(encoder), scale or (1,))
    _require_different({name or "the target": source for name, source in sources.items() if _is_model(source)})
    make_folder(out)
    settings = Settings(steps, guidance, seed)
    with progress("images") as bar:
        by_model: dict[str, Images] = {}
        for name, source in sources.items():
            if not _is_model(source):
                by_model[name] = _read(source, prompts)
                continue
            task = bar.add_task(f"making {name or 'the target'}", total=images * len(prompts))
            watch = following(bar, task)
            by_model[name] = _made(source, prompts, images, out / IMAGES, settings, (device, dtype), watch)
        total = sum(len(files) for shown in by_model.values() for files in shown.values())
        task = bar.add_task("looking", total=total)
        of_target = by_model.pop("")
        answer = find_parent(of_target, by_model, encoder=multiscale, seed=seed, progress=following(bar, task))
    _write(out, answer, {"": of_target, **by_model}, sources, settings)
    _show(answer, out, as_json)
    return EXIT_CLEAR if answer.verdict else EXIT_NO_VERDICT


def _is_model(source: str) -> bool:
    path = Path(source).expanduser()
    return source == DEMO or path.is_file() or (path / "model_index.json").is_file()


def _check(sources: Mapping[str, str], prompts: list[str]) -> None:
    if any(not text.strip() for text in prompts):
        raise InputError("an empty prompt tells nothing about a model: give one with words in it")
    models = [name or "the target" for name, source in sources.items() if _is_model(source)]
    if models and not prompts:
        raise InputError(f"{', '.join(models)} must be asked for something: give --prompt, best eight of them")


def _require_different(models: Mapping[str, str]) -> None:
    """Raises InputError, naming both, for two models of equal weights; called before images are made."""
    known: dict[str, str] = {}
    for name, source in models.items() if len(models) > 1 else ():
        other = known.setdefault(open_model(source).fingerprint, name)
        if other != name:
            raise InputError(
                f"{other} and {name} have equal weights: they are one model, and neither is the other's child; leave "
                "one out to ask about others"
            )


def _read(source: str, prompts: list[str]) -> "Images":
    """Returns a folder's images by prompt; those of an unnamed prompt are of the one that was given."""
    from ..lineage.folders import ONE_PROMPT, images_in

    images = images_in(source)
    if ONE_PROMPT in images and len(prompts) == 1:
        return {prompts[0]: images[ONE_PROMPT]}
    return images


def _made(
    model: str,
    prompts: list[str],
    count: int,
    folder: Path,
    settings: Settings,
    placement: tuple[str, str],
    watch: Progress,
) -> "Images":
    """Returns images by a model, made where they are missing; the model is dropped from memory afterwards."""
    from ..lineage import Recipe, generate
    from ..protocols import pipeline_of

    denoiser = open_model(model, *placement)
    made: Images = {}
    for number, text in enumerate(prompts):

        def progress(done: int, total: int | None, before: int = number * count) -> None:
            watch(before + done, len(prompts) * count)

        recipe = Recipe(
            text, denoiser.fingerprint, steps=settings.steps, guidance=settings.guidance, seed=settings.seed
        )
        kept = recipe.folder(folder / recipe.model[:12])
        made[text] = generate(pipeline_of(denoiser).pipe, recipe, kept, count=count, progress=progress)
    return made


def _write(
    out: Path,
    answer: "Parentage",
    images: "Mapping[str, Images]",
    sources: Mapping[str, str],
    settings: Settings,
) -> None:
    from ..files import write_atomically
    from ..lineage.parentage import TARGET
    from .lineage_page import LineagePage, render

    facts = [(name or TARGET, Path(source).name) for name, source in sources.items()]
    facts += [("encoder", Path(answer.encoder).name), ("version", f"cryptomnesia {__version__}")]
    if any(map(_is_model, sources.values())):
        facts += [(name, str(value)) for name, value in settings._asdict().items() if value is not None]
    examples = {
        prompt: {name or TARGET: _examples(models[prompt]) for name, models in images.items()}
        for prompt in answer.prompts
    }
    write_text(out / REPORT, json.dumps(_document(answer), indent=1) + "\n")
    write_atomically(out / PLOT, png(answer.plot()))
    write_text(out / PAGE, render(LineagePage(answer, examples, facts)))


def _document(answer: "Parentage") -> dict[str, Any]:
    return {"schema": "cryptomnesia/lineage/1", **answer.to_dict()}


def _examples(files: Any) -> list[Any]:
    """Returns the first few images, small enough for a page, (H, W, 3) uint8 each."""
    import numpy as np

    from ..pixels import fitted, read_picture

    shown = []
    for file in files[:EXAMPLES]:
        pixels = read_picture(file)
        side = min(256, *pixels.shape[-2:])
        shown.append((fitted(pixels, (side, side))[0].permute(1, 2, 0).numpy() * 255).round().astype(np.uint8))
    return shown


def _show(answer: "Parentage", out: Path, as_json: bool) -> None:
    if as_json:
        write_document(_document(answer))
        return
    console = stdout()
    console.print(Text(answer.headline(), style="bold"), soft_wrap=True)
    grid = Table.grid(padding=(0, 2))
    for name, distance in sorted(answer.distances.items(), key=lambda item: item[1]):
        grid.add_row(Text(name), Text(f"{distance:.2f}"), style="bold" if name == answer.parent else "")
    if answer.null_threshold is not None:
        grid.add_row(Text("a parent is below", style="dim"), Text(f"{answer.null_threshold:.2f}", style="dim"))
    console.print(grid)
    for note in answer.notes():
        console.print(Text(f"  {note}", style="dim"), soft_wrap=True)
    stderr().print(f"kept in {out}: {PAGE}, {PLOT}, {REPORT}", soft_wrap=True, style="dim")
