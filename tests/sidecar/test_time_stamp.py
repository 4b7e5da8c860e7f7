"""Time-stamps of RFC 3161: of an authority on loopback, and what happens where none can be had."""

import shutil

import pytest

from cryptomnesia.errors import SidecarError
from cryptomnesia.sidecar import Marking, time_stamp, verify

from ..helpers.certificates import issued
from ..helpers.provenance import saved
from ..helpers.time_authority import time_authority

pytest.importorskip("c2pa")
pytestmark = pytest.mark.skipif(shutil.which("openssl") is None, reason="the authority's answers are openssl's")


@pytest.fixture(scope="module")
def authority(tmp_path_factory):
    with time_authority(tmp_path_factory.mktemp("authority")) as running:
        yield running


@pytest.fixture(scope="module")
def chain():
    return issued()


def test_a_stamped_signature(tmp_path, authority, chain):
    authority.manner = "good"
    image = saved(tmp_path, c2pa=chain.signer, embed=Marking(time_authority=authority.address))
    root = chain.root_file(tmp_path)
    found = verify(image, trust=[root])
    assert found.result == "vouched for" and found.stamped
    assert "A time authority that you have not said you trust stamped it" in " ".join(found.lines)
    both = verify(image, trust=[root, authority.root])
    assert both.result == "vouched for" and "A time authority that you trust stamped it" in " ".join(both.lines)
    assert verify(saved(tmp_path, "b.png", c2pa=chain.signer, embed=Marking()), trust=[root]).stamped is None


@pytest.mark.parametrize(
    ("manner", "reason"),
    [
        ("other", "is no time-stamp of this signature"),
        ("garbage", "is no time-stamp of this signature"),
        ("refuses", "HTTP status 503"),
        ("moved", "HTTP status 302"),
        ("hangs", "does not answer within 0.2 seconds"),
    ],
)
def test_without_a_stamp_the_image_is_saved_and_signed(tmp_path, authority, chain, monkeypatch, manner, reason):
    real = time_stamp.relayed
    monkeypatch.setattr("cryptomnesia.sidecar.signing.relayed", lambda address: real(address, seconds=0.2))
    if manner != "hangs":
        monkeypatch.setattr("cryptomnesia.sidecar.signing.relayed", real)
    authority.manner, before = manner, len(authority.asked)
    with pytest.raises(SidecarError, match=f"was saved, .*signed without a time-stamp: .*{reason}"):
        saved(tmp_path, c2pa=chain.signer, embed=Marking(time_authority=authority.address))
    assert len(authority.asked) > before
    found = verify(tmp_path / "image.png", trust=[chain.root_file(tmp_path)])
    assert found.result == "vouched for" and found.stamped is None


def test_nobody_there(tmp_path, chain):
    import socket

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{free.getsockname()[1]}/"
    with pytest.raises(SidecarError, match="cannot be asked"):
        saved(tmp_path, c2pa=chain.signer, embed=Marking(time_authority=address))
    assert verify(tmp_path / "image.png").matches


def test_the_relay_serves_nobody_else(authority):
    import urllib.error
    import urllib.request

    authority.manner = "good"
    with time_stamp.relayed(authority.address) as relay:
        base, before = relay.address.rpartition("/")[0], len(authority.asked)
        with pytest.raises(urllib.error.HTTPError, match="502"):
            urllib.request.urlopen(f"{base}/stamp", b"x", timeout=10)
        assert not relay.asked and len(authority.asked) == before
    with pytest.raises(urllib.error.URLError):
        urllib.request.urlopen(relay.address, b"x", timeout=10)
