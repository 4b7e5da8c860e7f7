"""What a sidecar may ask of those who verify it is bounded in number, bytes and length of what is said."""

import json
import os

import pytest

from cryptomnesia.errors import InputError
from cryptomnesia.sidecar import neighbours, sidecar_path, verify, verify_evidence
from cryptomnesia.sidecar.digests import bytes_sha256
from cryptomnesia.sidecar.reading import MOST_VALUES

from ..helpers.provenance import CHILD, TRAINED, edit, saved


def naming(image, *names, sha256="0" * 64):
    edit(
        image,
        lambda d: d["predicate"].update(evidence=[{"kind": "map", "name": name, "sha256": sha256} for name in names]),
    )
    return verify(image)


@pytest.fixture
def opened(monkeypatch):
    """Names of the neighbours that were opened."""
    found, real = [], neighbours.open_regular
    monkeypatch.setattr(neighbours, "open_regular", lambda path: found.append(path.name) or real(path))
    return found


def test_a_file_that_is_named_often_is_read_once(tmp_path, opened):
    (tmp_path / "big").write_bytes(b"big")
    found = naming(saved(tmp_path), *["big"] * 50, sha256=bytes_sha256(b"big"))
    assert opened == ["big"] and found.evidence == [("big", "same")] and found.result == "nobody vouches"
    edit(tmp_path / "image.png", lambda d: d["predicate"]["evidence"][7].update(sha256="1" * 64))
    assert verify(tmp_path / "image.png").result == "changed"  # it cannot be both


def test_too_many_files_are_not_checked(tmp_path, opened):
    image = saved(tmp_path)
    found = naming(image, *(str(number) for number in range(neighbours.MOST_FILES + 1)))
    assert opened == [] and found.result == "cannot tell" and not found.matches
    assert "The evidence was not checked: the sidecar names too many files." in found.lines
    assert naming(image, *(str(number) for number in range(neighbours.MOST_FILES))).result == "nobody vouches"


def test_bytes_are_bounded_over_all_files(tmp_path, monkeypatch):
    monkeypatch.setattr(neighbours, "MOST_BYTES", 100)
    for name, size in (("a", 60), ("b", 60), ("c", 40)):
        (tmp_path / name).write_bytes(bytes(size))
    found = naming(saved(tmp_path), "a", "b", "c", sha256=bytes_sha256(bytes(60)))
    assert found.evidence == [("a", "same"), ("b", "not checked"), ("c", "changed")]
    edit(tmp_path / "image.png", lambda d: d["predicate"]["evidence"].pop())
    found = verify(tmp_path / "image.png")
    assert found.result == "cannot tell" and "the files are too large together" in " ".join(found.lines)


def test_a_sparse_file_of_any_size_is_not_read(tmp_path):
    with (tmp_path / "huge").open("wb") as file:
        file.truncate(1 << 40)
    assert naming(saved(tmp_path), "huge").evidence == [("huge", "not checked")]


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes here")
def test_neighbours_that_never_end(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "device").symlink_to("/dev/zero")
    (tmp_path / "round").symlink_to("round")
    (tmp_path / "folder").mkdir()
    found = naming(saved(tmp_path), "pipe", "device", "round", "folder", "x" * 255)
    assert [state for _, state in found.evidence] == ["unreadable"] * 4 + ["missing"]
    assert found.result == "cannot tell"
    with pytest.raises(InputError, match="no regular file"):
        verify(tmp_path / "pipe")


FLOODS = {
    "evidence": lambda p: p.update(evidence=[{"kind": "x", "name": "a", "sha256": "a" * 64}] * 90_000),
    "models": lambda p: p.update(models=[{"role": "model", "name": "m", "sha256": None}] * 90_000),
    "settings": lambda p: p.update(sampling={str(number): number for number in range(90_000)}),
    "findings": lambda p: p.update(findings=[TRAINED.to_dict()] * 5_000),
    "sentences": lambda p: p.update(limitations=[""] * 900_000),
    "names": lambda p: p.update(findings=[{**CHILD, "votes": {str(number): 1 for number in range(90_000)}}]),
    "odd values": lambda p: p.update(seed=[0] * 900_000),
    "odd keys": lambda p: p.update({f"key {number}": 1 for number in range(90_000)}),
    "lists in lists": lambda p: p.update(limitations=[[[[]]]] * 90_000),
}


@pytest.mark.parametrize("name", FLOODS)
def test_floods_of_values_are_malformed(tmp_path, name):
    image = saved(tmp_path)
    edit(image, lambda d: FLOODS[name](d["predicate"]))
    assert sidecar_path(image).stat().st_size < 10 << 20
    found = verify(image)
    assert found.sidecar == "malformed" and found.result == "cannot tell"
    assert f"more than {MOST_VALUES} values" in found.lines[0] and len(found.lines[0]) < 300


def test_numbers_of_many_digits_are_malformed(tmp_path):
    image = saved(tmp_path, findings=[TRAINED, CHILD])
    for change in (
        lambda p: p["findings"][0].update(suspects=10**4000),
        lambda p: p["findings"][1].update(votes={"ada": 10**400, "bo": 1}),
        lambda p: p["sampling"].update(steps=-(10**400)),
    ):
        before = sidecar_path(image).read_text()
        edit(image, lambda d, change=change: change(d["predicate"]))
        assert "an integer (beyond 2^53)" in verify(image).lines[0]
        sidecar_path(image).write_text(before)


def test_what_is_said_stays_short(tmp_path):
    image = saved(tmp_path)
    long = "\x1b[31m" + "x" * 10_000

    def change(document):
        predicate = document["predicate"]
        predicate.update(
            evidence=[{"kind": long, "name": f"{number}\u202e\n", "sha256": "0" * 64} for number in range(90)],
            models=[{"role": "model", "name": long, "sha256": None}] * 20,
            findings=[CHILD_KEPT | {"decision": long, "distances": {long: 1e308, "b": 1e308}}] * 30,
        )
        predicate["generator"]["host"] = long

    edit(image, change)
    found = verify(image)
    assert found.sidecar == "found" and len(found.lines) < 40
    assert all(line.isprintable() and len(line) < 1_500 for line in found.lines)
    assert "So it is with 82 more files." in found.lines and "It says 14 things more." in found.lines
    assert any("and 12 more, at" in line for line in found.lines)


CHILD_KEPT = {key: CHILD[key] for key in ("kind", "confidence", "votes", "null_threshold", "margin", "fewest")}


def test_no_more_evidence_is_named_than_is_checked(tmp_path, monkeypatch):
    (tmp_path / "a").write_bytes(bytes(9))
    monkeypatch.setattr(neighbours, "MOST_BYTES", 8)
    with pytest.raises(InputError, match="evidence is at most 100 files"):
        write(tmp_path, ["a"])
    monkeypatch.setattr(neighbours, "MOST_BYTES", 9)
    write(tmp_path, ["a", "a"])
    monkeypatch.setattr(neighbours, "MOST_FILES", 0)
    with pytest.raises(InputError, match="name fewer"):
        write(tmp_path, ["a"])


def write(folder, names):
    from cryptomnesia.sidecar import write_sidecar

    from ..helpers.provenance import GENERATION

    image = saved(folder)
    write_sidecar(image, None, GENERATION, evidence=[("map", folder / name) for name in names])


def test_looking_for_the_owner_of_a_map_is_bounded(tmp_path, monkeypatch):
    from cryptomnesia.sidecar import owner

    (tmp_path / "map.png").write_bytes(b"a map")
    image = saved(tmp_path, evidence=[("map", tmp_path / "map.png")])
    assert verify_evidence(tmp_path / "map.png").result == "nobody vouches"
    assert verify_evidence(tmp_path / "image.png") is None
    (tmp_path / "bad.cryptomnesia.json").write_text(json.dumps({"map.png": 1}))
    (tmp_path / "a.cryptomnesia.json").mkdir()
    assert verify_evidence(tmp_path / "map.png").matches
    monkeypatch.setattr(owner, "MOST_SIDECARS", 2)
    assert verify_evidence(tmp_path / "map.png") is None
    monkeypatch.setattr(owner, "MOST_SIDECARS", 3)
    monkeypatch.setattr(owner, "MOST_BYTES", 10)
    assert verify_evidence(tmp_path / "map.png") is None
    monkeypatch.undo()
    image.unlink()
    assert verify_evidence(tmp_path / "map.png") is None
