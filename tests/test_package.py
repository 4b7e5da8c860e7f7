"""What every user relies on without asking: a light import, nothing global touched."""

import json
import subprocess
import sys

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
    ground = "condition denoiser errors identity levels memory own_calls printable prompt_text".split()
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

    import cryptomnesia

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


def test_every_folder_of_the_library_is_packaged():
    from pathlib import Path

    root = Path(__file__).parent.parent
    listed = (root / "pyproject.toml").read_text()
    for folder in {p.parent for p in (root / "guard").rglob("*.py")}:
        name = ".".join(["cryptomnesia", *folder.relative_to(root / "guard").parts])
        assert f'"{name}"' in listed
