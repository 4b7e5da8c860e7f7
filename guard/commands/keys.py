"""`cryptomnesia keys`: a key of one's own, to sign sidecars with."""

import json
import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.text import Text

from . import options
from .console import EXIT_CLEAR, stdout

keys = typer.Typer(name="keys", no_args_is_help=True, add_completion=False)


@keys.callback()
def _keys() -> None:
    # keeps `new` a command of its own although there is no other yet
    pass


@keys.command()
def new(
    out: Annotated[
        Path | None, typer.Option("--out", "-o", metavar="FOLDER", help="By default a folder beside your settings.")
    ] = None,
    name: Annotated[
        str | None, typer.Option(help="Stands in the certificates, for all to read; by default a random name.")
    ] = None,
    as_json: options.Json = False,
) -> int:
    """Makes a private key and its certificates. Nothing is overwritten.

    Exit code: 0 made, 2 it could not be.
    """
    from ..sidecar import config_folder, new_chain
    from ..sidecar.keys import CERTIFICATE, KEY

    chain = new_chain(config_folder() / "keys" if out is None else out, name=name)
    certificate, key, root = (path.absolute() for path in (chain.certificate, chain.key, chain.root))
    if as_json:
        made = {"certificate": str(certificate), "key": str(key), "root": str(root)}
        sys.stdout.write(json.dumps(made) + "\n")
        return EXIT_CLEAR
    settings = json.dumps({CERTIFICATE: str(certificate), KEY: str(key)})
    for line in (
        f"private key, for you alone:     {key}",
        f"certificates, to sign with:     {certificate}",
        f"root certificate, to give away: {root}",
        "",
        f"To sign with it, put this into {config_folder() / 'settings.json'}:",
        f"  {settings}",
        f"or set the environment variables {CERTIFICATE} and {KEY} to these two files.",
        "Who has your root certificate checks your images with: cryptomnesia verify IMAGE --trust root.pem",
        "Certificates are valid for ten years. Lose the key, and you make a new one with a new root.",
    ):
        stdout().print(Text(line), soft_wrap=True)
    return EXIT_CLEAR
