"""What every user relies on without asking: a light import, nothing global touched."""

import json
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import cryptomnesia

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib  # pytest brings it

ROOT = Path(__file__).parents[1]
VERSION = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["version"]

LOADED = """
import json, sys
import torch, numpy
before = set(sys.modules)
import cryptomnesia
from cryptomnesia import CallableDenoiser
print(json.dumps(sorted(set(sys.modules) - before)))
"""


def test_import_is_light():
    found = json.loads(subprocess.run([sys.executable, "-c", LOADED], capture_output=True, check=True).stdout)
    # what is loaded decides how long it takes, on an idle and on a busy machine: benchmarks.speed tells the seconds
    assert [name for name in found if name.split(".")[0] not in {"cryptomnesia", *sys.stdlib_module_names}] == []
    own = {name for name in found if name.startswith("cryptomnesia")}
    ground = (
        "branches condition denoiser errors identity levels memory own_calls printable prompt_text reference".split()
    )
    assert {"cryptomnesia", "cryptomnesia.denoiser"} <= own <= {"cryptomnesia", *(f"cryptomnesia.{n}" for n in ground)}


def test_core_modules_need_torch_and_numpy_only():
    code = """
import sys
for name in ("diffusers", "transformers", "sklearn", "scipy", "PIL", "rich", "typer", "safetensors"):
    sys.modules[name] = None
import cryptomnesia
from cryptomnesia import Guard
import cryptomnesia.calibration, cryptomnesia.signals.memorization, cryptomnesia.signals.baselines, cryptomnesia.report
try:
    cryptomnesia.load_demo()
except cryptomnesia.CryptomnesiaError as error:
    print(error)
"""
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "'cryptomnesia[diffusers]'" in found.stdout


def test_unknown_names_are_attribute_errors():
    import pytest

    with pytest.raises(AttributeError, match="nothing"):
        cryptomnesia.nothing  # noqa: B018


def test_submodules_are_found_by_attribute():
    code = "import cryptomnesia; print(cryptomnesia.signals.memorization.memorization_score.__name__)"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "memorization_score"


def test_public_names_are_shown_before_they_are_loaded():
    code = "import cryptomnesia; print(*dir(cryptomnesia))"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    import cryptomnesia

    assert found.stdout.split() == sorted(cryptomnesia.__all__) and "load_demo" in found.stdout


WHEEL = """
import os, sys
from setuptools.build_meta import build_wheel
os.chdir(sys.argv[1])
build_wheel(sys.argv[2])
"""
INSTALLED = """
import sys
sys.path.insert(0, sys.argv[1])
import cryptomnesia
from cryptomnesia.calibration_store import BUILT_IN
assert BUILT_IN.is_file() and str(BUILT_IN).startswith(sys.argv[1])
print(cryptomnesia.__version__)
"""


def library_files() -> set[str]:
    paths = (path for path in (ROOT / "guard").rglob("*") if path.is_file() and "__pycache__" not in path.parts)
    return {path.relative_to(ROOT / "guard").as_posix() for path in paths}


def test_a_wheel_holds_the_library_and_nothing_else(tmp_path):
    clone, target = tmp_path / "clone", tmp_path / "target"
    shutil.copytree(ROOT / "guard", clone / "guard", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "setup.py", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, clone)
    subprocess.run([sys.executable, "-c", WHEEL, clone, tmp_path], capture_output=True, check=True)
    with zipfile.ZipFile(next(tmp_path.glob("*.whl"))) as wheel:
        folders = [name.partition("/") for name in wheel.namelist()]
        wheel.extractall(target)
    assert {rest for top, _, rest in folders if top == "cryptomnesia"} == library_files()
    assert {top for top, _, _ in folders} == {"cryptomnesia", f"cryptomnesia-{VERSION}.dist-info"}
    found = subprocess.run([sys.executable, "-c", INSTALLED, target], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == VERSION


def test_the_version_stands_once():
    assert cryptomnesia.__version__ == VERSION
    code = [*ROOT.glob("*.py"), *(ROOT / "guard").rglob("*.py"), *(ROOT / "nodes").rglob("*.py")]
    assert [path.name for path in code if f'"{VERSION}"' in path.read_text("utf-8")] == []


def test_recipes_are_no_part_of_the_library():
    paths = [*(ROOT / "guard").rglob("*.py"), *(ROOT / "nodes").rglob("*.py")]
    imports = re.compile(r"^\s*(from|import) (training|benchmarks|tests)\b", re.MULTILINE)
    assert paths and not [path.name for path in paths if imports.search(path.read_text("utf-8"))]
