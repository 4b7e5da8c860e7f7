"""`cryptomnesia signature`: what a model's denoiser is like, in a file and as a picture."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..errors import InputError
from . import options
from .console import EXIT_CLEAR, progress, stdout, tell_cost
from .documents import write_document
from .images import image_files, require_pictures
from .models import open_model
from .prompts import PromptSource

if TYPE_CHECKING:
    from torch import Tensor

    from ..denoiser import Denoiser

ENOUGH = 20  # images made where none are given


def signature(
    out: Annotated[
        Path, typer.Option("--out", "-o", metavar="FILE", help="Where to write: NAME.signature.safetensors.")
    ],
    model: options.Model = "demo",
    device: options.Device = "auto",
    dtype: options.Dtype = "auto",
    images: Annotated[
        Path | None,
        typer.Option("--images", "-i", metavar="FOLDER", help="Images that the model made; by default it makes some."),
    ] = None,
    prompts: Annotated[
        str | None,
        typer.Option("--prompts", "-p", metavar="FILE", help="What to make images of; by default a shipped list."),
    ] = None,
    count: Annotated[int, typer.Option("--count", "-n", min=1, max=1000, help="Most images to use.")] = ENOUGH,
    name: Annotated[str | None, typer.Option(help="What to call the model; by default the file's name.")] = None,
    plan: Annotated[str, typer.Option(metavar="[5step|1step]", help="1step takes a fifth of the time.")] = "5step",
    author_compat: Annotated[bool, typer.Option("--author-compat", help="The paper's own rings.")] = False,
    plot: Annotated[
        Path | None, typer.Option(metavar="PICTURE.png", help="Draw the mean signature as heat maps.")
    ] = None,
    seed: options.Seed = 0,
    as_json: options.Json = False,
) -> int:
    """Measures how a model's denoiser errs, band by band, so that `cryptomnesia identify` can recognise it.

    Uses images that the model made. Where no --images are given, it makes them, with seeds from --seed on. Exit code:
    0 written, 2 bad input, 5 the model cannot be asked, 130 stopped.
    """
    from ..attribution.library import SUFFIX, Signatures

    check_out(out, SUFFIX)
    if plot is not None:
        check_out(plot, ".png")
    from ..signals.spectral import check_plan, rows_per_image

    check_plan(plan)
    if images is not None and prompts is not None:
        raise InputError("--images and --prompts exclude each other: give images, or prompts to make images from")
    files = image_files([images])[:count] if images is not None else []
    texts = [] if files else _texts(prompts)[:count]
    require_pictures(files)
    denoiser = open_model(model, device, dtype)
    from ..cost import rows_per_image as rows_of_an_image

    rows, count = rows_per_image(plan), len(files or texts)  # type: ignore[arg-type]
    made = "" if files else "; they are made first"
    noun = f"signatures by the plan {plan}" if count > 1 else f"signature by the plan {plan}"
    tell_cost(f"{count} {noun}", rows * count, rows * count / rows_of_an_image(denoiser), made)
    with progress("images") as bar:
        task = bar.add_task("reading images" if files else "making images", total=len(files or texts))
        latents = read_latents(denoiser, files, bar, task) if files else make_latents(denoiser, texts, seed, bar, task)
        task = bar.add_task("measuring", total=len(latents))
        title = name or out.name.removesuffix(SUFFIX)
        signatures = Signatures.measure(
            denoiser,
            latents,
            title,
            plan=plan,  # type: ignore[arg-type]
            author_compat=author_compat,
            progress=lambda done, _: bar.update(task, completed=done // rows),
        )
    signatures.save(out)
    if plot is not None:
        from ..attribution.plots import signature_plot

        signature_plot(signatures.values, plan=signatures.plan, title=f"Spectral signature of {signatures.name}").save(
            plot
        )
    if as_json:
        about = {
            "signature": str(out),
            "name": signatures.name,
            "n": signatures.n,
            "plan": plan,
            "plot": plot and str(plot),
        }
        write_document(about | {"fingerprint": signatures.fingerprint})
    else:
        stdout().print(f"{out}: {signatures.name}, {signatures.n} images, plan {plan}", soft_wrap=True)
    return EXIT_CLEAR


def check_out(out: Path, suffix: str) -> None:
    """Raises InputError unless a file of that name can be written; called before the long work."""
    if not out.name.lower().endswith(suffix) or len(out.name) == len(suffix):
        raise InputError(f"{out.name} does not end in {suffix}: name the file NAME{suffix}")
    if out.is_dir() or not out.parent.is_dir():
        raise InputError(f"{out} cannot be written: its folder does not exist, or it is a folder itself")


def read_latents(denoiser: "Denoiser", files: list[Path], bar: Any, task: Any) -> "Tensor":
    """Returns the latents of image files, (N, C, h, w) on the CPU, at the model's own size."""
    import torch

    from ..image_model import ImageModel
    from ..pixels import fitted, read_picture

    model, latents = ImageModel("the model", denoiser), []
    for file in files:
        latents.append(model.coder.encode_image(fitted(read_picture(file), model.pixels)).cpu())
        bar.advance(task)
    return torch.cat(latents)


def make_latents(denoiser: "Denoiser", prompts: list[str], seed: int, bar: Any, task: Any) -> "Tensor":
    """Returns the latents of images that the model makes of prompts, (N, C, h, w), read back from their pixels."""
    import torch

    from ..adapters.sampling import TextToImage, as_bytes
    from ..attribution.candidates import Candidate
    from ..protocols import pipeline_of

    height, width = denoiser.pixels(denoiser.latent_shape()) or (None, None)
    coder, pipe = Candidate("the model", denoiser).coder, pipeline_of(denoiser).pipe
    maker, latents = TextToImage(pipe, height=height, width=width), []
    for number, prompt in enumerate(prompts):
        made = torch.from_numpy(as_bytes(maker.images([prompt], [(seed + number) % 2**64])))
        latents.append(coder.encode_image(made.permute(0, 3, 1, 2).float() / 255).cpu())
        bar.advance(task)
    return torch.cat(latents)


def _texts(file: str | None) -> list[str]:
    source = PromptSource((), file or _shipped())
    texts = list(source)
    source.tell()
    return texts


def _shipped() -> str:
    from ..prompts import BENIGN

    return str(BENIGN)
