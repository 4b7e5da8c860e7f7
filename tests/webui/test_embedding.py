"""Provenance in the files that a web UI saves: all that it asks for, and nothing of the program's own lost."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import ExifTags, Image

from cryptomnesia.sidecar import new_chain, sidecar_path, verify
from cryptomnesia.sidecar.keys import CERTIFICATE, KEY

from .conftest import ORDINARY

WARN = {"policy": "warn"}
kinds = pytest.mark.parametrize(
    "host, ending", [("a1111", "png"), ("forge", "jpg"), ("sdnext", "webp")], indirect=["host"]
)


@pytest.fixture
def host(request: pytest.FixtureRequest, start: Any) -> Any:
    return start(getattr(request, "param", "a1111"))


@pytest.fixture(autouse=True)
def _nobodys_settings(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path_factory.mktemp("config")))


@pytest.fixture(scope="module")
def chain(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return new_chain(tmp_path_factory.mktemp("keys") / "mine", name="Ada")


def held(path: Path) -> tuple[Any, np.ndarray]:
    """The infotext in a file, and its pixels."""
    with Image.open(path) as image:
        told = image.info.get("parameters") or image.getexif().get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.UserComment]
        return told, np.asarray(image)


def inside(path: Path) -> str:
    """What of it lies in the file, once nothing lies beside it."""
    sidecar_path(path).unlink(missing_ok=True)
    return verify(path).embedded


def images(folder: Path, ending: str) -> list[Path]:
    return sorted(folder.glob(f"*.{ending}"))


@kinds
def test_the_files_carry_it_and_the_infotext_stays(
    host: Any, make: Any, tmp_path: Path, chain: Any, monkeypatch: pytest.MonkeyPatch, ending: str
):
    host.ending = ending
    make([ORDINARY] * 2, WARN, batch_size=2)
    plain = [held(path) for path in images(tmp_path, ending)]
    assert [inside(path) for path in images(tmp_path, ending)] == ["none"] * 2

    p, _ = make([ORDINARY] * 2, WARN | {"embed": True}, batch_size=2)
    assert [line for line in p.comments if "unsigned metadata" in line] == [p.comments[-1]]  # once
    assert [inside(path) for path in images(tmp_path, ending)] == ["xmp"] * 2

    monkeypatch.setenv(CERTIFICATE, str(chain.certificate))
    monkeypatch.setenv(KEY, str(chain.key))
    p, _ = make([ORDINARY] * 2, WARN | {"embed": True}, batch_size=2)
    assert not any("unsigned" in line or "provenance" in line for line in p.comments)
    for path, (text, pixels) in zip(images(tmp_path, ending), plain, strict=True):
        assert verify(path, trust=[chain.root]).vouched
        sidecar_path(path).unlink()
        found = verify(path, trust=[chain.root])  # the file alone
        assert found.vouched and found.embedded == "manifest" and (found.claims or {})["verdict"] == "clear"
        assert held(path)[0] == text and np.array_equal(held(path)[1], pixels)


def test_the_settings_switch_it_on(host: Any, make: Any, tmp_path: Path):
    host.ui.shared.opts.cryptomnesia_embed = True
    make(ORDINARY, {"policy": "off"})
    assert inside(tmp_path / "00001.png") == "none" and not list(tmp_path.glob("*.json"))
    make(ORDINARY, WARN | {"prompts": "no file"})
    assert inside(tmp_path / "00001.png") == "none"
    make(ORDINARY, WARN)
    assert inside(tmp_path / "00001.png") == "xmp"
    make(ORDINARY, WARN | {"embed": False})
    assert inside(tmp_path / "00001.png") == "none"


def test_a_key_that_cannot_be_used_costs_no_image(
    host: Any, make: Any, tmp_path: Path, chain: Any, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv(CERTIFICATE, str(chain.certificate))
    monkeypatch.setenv(KEY, str(chain.root))
    p, processed = make(ORDINARY, WARN | {"embed": True})
    (line,) = [line for line in p.comments if "the provenance is not all there" in line]
    assert len(processed.images) == 1 and "\n" not in line and sidecar_path(tmp_path / "00001.png").exists()
