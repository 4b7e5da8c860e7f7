"""What else was asked about an image: written strictly, told in plain words, never more than was found."""

import math
from dataclasses import replace

import pytest
import torch

from cryptomnesia.attribution import NONE, Signatures
from cryptomnesia.errors import InputError, SidecarError
from cryptomnesia.membership import CONFOUNDED, NO_EVIDENCE
from cryptomnesia.sidecar import load_signer, new_chain, read_statement, sidecar_path, verify, write_sidecar

from ..helpers.provenance import CHILD, COPY, GENERATION, PROMPT, TRAINED, WHO, document, edit, saved

SIGNATURE = Signatures(
    "ada",
    "a" * 64,
    "demo",
    "torch.float32",
    (4, 16, 16),
    "1step",
    2**64 - 1,
    False,
    torch.ones(3, 192) / 8,
    torch.ones(1),
)


def findings(tmp_path, *given, **options):
    return document(saved(tmp_path, findings=given, **options))["predicate"]["findings"]


def words_of(tmp_path, *given):
    return " ".join(verify(saved(tmp_path, findings=given)).lines)


@pytest.mark.parametrize("given", [WHO, WHO.to_dict()])
def test_an_attribution_is_kept_without_the_users_folders(tmp_path, given):
    (found,) = findings(tmp_path, given)
    expected = {"kind": "attribution", **{name: getattr(WHO, name) for name in found if name != "kind"}}
    assert found == expected | {"evidence": list(WHO.evidence)}
    assert "private" not in sidecar_path(tmp_path / "image.png").read_text()
    assert read_statement(sidecar_path(tmp_path / "image.png"))["predicate"]["findings"] == [found]


def test_a_signature_is_told_by_its_digest(tmp_path):
    (found,) = findings(tmp_path, SIGNATURE)
    assert found["seed"] == str(2**64 - 1) and found["images"] == 3 and found["plan"] == "1step"
    changed = replace(SIGNATURE, values=SIGNATURE.values + 1e-6)
    assert len(found["sha256"]) == 64 and findings(tmp_path, changed)[0]["sha256"] != found["sha256"]
    assert "the spectral signature of ada was measured on 3 images" in words_of(tmp_path, SIGNATURE)


def test_membership_is_kept_without_the_images(tmp_path):
    (found,) = findings(tmp_path, TRAINED)
    assert found["suspects"] == 12 and found["references"] == 11
    assert found["p_value"] == 0.002 and found["interval"] == [0.7, 0.97] and found["settings"]["seed"] == str(2**63)
    assert found["comparability"]["differs_most"] == "sharpness"
    assert "private" not in sidecar_path(tmp_path / "image.png").read_text()
    likely = words_of(tmp_path, TRAINED)
    assert "likely trained on some of a set of 12 images; p = 0.002 against 11 references" in likely
    assert "at most 5 % of sets without training images are called so" in likely
    assert "no evidence that the model was trained on" in words_of(tmp_path, replace(TRAINED, verdict=NO_EVIDENCE))
    confounded = words_of(tmp_path, replace(TRAINED, verdict=CONFOUNDED))
    assert "no verdict on training on a set of 12 images" in confounded and "likely trained" not in confounded


def test_a_comparison_is_kept_without_the_users_folders(tmp_path):
    (found,) = findings(tmp_path, COPY)
    assert found == {name: value for name, value in COPY.items() if name not in ("name", "matches")}
    assert "private" not in sidecar_path(tmp_path / "image.png").read_text()
    part = "a part is the same as in beacon.png, flipped, 31 % of the image, of 250 references; p = 0.004"
    assert part in words_of(tmp_path, COPY)
    none = COPY | {"decision": "none", "share": None, "p_value": 0.4}
    assert "not found to be a copy of one of 250 references; p = 0.4" in words_of(tmp_path, none)
    silent = none | {"reason": "with one reference no p-value can be stated", "references": 1, "p_value": None}
    assert "no verdict on whether the image is a copy of one of 1 reference." in words_of(tmp_path, silent)


def test_lineage_is_kept_without_prompts_and_folders(tmp_path):
    (found,) = findings(tmp_path, CHILD, prompts="none")
    assert found == {name: value for name, value in CHILD.items() if name not in ("parent", "encoder", "prompts")}
    text = sidecar_path(tmp_path / "image.png").read_text()
    assert "private" not in text and PROMPT not in text
    likely = "of the models ada, cy, bo, the parent of another one is likely ada (97 % of bootstrap draws, 1 prompt)"
    assert likely in words_of(tmp_path, CHILD)
    assert "is perhaps none of these (60 %" in words_of(tmp_path, CHILD | {"decision": NONE, "confidence": 0.6})
    assert "no majority on which of the models ada" in words_of(tmp_path, CHILD | {"decision": "no majority"})
    untested = words_of(tmp_path, CHILD | {"decision": "not tested", "confidence": None, "null_threshold": None})
    assert "not tested which of the models ada" in untested and "is likely" not in untested


@pytest.mark.parametrize(
    ("given", "change"),
    [
        (TRAINED.to_dict(), {"verdict": "member"}),
        (TRAINED.to_dict(), {"p_value": None}),
        (TRAINED.to_dict(), {"interval": [0.1]}),
        (TRAINED.to_dict(), {"suspects": 12}),
        (TRAINED.to_dict(), {"auc": math.nan}),
        (COPY, {"decision": "copy"}),
        (COPY, {"share": 31}),
        (CHILD, {"distances": {"ada": -1}}),
        (CHILD, {"votes": {}}),
        (CHILD, {"confidence": 1.5}),
    ],
)
def test_evidence_that_no_reader_takes_is_not_written(tmp_path, given, change):
    with pytest.raises(SidecarError, match=r"does not fit a sidecar at \$\.predicate\.findings"):
        saved(tmp_path, findings=[given | change])


def test_likelihoods_are_told_as_such(tmp_path):
    assert "of the models ada, bo, likely made by ada (83 %; p = 0.4 that" in words_of(tmp_path, WHO)
    unsure = replace(WHO, probabilities={"ada": 0.4, "bo": 0.35, NONE: 0.25})
    assert "not clear, perhaps made by ada (40 %" in words_of(tmp_path, unsure)
    nobody = replace(WHO, decision=NONE, probabilities={"ada": 0.1, "bo": 0.1, NONE: 0.8}, p_value=0.01)
    assert "likely made by none of these (80 %" in words_of(tmp_path, nobody)
    silent = replace(WHO, decision="uncalibrated", probabilities={}, p_value=None, alpha=None, fingerprints={})
    assert "no verdict on which of the models ada, bo made the image" in words_of(tmp_path, silent)


def test_each_kind_says_once_what_it_does_not_mean(tmp_path):
    said = document(saved(tmp_path, findings=[WHO, SIGNATURE, WHO, TRAINED, CHILD]))["predicate"]
    kinds = ["attribution", "signature", "attribution", "membership", "lineage"]
    assert [one["kind"] for one in said["findings"]] == kinds
    text = " ".join(said["limitations"])
    assert text.count("a likelihood among the models that were named") == 1
    assert text.count("not who made the image") == 1
    assert text.count("nothing about any single image") == text.count("no proof of what was trained on what") == 1


def test_without_findings_there_is_no_word_of_them(tmp_path):
    image = saved(tmp_path)
    assert "findings" not in document(image)["predicate"] and "also says" not in " ".join(verify(image).lines)
    assert verify(image).claims["findings"] == []
    assert verify(saved(tmp_path, findings=[WHO])).claims["findings"][0]["decision"] == "ada"


@pytest.mark.parametrize("given", [{"kind": "image membership"}, {}, None, 3, "attribution"])
def test_other_kinds_are_refused(tmp_path, given):
    image = saved(tmp_path)
    before = sidecar_path(image).read_bytes()
    with pytest.raises(InputError, match="a finding is plain data of the kind attribution or signature") as error:
        write_sidecar(image, None, GENERATION, findings=[given])
    assert "\n" not in str(error.value) and sidecar_path(image).read_bytes() == before


@pytest.mark.parametrize(
    "change",
    [
        {"probabilities": {"ada": 1.5}},
        {"p_value": -1},
        {"decision": None},
        {"distances": {}},
        {"distances": {"ada": math.nan}},
        {"evidence": [3]},
    ],
)
def test_what_no_reader_takes_is_not_written(tmp_path, change):
    with pytest.raises(SidecarError, match=r"does not fit a sidecar at \$\.predicate\.findings"):
        saved(tmp_path, findings=[WHO.to_dict() | change])


@pytest.mark.parametrize(
    "change",
    [
        lambda found: found.update(more=1),
        lambda found: found.update(kind="signature"),
        lambda found: found.pop("alpha"),
    ],
)
def test_edited_findings_are_malformed(tmp_path, change):
    image = saved(tmp_path, findings=[WHO])
    edit(image, lambda document: change(document["predicate"]["findings"][0]))
    found = verify(image)
    assert found.sidecar == "malformed" and not found.matches
    edit(image, lambda document: document["predicate"].update(findings=[]))
    assert verify(image).sidecar == "malformed"


def test_names_cannot_play_tricks_on_a_terminal(tmp_path):
    name = "a\x1b[31m\nb" + "c" * 300
    text = words_of(tmp_path, replace(WHO, decision=name, probabilities={name: 0.9, NONE: 0.1}, distances={name: 1.0}))
    assert "\x1b" not in text and "\n" not in text and "c" * 100 not in text
    text = words_of(tmp_path, CHILD | {"decision": name, "distances": {name: 0.1}})
    assert "is likely a" in text and "\x1b" not in text and "\n" not in text and "c" * 100 not in text


def test_prompts_stay_hidden_and_signatures_hold(tmp_path):
    pytest.importorskip("c2pa")
    chain = new_chain(tmp_path / "mine", name="someone")
    signer = load_signer(chain.certificate, chain.key)
    image = saved(tmp_path, findings=[WHO, SIGNATURE], prompts="hash", c2pa=signer)
    found = verify(image, trust=[chain.root])
    assert found.vouched and PROMPT not in sidecar_path(image).read_text()
    edit(image, lambda document: document["predicate"]["findings"][0].update(decision="bo"))
    assert verify(image).agreement == "differs"
