"""`cryptomnesia attribute`: which of these models made this image, or none of them?"""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table
from rich.text import Text

from ..errors import InputError
from ..progress import Progress
from ..prompts.captions import caption_of
from . import options
from .console import EXIT_CLEAR, EXIT_NO_VERDICT, following, progress, stderr, stdout, tell_cost
from .documents import Results
from .images import image_files, require_pictures
from .models import open_model

if TYPE_CHECKING:
    from ..attribution import Attribution, AttributionCalibration, Candidate


def attribute(
    images: Annotated[
        list[Path] | None, typer.Argument(metavar="[IMAGES]...", help="Images, or folders of them.")
    ] = None,
    candidate: Annotated[
        list[str] | None,
        typer.Option("--candidate", "-m", metavar="NAME=MODEL", help="A model in question; repeat for each."),
    ] = None,
    calibration: Annotated[
        Path | None,
        typer.Option("--calibration", "-c", metavar="FILE", help="NAME.attribution.safetensors, as --learn wrote it."),
    ] = None,
    learn: Annotated[
        list[str] | None,
        typer.Option("--learn", metavar="NAME=FOLDER", help="Images that a candidate made, to learn from; repeat."),
    ] = None,
    prompt: Annotated[
        str | None, typer.Option("--prompt", "-p", help="The images' prompt, if known: much stronger evidence.")
    ] = None,
    alpha: Annotated[float, typer.Option(help="Share of candidates' own images called none of these.")] = 0.05,
    plot: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Draw each answer as bars, NAME.bars.png.")
    ] = None,
    device: options.Device = "auto",
    dtype: options.Dtype = "auto",
    as_json: options.Json = False,
) -> int:
    """Which of these models made this image, or none of them? Every candidate is asked.

    Needs images whose makers are known, once: --learn NAME=FOLDER for each candidate, all of the same prompts, kept as
    --calibration FILE. With prompts: a text file beside each image, IMAGE.txt, in all folders, and --prompt. With
    --json, one document: "results" lists the answers, "summary" counts them.

    Exit code: 0, whoever it is, also none of these; 2 bad input; 5 no verdict on an image: nothing was learned, the
    candidates' images differ in what they show, or it is itself one that was learned from; 130 stopped.
    """
    named = pairs(candidate or [], "--candidate", "MODEL")
    folders = {name: image_files([Path(place)]) for name, place in pairs(learn or [], "--learn", "FOLDER").items()}
    files = image_files(images or [])
    _check(files, named, folders, calibration, alpha)
    learned = None
    if calibration is not None and not folders:
        from ..attribution import load_calibration

        learned = load_calibration(calibration)  # first: a broken file is found before large models are read
    if plot is not None:
        from .files import make_folder

        make_folder(plot)
    require_pictures([*files, *(file for folder in folders.values() for file in folder)])
    from ..attribution import Candidate

    pool = [Candidate(name, open_model(model, device, dtype)) for name, model in named.items()]
    _tell_cost(pool, len(files) + sum(map(len, folders.values())), learned, prompt is not None)
    with progress("candidates") as bar:
        if folders:
            task = bar.add_task("learning", total=len(pool))
            learned = _learned(pool, folders, prompt is not None, alpha, following(bar, task))
        task = bar.add_task("asking", total=len(pool))
        answers = _answers(files, pool, learned, prompt, following(bar, task)) if files else []
    if folders and calibration is not None and learned is not None:
        from ..attribution import save_calibration

        save_calibration(learned, calibration)
        stderr().print(f"learned from {sum(learned.images)} images: {calibration}", soft_wrap=True)
        for line in _doubts(learned):
            stderr().print(line, soft_wrap=True, style="yellow")
    with Results("cryptomnesia/attribution-answers/1") as results:
        for answer in answers:
            results.add(answer.to_dict()) if as_json else _show(answer)
        results.summary = {"images": len(answers)}
    for answer in answers:
        if plot is not None and answer.image is not None and answer.probabilities:
            answer.plot().save(plot / f"{Path(answer.image).name}.bars.png")
    if answers and learned is None:
        hint = "no verdict without images of known makers: give --learn NAME=FOLDER for each candidate, once"
        stderr().print(hint, style="yellow", soft_wrap=True)
    return EXIT_CLEAR if all(answer.verdict for answer in answers) else EXIT_NO_VERDICT


def pairs(given: list[str], option: str, what: str) -> dict[str, str]:
    """Returns values by name, as given by an option that takes NAME=VALUE.

    Args:
        given: The option's values, as the user wrote them.
        option: The option's name, for errors.
        what: What its value is, for errors.

    Raises:
        InputError: One is not NAME=VALUE, or a name is given twice.
    """
    values: dict[str, str] = {}
    for text in given:
        name, equals, value = text.partition("=")
        if not (name.strip() and equals and value.strip()):
            raise InputError(f"{option} takes NAME={what}, not {text!r}: put a name and = in front")
        if name.strip() in values:
            raise InputError(f"{option} names {name.strip()!r} twice: rename one")
        values[name.strip()] = value.strip()
    return values


def _check(
    files: list[Path], named: dict[str, str], folders: dict[str, list[Path]], calibration: Path | None, alpha: float
) -> None:
    from ..attribution.calibration_file import SUFFIX
    from .signature import check_out

    if not named:
        raise InputError("no candidate was named: give at least one as --candidate NAME=MODEL")
    if folders and sorted(folders) != sorted(named):
        raise InputError(f"--learn names {', '.join(folders)}, --candidate {', '.join(named)}: name the same")
    if not files and not (folders and calibration):
        raise InputError("no image was given: name images, or --learn and --calibration FILE to learn for later")
    if folders and calibration is not None:
        check_out(calibration, SUFFIX)
    if not 0 < alpha < 1:
        raise InputError(f"--alpha is a share between 0 and 1, not {alpha}")


def _tell_cost(
    pool: "list[Candidate]", count: int, calibration: "AttributionCalibration | None", prompted: bool
) -> None:
    """Says what so many images will cost; copies among them, which count once, are not known yet."""
    from ..attribution.evidence import costs, default_groups
    from ..cost import rows_per_image

    rows, passes = costs(default_groups(prompted) if calibration is None else calibration.groups)
    images = sum(count * rows / rows_per_image(candidate.denoiser) for candidate in pool)
    work = f"{_counted(count, 'image')} under {_counted(len(pool), 'candidate')}"
    tell_cost(work, len(pool) * count * rows, images, f", and {passes} times each image's way through an autoencoder")


def _counted(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def _learned(
    pool: "list[Candidate]", folders: dict[str, list[Path]], prompted: bool, alpha: float, callback: Progress
) -> "AttributionCalibration":
    from ..attribution import calibrate_attribution

    prompts = None
    if prompted:
        prompts = {name: [caption_of(file) for file in files] for name, files in folders.items()}
    return calibrate_attribution(folders, pool, prompts=prompts, alpha=alpha, progress=callback)


def _doubts(calibration: "AttributionCalibration") -> list[str]:
    """Returns what speaks against what was learned, a line for each reason."""
    lines = [f"no verdict between {a} and {b}: {why}" for (a, b), why in calibration.confounded.items()]
    lines += [
        f"{a} and {b} may be told apart by what their images show ({look}): put each image's prompt in IMAGE.txt"
        for (a, b), look in calibration.unchecked.items()
    ]
    return lines + ([f"{calibration.copies} images are copies of others and count once"] if calibration.copies else [])


def _answers(
    files: list[Path],
    pool: "list[Candidate]",
    calibration: "AttributionCalibration | None",
    prompt: str | None,
    callback: Progress,
) -> "list[Attribution]":
    from ..attribution import attribute as ask

    return ask(files, pool, calibration, prompts=prompt, progress=callback)


def _show(answer: "Attribution") -> None:
    console = stdout()
    console.print(
        Text(answer.headline(), style="bold").append(f"  {answer.image or ''}", style="default"), soft_wrap=True
    )
    from ..attribution.plots import percent

    grid = Table.grid(padding=(0, 2))
    for name, probability in sorted(answer.probabilities.items(), key=lambda item: -item[1]):
        grid.add_row(Text(name), Text(percent(probability)), style="bold" if name == answer.decision else "")
    if not answer.probabilities:
        for name, distance in sorted(answer.distances.items(), key=lambda item: item[1]):
            grid.add_row(Text(name), Text(f"{distance:+.3f}"))
    console.print(grid)
    for note in answer.notes():
        console.print(Text(f"  {note}", style="dim"), soft_wrap=True)
