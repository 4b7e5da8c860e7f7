"""Installs what the pack needs and the host lacks: run by ComfyUI-Manager and A1111, or by hand with the host's Python.

Where nothing is missing, pip is not called. What is the host's own is pinned to what is there, and never installed.
"""

import importlib.metadata
import importlib.util
import os
import re
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

REQUIREMENTS = Path(__file__).resolve().with_name("requirements.txt")
HOSTS_OWN = (
    "torch",
    "torchvision",
    "torchaudio",
    "xformers",
    "numpy",
    "pillow",
    "onnxruntime",
    "onnxruntime-gpu",
    "onnxruntime-directml",
    "onnxruntime-openvino",
)
SKIPPING = {"--skip-install", "--skip-extensions", "--skip-all"}  # of AUTOMATIC1111 and Forge, and of SD.Next
LEAST_TORCH = "2.4"  # as in pyproject.toml; AUTOMATIC1111 installs an older one by itself
SIMPLE = re.compile(r"(?P<name>[A-Za-z0-9][A-Za-z0-9._-]*)\s*(?:>=\s*(?P<least>[\w.]+))?")


class Failed(Exception):
    """Something is missing still; the message says why."""


def main() -> int:
    """0 if everything is there in the end, or nothing was to be done, else 1."""
    if told_to_skip():
        return 0
    old = version_of("torch")
    if old is not None and numbers(old) < numbers(LEAST_TORCH):
        say(f"torch {old} is there, and {LEAST_TORCH} or newer is needed: update it yourself, it is not touched here")
    wanted: list[str] = []
    try:
        wanted = missing(requirements())
        if not wanted:
            say("nothing is missing, nothing is installed")
            return 0
        say(f"installing {', '.join(wanted)}; what is there is left as it is")
        install(wanted)
    except Failed as failure:
        by_hand = f"; run by hand: {readable([*installer(), 'install', *wanted])}" if wanted else ""
        say(f"{failure}{by_hand}")
        return 1
    say("done; restart ComfyUI or the web UI")
    return 0


def told_to_skip() -> bool:
    """Whether the web UI was started with --skip-install, or something else that means no installing."""
    given = re.split(r"[\s=]+", os.environ.get("COMMANDLINE_ARGS", ""))
    return any(word in SKIPPING for word in given)


def say(line: str) -> None:
    print(f"Cryptomnesia: {line}", flush=True)


def requirements() -> list[str]:
    """The lines of requirements.txt, without comments and without what is the host's own."""
    try:
        lines = REQUIREMENTS.read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise Failed(f"requirements.txt cannot be read: {error.strerror}") from error
    texts = [text for line in lines if (text := re.sub(r"(^|\s)#.*", "", line).strip())]
    return [text for text in texts if name_of(text) not in HOSTS_OWN]


def name_of(requirement: str) -> str:
    """As package indexes write it: lower case, with dashes."""
    found = SIMPLE.match(requirement)
    if found is None:
        raise Failed(f"requirements.txt: {requirement!r} names no package")
    return re.sub(r"[-_.]+", "-", found["name"]).lower()


def missing(texts: list[str]) -> list[str]:
    """Those that are absent, or too old."""
    return [text for text in texts if not satisfied(text)]


def satisfied(text: str) -> bool:
    """Whether the environment has it; ComfyUI's Python has `packaging`, another may not."""
    try:
        from packaging.requirements import InvalidRequirement, Requirement
        from packaging.version import InvalidVersion
    except ImportError:
        return satisfied_simply(text)
    try:
        asked = Requirement(text)
    except InvalidRequirement as error:
        raise Failed(f"requirements.txt: {text!r} is no requirement") from error
    if asked.marker is not None and not asked.marker.evaluate():
        return True
    there = version_of(asked.name)
    try:
        return there is not None and asked.specifier.contains(there, prereleases=True)
    except InvalidVersion:
        return False


def satisfied_simply(text: str) -> bool:
    """For `name` and `name>=1.2`; about anything else pip is asked."""
    found = SIMPLE.fullmatch(text)
    there = version_of(found["name"]) if found else None
    if found is None or there is None:
        return False
    return found["least"] is None or numbers(there) >= numbers(found["least"])


def numbers(version: str) -> list[int]:
    """The leading numbers of a version, without trailing zeros: 4.18.0rc1 -> 4, 18."""
    found = [int(part) for part in re.match(r"[\d.]*", version)[0].split(".") if part]  # type: ignore[index]
    while found and not found[-1]:
        found.pop()
    return found


def version_of(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def pins() -> Iterator[str]:
    """What is the host's own, at the version that is there."""
    for name in HOSTS_OWN:
        there = version_of(name)
        if there:
            yield f"{name}=={there}"


def installer() -> list[str]:
    """pip of this Python; some hosts have uv only."""
    if importlib.util.find_spec("pip") is None and importlib.util.find_spec("uv") is not None:
        return [sys.executable, "-m", "uv", "pip"]
    return [sys.executable, "-m", "pip"]


def options(command: list[str]) -> list[str]:
    """uv upgrades nothing that fits, unasked; pip is told so."""
    if "uv" in command:
        return ["--python", sys.executable]
    quiet = ["--disable-pip-version-check", "--no-input", "--retries", "2"]
    return ["--upgrade-strategy", "only-if-needed", *quiet]


def install(wanted: list[str]) -> None:
    """Raises Failed if it cannot be done."""
    command = installer()
    with tempfile.TemporaryDirectory() as folder:
        bounds = Path(folder) / "constraints.txt"
        bounds.write_text("".join(f"{pin}\n" for pin in pins()), encoding="utf-8")
        command = [*command, "install", *options(command), "--constraint", str(bounds), *wanted]
        try:
            done = subprocess.run(command, capture_output=True, text=True, encoding="utf-8", errors="replace")
        except OSError as error:
            raise Failed(f"could not install {', '.join(wanted)}: {error.strerror}") from error
    if done.returncode:
        raise Failed(f"could not install {', '.join(wanted)}: {reason(done.stderr or done.stdout)}")


def reason(output: str) -> str:
    """pip's own errors, in one line and without addresses."""
    lines = [line.strip() for line in output.splitlines() if line.strip() and not line.startswith("[notice]")]
    errors = [line for line in lines if line.lower().startswith("error")]
    return re.sub(r"https?://\S+", "...", "; ".join(errors or lines[-1:] or ["pip gave no reason"]))[:300]


def readable(command: list[str]) -> str:
    """As it can be pasted into a terminal."""
    return subprocess.list2cmdline(command) if os.name == "nt" else shlex.join(command)


if __name__ == "__main__":
    sys.exit(main())
