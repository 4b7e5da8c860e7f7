"""Options that several commands share."""

import math
from typing import Annotated

import typer

from ..errors import InputError
from ..printable import printable
from ..reference import REFERENCES, Reference

Model = Annotated[
    str,
    typer.Option(
        "--model", "-m", metavar="MODEL", help="demo, a diffusers folder (torch or ONNX), or a .safetensors file."
    ),
]
Draws = Annotated[int, typer.Option(min=1, max=1024, help="Noise draws per prompt; more is steadier and slower.")]
Seed = Annotated[int, typer.Option(min=0, max=2**64 - 1, help="Seed of the noise draws.")]
Height = Annotated[int | None, typer.Option(min=1, help="Image height in pixels; the model's own by default.")]
Width = Annotated[int | None, typer.Option(min=1, help="Image width in pixels; the model's own by default.")]
Json = Annotated[bool, typer.Option("--json", help="One JSON document on stdout, for machines.")]
JsonLines = Annotated[bool, typer.Option("--jsonl", help="JSON on stdout, a line per result as it comes.")]
Column = Annotated[str, typer.Option(help="Column of a table, or field of JSON objects, that holds the prompts.")]
Delimiter = Annotated[
    str | None,
    typer.Option(metavar="CHAR", help="Between the cells of a CSV file: , ; or tab; by its first row if not given."),
]
Format = Annotated[
    str | None,
    typer.Option(
        "--format", metavar="[txt|csv|tsv|jsonl|json|parquet]", help="Format of the file; by its name if not given."
    ),
]
Calibration = Annotated[
    str,
    typer.Option(
        "--calibration",
        "-c",
        metavar="[auto|none|FILE]",
        help="auto: the one that `cryptomnesia calibrate` keeps for this model and size; none: scores, no verdicts.",
    ),
]
Device = Annotated[
    str,
    typer.Option(
        "--device", metavar="[auto|cpu|cuda|cuda:N|mps]", help="Where it computes; auto: a GPU if there is one."
    ),
]
Dtype = Annotated[
    str,
    typer.Option(
        "--dtype",
        metavar="[auto|float32|float16|bfloat16]",
        help="What it computes in; auto: what the weights are stored in, but float32 on a CPU.",
    ),
]

Compared = Annotated[
    str,
    typer.Option(
        "--reference",
        metavar=f"[auto|{'|'.join(name.replace(' ', '-') for name in REFERENCES)}]",
        help="What prompts are compared with; auto: as the model tells. SDXL Turbo and Lightning do not tell that they "
        "are distilled: empty-prompt.",
    ),
]


def reference_of(text: str) -> Reference | None:
    """Returns what --reference asks for, written with hyphens or blanks; None for auto.

    Raises InputError, before anything is loaded, where there is no such reference.
    """
    named = {"auto": None, **{name: name for name in REFERENCES}}
    if (wanted := text.replace("-", " ")) not in named:
        known = ", ".join(name.replace(" ", "-") for name in named)
        raise InputError(f"--reference is one of {known}, not {printable(text, 40)}")
    return named[wanted]


def check_guidance(guidance: float | None) -> None:
    """Raises InputError unless --guidance, where it is given, is a number; called before anything is loaded."""
    if guidance is not None and not math.isfinite(guidance):
        raise InputError(f"--guidance is a number, such as 7.5, not {guidance}")
