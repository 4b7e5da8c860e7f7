"""Names that every system can have, writers that were killed, and JSON that is read strictly wherever it comes from."""

import os
import time

import pytest

from cryptomnesia import files
from cryptomnesia.attribution.calibration_file import _parse as parse_calibration
from cryptomnesia.audit.manifest import _read as read_manifest
from cryptomnesia.audit.results import Results
from cryptomnesia.errors import InputError
from cryptomnesia.files import require_file_name, write_atomically
from cryptomnesia.lineage.folders import images_in
from cryptomnesia.lineage.generation import Recipe, _claim
from cryptomnesia.membership import Store
from cryptomnesia.strict_json import read_object

GOOD = ("a", "my-model", "SD 1.5 (fp16)", "日本語", "é", "console", "com10", "a.con", "nullable", "x" * 200)
BAD = {
    "": "empty",
    ".": "dot",
    "..": "dot",
    ".hidden": "dot",
    "a/b": "folder",
    "a\\b": "folder",
    "C:x": "folder",
    "a|b": "folder",
    "a\nb": "cannot be seen",
    "\x1b[2Ja": "cannot be seen",
    "a\0": "cannot be seen",
    "a\x9bb": "cannot be seen",
    "\u202egnp.a": "cannot be seen",
    "a\u200b": "cannot be seen",
    "\ud800": "cannot be seen",
    "a.": "ends with a dot",
    "a ": "space",
    " a": "space",
    "a\u00a0": "cannot be seen",
    "CON": "device",
    "con.txt": "device",
    "Nul.a.b": "device",
    "aux": "device",
    "LPT9": "device",
    "com\u00b9": "device",
    "CONIN$": "device",
    "x" * 201: "200 bytes",
    "é" * 101: "200 bytes",
}


@pytest.mark.parametrize("name", GOOD)
def test_names_that_every_system_can_have(name):
    assert require_file_name(name) == name


@pytest.mark.parametrize("name", BAD, ids=lambda name: ascii(name)[:20])
def test_names_that_some_system_cannot_have(name):
    with pytest.raises(ValueError, match=BAD[name]):
        require_file_name(name)


def test_what_killed_writers_left_goes_with_the_next_write(tmp_path, monkeypatch):
    old = time.time() - 25 * 3600
    stale, fresh, other = (f".cryptomnesia-{digits}.tmp" for digits in ("0" * 16, "1" * 16, "not ours"))
    for name in (stale, fresh, other):
        (tmp_path / name).write_text("x")
    for name in (stale, other):
        os.utime(tmp_path / name, (old, old))
    (tmp_path / f".cryptomnesia-{'2' * 16}.tmp").mkdir()
    kept = {fresh, other, f".cryptomnesia-{'2' * 16}.tmp"}
    if os.name == "posix":
        (tmp_path / f".cryptomnesia-{'3' * 16}.tmp").symlink_to(tmp_path / other)
        os.utime(tmp_path / f".cryptomnesia-{'3' * 16}.tmp", (old, old), follow_symlinks=False)
        kept.add(f".cryptomnesia-{'3' * 16}.tmp")
    write_atomically(tmp_path / "a", b"new")
    assert {path.name for path in tmp_path.iterdir()} == kept | {"a"}
    (tmp_path / stale).write_text("x")
    os.utime(tmp_path / stale, (old, old))
    write_atomically(tmp_path / "b", b"new")  # a folder is looked through once
    assert (tmp_path / stale).exists()
    monkeypatch.setattr(files, "_swept", set())
    write_atomically(tmp_path / "b", b"new")
    assert not (tmp_path / stale).exists()


HOSTILE = {
    "deep": b"[" * 100_000,
    "deep and closed": b'{"a":' * 60 + b"1" + b"}" * 60,
    "twice": b'{"schema": 1, "schema": 1}',
    "surrogate": b'{"prompt": "\\ud800", "schema": 1}',
    "NaN": b'{"schema": NaN}',
    "infinite": b'{"schema": 1e999}',
    "no UTF-8": b'{"a": "\xff"}',
    "long number": b"1" * 10_000,
    "empty": b"",
}


def readers(folder):
    yield lambda path: Store(path), folder / "statistics.json"
    yield lambda path: Results(path.parent), folder / "run.json"
    yield read_manifest, folder / "run.json"
    yield lambda path: read_object(path, 1 << 20, "config", "get the folder again"), folder / "config.json"
    yield lambda path: images_in(path.parent.parent), folder / "images.json"
    yield lambda path: _claim(path.parent, Recipe("a cat", "demo")), folder / "images.json"


@pytest.mark.parametrize("name", [*HOSTILE, "pipe"])
def test_json_from_outside_costs_one_line(tmp_path, name):
    folder = tmp_path / "images"
    folder.mkdir()
    (folder / "a.png").touch()
    for read, path in readers(folder):
        if name != "pipe":
            path.write_bytes(HOSTILE[name])
        elif not hasattr(os, "mkfifo"):
            pytest.skip("no pipes here")
        elif path.name == "images.json" and read.__name__ == "<lambda>":
            continue  # looked at only if it is a file
        else:
            path.unlink(missing_ok=True)
            os.mkfifo(path)
        with pytest.raises(InputError) as error:
            read(path)
        assert "\n" not in str(error.value)
        path.unlink()


def test_numbers_beyond_a_double_are_no_statistics(tmp_path):
    path = tmp_path / "statistics.json"
    path.write_text('{"schema": "cryptomnesia/membership-statistics/1", "statistics": {"a": 1' + "0" * 400 + "}}")
    with pytest.raises(InputError, match="no file of statistics"):
        Store(path)
    with pytest.raises((OverflowError, KeyError, TypeError, ValueError)):
        parse_calibration({"alpha": 10**400}, {})
