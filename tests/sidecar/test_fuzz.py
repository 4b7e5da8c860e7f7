"""Damaged and hostile files: never a crash, never intact of what is not. 1,200 cases in all."""

import hashlib
import io
import json
import struct
import zlib
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from PIL import Image

from cryptomnesia.sidecar import Verification, c2pa_path, load_signer, new_chain, sidecar_path, verify

from ..helpers.provenance import CHILD, REWRITTEN, TRAINED, WHO, document, pixels, saved

pytestmark = pytest.mark.filterwarnings("ignore")
STATES = {
    "sidecar": {"found", "missing", "malformed"},
    "file": {"same", "changed", "unknown"},
    "pixels": {"same", "changed", "unreadable", "unknown"},
    "signature": {"none", "trusted", "valid, signer unknown", "refused", "invalid"},
}


def cases(count):
    checks: Any = list(HealthCheck)
    return settings(max_examples=count, deadline=None, suppress_health_check=checks, database=None, derandomize=True)


class Stored:
    """An image with its files, which a test may overwrite."""

    def __init__(self, folder, signed: bool):
        signer = None
        if signed:
            chain = new_chain(folder / "keys")
            signer = load_signer(chain.certificate, chain.key)
        self.image = saved(folder, report=REWRITTEN, findings=[WHO, TRAINED, CHILD], c2pa=signer)
        self.media = self.image.read_bytes()
        self.envelope = sidecar_path(self.image).read_bytes()
        self.sidecar = json.dumps(document(self.image)).encode()  # without its own signature
        self.manifest = c2pa_path(self.image).read_bytes() if signed else None

    def look(self, media=None, sidecar=None, manifest=None) -> Verification:
        """Verifies with these bytes in place of the right ones."""
        self.image.write_bytes(self.media if media is None else media)
        sidecar_path(self.image).write_bytes(self.sidecar if sidecar is None else sidecar)
        if self.manifest is not None:
            c2pa_path(self.image).write_bytes(self.manifest if manifest is None else manifest)
        found = verify(self.image)
        assert all(getattr(found, name) in allowed for name, allowed in STATES.items())
        assert all(line.isprintable() and len(line) < 2_000 for line in found.lines)
        json.dumps(found.to_dict())
        return found


@pytest.fixture(scope="module")
def stored(tmp_path_factory):
    return Stored(tmp_path_factory.mktemp("unsigned"), signed=False)


@pytest.fixture(scope="module")
def signed(tmp_path_factory):
    pytest.importorskip("c2pa")
    return Stored(tmp_path_factory.mktemp("signed"), signed=True)


edits = st.lists(
    st.tuples(
        st.sampled_from(["flip", "set", "delete", "insert", "repeat", "cut", "swap"]),
        st.integers(0, 2**16),
        st.integers(0, 2**16),
        st.binary(min_size=1, max_size=8),
    ),
    min_size=1,
    max_size=4,
)


def mutated(data: bytes, steps) -> bytes:
    for kind, first, second, new in steps:
        at, to = sorted((first % (len(data) + 1), second % (len(data) + 1)))
        if kind == "flip" and at < len(data):
            data = data[:at] + bytes([data[at] ^ (1 << second % 8)]) + data[at + 1 :]
        elif kind == "set":
            data = data[:at] + new + data[at + len(new) :]
        elif kind == "delete":
            data = data[:at] + data[at + 1 + second % 16 :]
        elif kind == "insert":
            data = data[:at] + new + data[at:]
        elif kind == "repeat":
            data = data[:to] + data[at:to] + data[to:]
        elif kind == "cut":
            data = data[:at]
        elif kind == "swap":
            data = data[to:] + data[:to]
    return data


def require_truth(found: Verification, stored: Stored, media: bytes) -> None:
    """What it says of the image, against an independent look."""
    assert found.matches == (media == stored.media)
    assert (found.file == "same") == (media == stored.media)
    if found.pixels == "same":
        assert np.array_equal(np.asarray(Image.open(io.BytesIO(media))), pixels())


@cases(200)
@given(steps=edits)
def test_mutated_images(stored, steps):
    media = mutated(stored.media, steps)
    require_truth(stored.look(media=media), stored, media)


def chunks(data: bytes) -> list[tuple[bytes, bytes]]:
    found, at = [], 8
    while at < len(data):
        (size,) = struct.unpack(">I", data[at : at + 4])
        found.append((data[at + 4 : at + 8], data[at + 8 : at + 8 + size]))
        at += 12 + size
    return found


def joined(parts) -> bytes:
    """A PNG with right checksums, so that decoders read on."""
    body = [
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in parts
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(body)


@cases(200)
@example(which=2, steps=None, extra=[(b"acTL", struct.pack(">II", 2, 0), 1), (b"acTL", struct.pack(">II", 1, 0), 1)])
@example(which=2, steps=None, extra=[(b"zTXt", b"a\0\0" + zlib.compress(bytes(20)), 1)])
@example(which=2, steps=None, extra=[(b"IDAT", b"", 1), (b"IHDR", b"", 0)])
@example(which=0, steps=None, extra=[(b"zTXt", b"\x00\x01", 0)])
@given(
    which=st.integers(0, 2),
    steps=st.none() | edits,
    extra=st.lists(
        st.tuples(
            st.sampled_from([b"tEXt", b"zTXt", b"iTXt", b"tRNS", b"PLTE", b"acTL", b"fcTL", b"eXIf", b"IHDR", b"zzZz"]),
            st.binary(max_size=40),
            st.integers(0, 4),
        ),
        max_size=2,
    ),
)
def test_mutated_chunks(stored, which, steps, extra):
    parts = chunks(stored.media)
    kind, data = parts[which]
    parts[which] = (kind, data if steps is None else mutated(data, steps))
    for kind, data, at in extra:
        parts.insert(at, (kind, data))
    media = joined(parts)
    require_truth(stored.look(media=media), stored, media)


@cases(200)
@given(steps=edits)
def test_mutated_sidecar_bytes(stored, steps):
    sidecar = mutated(stored.sidecar, steps)
    found = stored.look(sidecar=sidecar)
    if found.matches:
        said = json.loads(sidecar)
        assert said["subject"][0]["digest"]["sha256"] == hashlib.sha256(stored.media).hexdigest()
        assert said["predicate"]["pixels"] == json.loads(stored.sidecar)["predicate"]["pixels"]


values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.integers(min_value=2**63)
    | st.floats()
    | st.text(max_size=20)
    | st.sampled_from(["a" * 64, "../x", "memorized", "hash", "\ud800", "2026-01-01T00:00:00Z", "\x1b[0m"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


def places(value: Any, path=()):
    """Paths of everything inside."""
    yield path
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in items:
        yield from places(item, (*path, key))


@cases(200)
@given(data=st.data())
def test_mutated_statements_under_a_signature(signed, data):
    original = json.loads(signed.sidecar)
    said = json.loads(signed.sidecar)
    path = data.draw(st.sampled_from(list(places(said))))
    said = replaced(said, path, data.draw(st.sampled_from(["set", "remove", "add"])), data.draw(values))
    found = signed.look(sidecar=json.dumps(said).encode())
    if found.matches:
        assert json.dumps(said, sort_keys=True) == json.dumps(original, sort_keys=True)


@cases(200)
@given(steps=edits)
def test_mutated_envelopes(signed, steps):
    found = signed.look(sidecar=mutated(signed.envelope, steps))
    assert found.envelope != "trusted"
    if found.envelope == "valid, signer unknown":  # what is not signed, such as the key's id, may be another
        assert found.matches and document(signed.image) == json.loads(signed.sidecar)


def replaced(document: Any, path, action: str, value: Any) -> Any:
    """The document with the value set, removed, or something added there."""
    if not path:
        return value
    parent = document
    for key in path[:-1]:
        parent = parent[key]
    here = parent[path[-1]]
    if action == "remove":
        del parent[path[-1]]
    elif action == "add" and isinstance(here, dict):
        here["more"] = value
    elif action == "add" and isinstance(here, list):
        here.append(value)
    else:
        parent[path[-1]] = value
    return document


@cases(200)
@given(steps=edits, edited=st.booleans())
def test_mutated_signatures(signed, steps, edited):
    manifest = mutated(signed.manifest, steps)
    said = json.loads(signed.sidecar)
    if edited:
        said["predicate"]["check"]["verdict"] = "memorized"
    found = signed.look(sidecar=json.dumps(said).encode(), manifest=manifest)
    assert found.signature != "trusted"
    assert not (edited and found.matches)
    if found.signature == "valid, signer unknown":
        assert found.agreement == ("differs" if edited else "same")
