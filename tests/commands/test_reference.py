"""--reference: what prompts are compared with on a model that does not tell that it is distilled."""

import json

import pytest

from ..helpers.commands import caller, one_line
from ..helpers.families.stable_diffusion import turbo

BENIGN = [f"{a}{b} {b}{c}" for a in "abcde" for b in "fghij" for c in "klmn"]  # 100, all different
SMALL = ("--height", 16, "--width", 16)
MODEL = ("-m", "turbo", *SMALL)
EMPTY_PROMPT = ("--reference", "empty-prompt")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    place = tmp_path_factory.mktemp("turbo")
    turbo().save_pretrained(place / "turbo")
    (place / "benign.txt").write_text("\n".join(BENIGN))
    return place


@pytest.fixture
def command(folder, monkeypatch, capsys):
    monkeypatch.chdir(folder)
    return caller(capsys)


def test_check_compares_as_it_is_told(command):
    found = {}
    for words in ("auto", "empty-branch", "empty-prompt", "empty prompt"):
        code, out, err = command("check", *MODEL, "--reference", words, "a cat", "", "--jsonl")
        assert code == 5
        found[words] = [json.loads(line) | {"reason": None} for line in out.splitlines()]
    told, nothing = found["empty-prompt"]
    assert told["reference"] == "empty prompt" and nothing["score"] == pytest.approx(0, abs=1e-4)
    assert "compared by its empty prompt" in err
    # where nothing is told, SDXL's empty branch is zeros, from which the empty prompt differs
    assert found["auto"][1]["score"] > 1e-2 and found["auto"][0]["reference"] == "empty branch"
    assert found["auto"] == found["empty-branch"] and found["empty prompt"] == found["empty-prompt"]
    assert told["score"] != found["auto"][0]["score"]


def test_a_calibration_serves_the_reference_that_it_was_made_with(command, folder):
    _, _, err = command("check", *MODEL, *EMPTY_PROMPT, "a cat")
    assert "calibrate --model turbo --height 16 --width 16 --reference empty-prompt` once" in err
    made = command("calibrate", *MODEL, *EMPTY_PROMPT, "-p", "benign.txt", "--draws", 1, "-o", "t.calibration.json")
    assert made[0] == 0
    known = ("-c", "t.calibration.json")
    for arguments in (known, ()):
        code, out, _ = command("check", *MODEL, *EMPTY_PROMPT, *arguments, BENIGN[0], "--json")
        (report,) = json.loads(out)["results"]
        assert report["p_value"] is not None and report["reference"] == "empty prompt" and code in (0, 3)
    _, _, err = command("check", *MODEL, "a cat")
    assert "compare prompts by its reference (--reference empty-prompt)" in err
    said = one_line(command("check", *MODEL, *known, "a cat"))
    assert "another reference: empty prompt, not empty branch" in said and "--reference empty-prompt" in said
    assert command("rewrite", *MODEL, *EMPTY_PROMPT, *known, BENIGN[0])[0] in (0, 3)
    located = command("locate", *MODEL, *EMPTY_PROMPT, *known, "-p", "a cat", "-o", folder / "out", "--steps", 2)
    assert located[0] in (0, 3)


def test_an_audit_compares_as_it_is_told(command, folder):
    (folder / "log.txt").write_text("a cat\na dog\n")
    audit = ("audit", "prompts", *MODEL, "-i", "log.txt", "--gallery", 0, "-q", "--draws", 1)
    assert command(*audit, *EMPTY_PROMPT, "-o", "told")[0] == 5
    run = json.loads((folder / "told" / "run.json").read_text())
    assert run["reference"] == "empty prompt"
    said = one_line(command(*audit, "-o", "told"))
    assert "other settings" in said and "reference" in said


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("blank", "--reference is one of auto, empty-branch, guidance-scales, empty-prompt, not blank"),
        ("guidance-scales", "the guidance scale is no input of this network"),
    ],
)
@pytest.mark.parametrize("verb", [("check", "a"), ("rewrite", "a"), ("calibrate", "-p", "benign.txt")])
def test_a_reference_that_cannot_be_had_costs_one_line(command, verb, words, message):
    assert message in one_line(command(*verb, *MODEL, "--reference", words))
