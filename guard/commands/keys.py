"""`cryptomnesia keys`: a key of one's own to sign with, and whom one trusts."""

import datetime
import json
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.text import Text

from ..printable import printable
from . import options
from .console import EXIT_BAD_INPUT, EXIT_CLEAR, EXIT_NO_VERDICT, fail, stdout
from .documents import write_document

SOON = 60  # days
keys = typer.Typer(name="keys", no_args_is_help=True, add_completion=False)


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

    Nobody vouches for such a key but you: programs call its signer unknown until they are given its root certificate.

    Exit code: 0 made, 2 it could not be.
    """
    from ..sidecar import config_folder, new_chain
    from ..sidecar.keys import CERTIFICATE, KEY

    chain = new_chain(config_folder() / "keys" if out is None else out, name=name)
    certificate, key, root = (path.absolute() for path in (chain.certificate, chain.key, chain.root))
    if as_json:
        write_document({"certificate": str(certificate), "key": str(key), "root": str(root)})
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
        "or keeps it for good: cryptomnesia keys trust root.pem",
        "To everybody else the signer is unknown, also on sites that show Content Credentials: for those, sign with a",
        "certificate of an authority on C2PA's trust list, by the same two settings.",
        "Certificates are valid for ten years. Lose the key, and you make a new one with a new root.",
    ):
        stdout().print(Text(line), soft_wrap=True)
    return EXIT_CLEAR


@keys.command()
def show(as_json: options.Json = False) -> int:
    """Tells with what images are signed here, whom you trust, and until when each certificate is valid.

    Exit code: 0 there is a key that can sign, 5 there is none, 2 one that cannot be used.
    """
    from ..errors import CryptomnesiaError
    from ..files import read_file
    from ..sidecar import load_signer
    from ..sidecar.certificates import certificates, described
    from ..sidecar.keys import trusted

    problem, signing = None, []
    try:
        signer = load_signer()
        if signer is not None:
            signing = [described(one) for one in certificates(signer.certificates, "the certificate")]
    except CryptomnesiaError as error:
        problem = str(error)
    roots = [
        {"file": str(path), **described(one)}
        for path in trusted()
        for one in certificates(read_file(path, 10 << 20, "certificate"), printable(path))
    ]
    if as_json:
        write_document({"signing": signing, "problem": problem, "trusted": roots})
    else:
        _lines("images are signed with", signing, "nothing: make a key with `cryptomnesia keys new`")
        _lines("trusted", roots, "nobody: keep a root certificate with `cryptomnesia keys trust root.pem`")
    if problem is not None:
        fail(problem)
        return EXIT_BAD_INPUT
    return EXIT_CLEAR if signing else EXIT_NO_VERDICT


def _lines(title: str, listed: list[dict[str, Any]], otherwise: str) -> None:
    stdout().print(Text(f"{title}:" if listed else f"{title} {otherwise}"), soft_wrap=True)
    today = datetime.datetime.now(datetime.timezone.utc).date()
    for one in listed:
        left = (datetime.date.fromisoformat(one["until"]) - today).days
        style = "bold red" if left < 0 else "yellow" if left < SOON else ""
        when = f"expired on {one['until']}" if left < 0 else f"valid until {one['until']}, {left} days from now"
        text = f"  {printable(one['name'], 80)}, by {printable(one['issuer'], 80)}: {when}, serial {one['serial']}"
        stdout().print(Text(text, style=style), soft_wrap=True)


@keys.command()
def trust(
    certificate: Annotated[
        Path, typer.Argument(metavar="CERT.pem", help="A signer's root certificate, or a trust list.")
    ],
) -> int:
    """Keeps a root certificate, so that `verify` trusts whom it vouches for. Nothing is overwritten.

    Exit code: 0 kept, 2 it could not be.
    """
    from ..sidecar.keys import keep_trust

    kept = keep_trust(certificate)
    stdout().print(Text(f"trusted from now on: {kept}; remove that file to end it"), soft_wrap=True)
    return EXIT_CLEAR
