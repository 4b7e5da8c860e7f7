"""install.py in a process of its own, with a stand-in for pip: nothing is ever fetched."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

INSTALL = Path(__file__).parents[1] / "install.py"
LEAST = re.search(r'LEAST_TORCH = "([\d.]+)"', INSTALL.read_text("utf-8"))[1]  # type: ignore[index]
PIP = """
import json, os, sys
from pathlib import Path

place = Path(__file__).with_name("called.json")
bounds = sys.argv[sys.argv.index("--constraint") + 1]
place.write_text(json.dumps({"arguments": sys.argv[1:], "bounds": Path(bounds).read_text().split(), "file": bounds}))
if os.environ.get("PIP_STAND_IN_FAILS"):
    print("WARNING: Retrying", file=sys.stderr)
    print("ERROR: No matching distribution found, see https://user:secret@index/simple", file=sys.stderr)
    sys.exit(1)
"""


class Host:
    """An environment whose pip only takes notes; install.py lies in a folder with blanks in its name."""

    def __init__(self, base: Path):
        self.pack, self.packages = base / "custom nodes" / "pack", base / "packages"
        self.pack.mkdir(parents=True)
        (self.packages / "pip").mkdir(parents=True)
        (self.packages / "pip" / "__init__.py").touch()
        (self.packages / "pip" / "__main__.py").write_text(PIP)
        shutil.copy(INSTALL, self.pack)

    def has(self, name: str, version: str) -> None:
        about = self.packages / f"{name}-{version}.dist-info"
        about.mkdir()
        (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")

    def lacks_packaging(self) -> None:
        (self.packages / "packaging.py").write_text("raise ImportError('no packaging here')")

    def install(self, *requirements: str, **environment: str) -> subprocess.CompletedProcess:
        (self.pack / "requirements.txt").write_text("\n".join(requirements))
        settings = {**os.environ, "PYTHONPATH": str(self.packages), **environment}
        command = [sys.executable, "install.py"]
        return subprocess.run(command, cwd=self.pack, env=settings, capture_output=True, text=True)

    @property
    def called(self) -> dict | None:
        place = self.packages / "pip" / "called.json"
        return json.loads(place.read_text()) if place.exists() else None


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host(tmp_path)


@pytest.fixture(params=["packaging", "no packaging"])
def either(request: pytest.FixtureRequest, host: Host) -> Host:
    if request.param == "no packaging":
        host.lacks_packaging()
    return host


def test_nothing_missing_means_no_pip(either: Host):
    either.has("made_up_thing", "2.10.0")
    either.has("nightly", "3.0.0rc1")
    done = either.install("# a comment", "", "made-up.thing>=2.9", "Made_Up_Thing", "nightly>=2")
    assert done.returncode == 0 and done.stderr == "" and either.called is None
    assert done.stdout == "Cryptomnesia: nothing is missing, nothing is installed\n"


def test_only_what_is_missing_is_installed(either: Host):
    either.has("made_up_thing", "2.10.0")
    either.has("too_old", "1.9")
    done = either.install("made-up-thing>=2.9", "too-old>=1.10", "not-there>=4.18  # a comment")
    assert done.returncode == 0, done.stdout + done.stderr
    arguments = either.called["arguments"]
    assert arguments[0] == "install" and arguments[-2:] == ["too-old>=1.10", "not-there>=4.18"]
    assert arguments[arguments.index("--upgrade-strategy") + 1] == "only-if-needed"
    assert not any("made-up" in argument for argument in arguments)
    assert not {"--upgrade", "-U", "--force-reinstall", "--pre"} & set(arguments)
    assert "installing too-old>=1.10, not-there>=4.18" in done.stdout and done.stderr == ""
    assert not Path(either.called["file"]).exists()


def test_what_is_the_hosts_own_is_pinned(host: Host):
    own = {"torch": "9.9.1+cu999", "torchvision": "0.99.0a0+git123", "numpy": "1.26.4", "onnxruntime_gpu": "1.20.1"}
    for name, version in own.items():
        host.has(name, version)
    assert host.install("not-there").returncode == 0
    expected = {f"{name.replace('_', '-')}=={version}" for name, version in own.items()}
    assert expected <= set(host.called["bounds"])
    names = [line.partition("==")[0] for line in host.called["bounds"]]
    assert len(names) == len(set(names)) and "not-there" not in names


@pytest.mark.parametrize("name", ["torch>=99", "TorchVision", "numpy<1", "onnxruntime-gpu", "Torch[cuda]==99"])
def test_the_hosts_own_is_never_installed(either: Host, name: str):
    assert either.install(name).returncode == 0 and either.called is None
    assert either.install(name, "not-there").returncode == 0
    assert either.called["arguments"][-1] == "not-there" and name not in either.called["arguments"]


def test_a_failure_is_one_line_with_a_command(host: Host):
    done = host.install("not-there>=4.18", PIP_STAND_IN_FAILS="1")
    assert done.returncode == 1 and done.stderr == ""
    first, last = done.stdout.splitlines()
    assert "installing" in first and last.startswith("Cryptomnesia: could not install not-there>=4.18: ERROR: No match")
    assert "pip install" in last and sys.executable in last and "secret" not in last and "Retrying" not in last


@pytest.mark.parametrize("lines", [None, [">=3 nonsense"], ["good", "=="]])
def test_a_broken_list_is_one_line(host: Host, lines: list[str] | None):
    if lines is None:
        code = "import sys, install; install.REQUIREMENTS = install.REQUIREMENTS / 'nowhere'; sys.exit(install.main())"
        done = subprocess.run([sys.executable, "-c", code], cwd=host.pack, capture_output=True, text=True)
    else:
        done = host.install(*lines)
    assert done.returncode == 1 and done.stderr == "" and host.called is None
    assert len(done.stdout.splitlines()) == 1 and "requirements.txt" in done.stdout


def test_markers_are_obeyed(host: Host):
    assert host.install('not-there; python_version < "3"').returncode == 0 and host.called is None


def test_uv_serves_where_there_is_no_pip(host: Host):
    code = """
import importlib.util, sys, install
find = importlib.util.find_spec
importlib.util.find_spec = lambda name: None if name == "pip" else find("json") if name == "uv" else find(name)
command = install.installer()
print(command[1:], install.options(command) == ["--python", sys.executable])
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=host.pack, capture_output=True, text=True)
    assert done.stdout == "['-m', 'uv', 'pip'] True\n", done.stderr


def test_an_old_torch_is_named_and_left_alone(host: Host):
    host.has("torch", "2.1.2+cu121")
    done = host.install()
    assert done.returncode == 0 and host.called is None
    first = done.stdout.splitlines()[0]
    assert first.startswith("Cryptomnesia: torch 2.1.2+cu121 is there, and 2.4 or newer is needed: update it yourself")
    assert f'"torch>={LEAST}"' in (INSTALL.parent / "pyproject.toml").read_text("utf-8")


@pytest.mark.parametrize("flags", ["--skip-install", "--api --skip-install --port 7861", "--skip-extensions"])
def test_what_is_to_be_skipped_is_skipped(host: Host, flags: str):
    done = host.install("not-there", COMMANDLINE_ARGS=flags)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "") and host.called is None
    assert host.install("not-there", COMMANDLINE_ARGS="--api --skip-installing").returncode == 0 and host.called


def test_importing_does_nothing(host: Host):
    code = "import install, importlib; importlib.reload(install)"
    settings = {**os.environ, "PYTHONPATH": str(host.packages)}
    done = subprocess.run([sys.executable, "-c", code], cwd=host.pack, env=settings, capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "") and host.called is None


def test_the_packs_own_list_is_satisfied_here():
    done = subprocess.run([sys.executable, INSTALL], capture_output=True, text=True)
    assert done.returncode == 0 and "nothing is missing" in done.stdout
