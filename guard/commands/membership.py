"""`cryptomnesia membership`: was a model trained on the images of a folder?"""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer
from rich.text import Text

from ..errors import InputError
from ..files import write_atomically
from ..images import png
from . import options
from .console import EXIT_NO_VERDICT, membership_exit, progress, stderr, stdout, tell_cost
from .documents import write_document
from .files import make_folder, write_text
from .models import check_alpha, open_model

if TYPE_CHECKING:
    from ..denoiser import Denoiser
    from ..membership import ImageEvidence, MembershipTest, Settings

STORE, REPORT, PLOT = "statistics.json", "membership.json", "membership.png"


def membership(
    suspects: Annotated[
        Path, typer.Option("--suspects", "-s", metavar="FOLDER", help="Images in question; or one image.")
    ],
    references: Annotated[
        Path,
        typer.Option("--references", "-r", metavar="FOLDER", help="Images of the same kind, surely not trained on."),
    ],
    out: Annotated[Path, typer.Option("--out", "-o", metavar="FOLDER", help="Where results are kept.")],
    model: options.Model = "demo",
    device: options.Device = "auto",
    dtype: options.Dtype = "auto",
    members: Annotated[
        Path | None,
        typer.Option("--members", metavar="FOLDER", help="For one image: images that were surely trained on."),
    ] = None,
    prompts: Annotated[
        bool, typer.Option("--prompts", help="Each image's prompt lies in IMAGE.txt beside it: much stronger evidence.")
    ] = False,
    method: Annotated[
        str | None,
        typer.Option(
            metavar="[sima_mc|sima_relative|sima|loss|secmi|pia|pfami]",
            help="What is measured of each image: by default sima_mc, with prompts sima_relative.",
        ),
    ] = None,
    timestep: Annotated[
        list[float] | None,
        typer.Option("--timestep", "-t", help="The model's own time; repeat for the mean of several."),
    ] = None,
    draws: Annotated[
        int, typer.Option(min=1, max=1024, help="Noised copies of each image; more is steadier and slower.")
    ] = 8,
    features: Annotated[
        str,
        typer.Option(
            metavar="[statistic|gradients]",
            help="Of folders: gradients adds the norm of each layer's gradient, and learns from both folders; four "
            "times the work, for a model that betrays little.",
        ),
    ] = "statistic",
    alpha: Annotated[float, typer.Option(help="Share of folders without training images called likely.")] = 0.05,
    seed: options.Seed = 0,
    as_json: options.Json = False,
) -> int:
    """Was a model trained on some of these images? Compares a folder with references of the same kind.

    At least 10 images in each folder, better 70; about 1,000 for a large pretrained model. Writes membership.json, a
    picture, and each image's number, so that a second run measures only what is missing. Exit code: 0 no evidence; 2
    bad input; 3 likely trained on some of them; 5 no verdict: the two sets differ in kind, the images look like the
    model's own, or a single image, which is weak evidence at best; 130 stopped.
    """
    from ..membership import Settings, Store, image_evidence, membership_test

    check_alpha(alpha)
    times = None if not timestep else tuple(int(t) if t.is_integer() else t for t in timestep)
    settings = Settings(method, times, draws, seed, cast(Any, features))
    settings.check()
    single = suspects.is_file()
    if single and features != "statistic":
        raise InputError("--features gradients learns from folders: leave it out for a single image")
    _check_places(suspects, references, members, single)
    make_folder(out)
    store = Store(out / STORE)  # first: a broken file is answer before a large model is read
    denoiser = open_model(model, device, dtype)
    sets = [1 if single else suspects, references, *([] if members is None else [members])]
    _tell_cost(denoiser, settings.complete(denoiser, prompts), sets, bool(store.numbers))
    with progress("images") as bar:
        watch: dict[str, Any] = {"settings": settings, "store": store, "progress": _Bars(bar, single)}
        if single:
            prompt = _prompt_of(suspects) if prompts else None
            answer: Any = image_evidence(
                denoiser,
                suspects,
                references,
                members,
                prompt=prompt,
                reference_prompts=prompts,
                member_prompts=prompts,
                **watch,
            )
        else:
            both = {"suspect_prompts": prompts, "reference_prompts": prompts}
            answer = membership_test(denoiser, suspects, references, alpha=alpha, **both, **watch)
    write_text(out / REPORT, json.dumps(answer.to_dict(), indent=1) + "\n")
    if not single:
        write_atomically(out / PLOT, png(answer.plot()))
    _show(answer, as_json)
    if not as_json:
        stderr().print(f"kept in {out}", soft_wrap=True, style="dim")
    return EXIT_NO_VERDICT if single else membership_exit(answer.verdict)


def _tell_cost(denoiser: "Denoiser", settings: "Settings", sets: "list[Path | int]", kept: bool) -> None:
    """Says what all images of folders, or so many, will cost; which of them are kept shows when they are read."""
    from ..cost import rows_per_image
    from ..membership.measure import gather_images

    count = sum(place if isinstance(place, int) else len(gather_images(place, None)[0]) for place in sets)
    rows = count * settings.rows(denoiser)
    tell_cost(f"{count} images", rows, rows / rows_per_image(denoiser), ", less what is kept" if kept else "")


class _Bars:
    """A bar for each set of images, one after the other; folders are looked at again unless there is no evidence."""

    def __init__(self, bar: Any, single: bool):
        again = [f"made by a model? {name}" for name in ("suspects", "references")]
        self.bar, self.names = bar, ["image", "references", "members"] if single else ["suspects", "references", *again]
        self.task: Any = None

    def __call__(self, done: int, total: int | None) -> None:
        if done == 1:
            self.task = self.bar.add_task(self.names.pop(0), total=total)
        self.bar.update(self.task, completed=done)


def _check_places(suspects: Path, references: Path, members: Path | None, single: bool) -> None:
    if not suspects.exists():
        raise InputError(f"there is no image or folder {suspects}: check the name")
    for name, place in (("--references", references), ("--members", members)):
        if place is not None and not place.is_dir():
            raise InputError(f"{name} {place} is no folder: give a folder of images")
    if members is not None and not single:
        raise InputError("--members is for one image as --suspects: leave it out for a folder")


def _prompt_of(image: Path) -> str:
    from ..membership.measure import prompt_of

    return prompt_of(image)


def _show(answer: "MembershipTest | ImageEvidence", as_json: bool) -> None:
    if as_json:
        write_document(answer.to_dict())
        return
    console = stdout()
    console.print(Text(answer.headline(), style="bold"), soft_wrap=True)
    for note in answer.notes():
        console.print(Text(f"  {note}", style="dim"), soft_wrap=True)
