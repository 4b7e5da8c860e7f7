"""What the states amount to: one verdict of five, and never vouched for where anything is against it."""

import itertools
from dataclasses import replace

import pytest

from cryptomnesia.commands.verify import LOOKS
from cryptomnesia.sidecar.result import UNCHECKED, Verification

NOTHING = Verification("a.png", "missing", "unknown", "unknown", "none", None, "unknown", [], None, [])
RECORD = {"name": "b.png", "distance": 1}
FITS = replace(NOTHING, sidecar="found", file="same", pixels="same")
EMBEDDED = replace(NOTHING, file="same", pixels="same", signature="trusted", embedded="manifest")


@pytest.mark.parametrize(
    ("verification", "result"),
    [
        (NOTHING, "cannot tell"),
        (replace(NOTHING, found=[RECORD]), "found again"),
        (FITS, "nobody vouches"),
        (replace(FITS, found=[RECORD]), "nobody vouches"),
        (replace(FITS, envelope="trusted"), "vouched for"),
        (replace(FITS, envelope="valid, signer unknown"), "nobody vouches"),
        (replace(FITS, envelope="invalid"), "changed"),
        (replace(FITS, envelope="not checked"), "cannot tell"),
        (replace(FITS, signature="trusted", agreement="same"), "vouched for"),
        (replace(FITS, signature="trusted"), "nobody vouches"),  # of another program, which says nothing of the sidecar
        (replace(FITS, signature="trusted", agreement="differs"), "changed"),
        (replace(FITS, signature="refused", agreement="same", envelope="trusted"), "nobody vouches"),
        # a time-stamp lets the signature outlive its certificate; the envelope has none
        (replace(FITS, signature="trusted", agreement="same", envelope="refused"), "vouched for"),
        (replace(FITS, signature=UNCHECKED), "cannot tell"),
        (replace(FITS, file="changed"), "changed"),
        (replace(FITS, evidence=[("map", "missing")], envelope="trusted"), "nobody vouches"),
        (replace(FITS, evidence=[("map", "changed")], envelope="trusted"), "changed"),
        (replace(FITS, evidence=[("map", "not checked")], envelope="trusted"), "cannot tell"),
        (EMBEDDED, "vouched for"),
        (replace(EMBEDDED, signature="refused"), "nobody vouches"),
        (replace(EMBEDDED, signature="invalid", found=[RECORD]), "changed"),
        (replace(EMBEDDED, sidecar="malformed"), "cannot tell"),
        (replace(NOTHING, embedded="xmp", pixels="same"), "nobody vouches"),
        (replace(NOTHING, embedded="xmp", pixels="changed", found=[RECORD]), "changed"),
        (replace(NOTHING, signature="trusted"), "cannot tell"),  # a .c2pa file alone
    ],
)
def test_each_verdict(verification, result):
    assert verification.result == result and result in LOOKS
    assert verification.headline.startswith(result) and "intact" not in verification.headline


def test_nothing_is_vouched_for_without_a_trusted_signature():
    """All combinations of states: what vouches is always someone trusted, and nothing that is known is changed."""
    states = {
        "sidecar": ("found", "missing", "malformed"),
        "file": ("same", "changed", "unknown"),
        "pixels": ("same", "changed", "unreadable", "unknown"),
        "signature": ("none", "trusted", "valid, signer unknown", "refused", "invalid", UNCHECKED),
        "agreement": ("same", "differs", None),
        "envelope": ("none", "trusted", "valid, signer unknown", "refused", "invalid", "not checked"),
        "embedded": ("none", "xmp", "manifest"),
        "evidence": ([], [("map", "changed")], [("map", "missing")]),
    }
    for values in itertools.product(*states.values()):
        one = replace(NOTHING, **dict(zip(states, values, strict=True)))
        assert one.result in LOOKS
        if one.result == "vouched for":
            assert "trusted" in (one.signature, one.envelope) and "invalid" not in (one.signature, one.envelope)
            assert "changed" not in (one.file, one.pixels) and not one.evidence and one.agreement != "differs"
