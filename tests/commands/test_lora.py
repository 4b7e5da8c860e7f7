"""`cryptomnesia lora` as its users meet it."""

import json
from pathlib import Path
from typing import Any

import pytest

from cryptomnesia.demo.captions import benign
from cryptomnesia.lora import LoraCheck, PromptFinding, read_lora
from cryptomnesia.lora.results import Cell

from ..helpers.commands import Result, caller, one_line
from ..helpers.loras import ATTENTION, kohya, low_rank, write

FEW = Path(__file__).parents[2] / "benchmarks" / "zoo" / "weights" / "lora-few" / "lora.safetensors"
QUICK = ("--strength", 1, "--draws", 1)


@pytest.fixture
def lora(capsys: pytest.CaptureFixture[str]) -> Any:
    return caller(capsys, "lora")


def told(result: Result, code: int) -> dict[str, Any]:
    assert result[0] == code, result[2]
    return json.loads(result[1])


def test_what_the_lora_memorized_is_found_shown_and_kept(lora: Any, tmp_path: Path):
    out = tmp_path / "out"
    (tmp_path / "benign.txt").write_text("\n".join(benign()[:100]))
    result = lora(FEW, *QUICK, "--benign", tmp_path / "benign.txt", "--out", out, "--maps", 1, "--steps", 4, "--json")
    document = told(result, 3)
    assert "prompts at 2 strengths and 1 images with maps will cost" in result[2]
    found = {p["text"] for p in document["prompts"] if p["finding"] == "memorized"}
    trained = json.loads(read_lora(FEW).metadata["ss_tag_frequency"])["1_lora-few"]
    assert len(found) >= 4 and found <= set(trained)
    assert json.loads((out / "lora.json").read_text()) == document and document["model"] == "demo"
    page = (out / "index.html").read_text()
    assert "▲ memorized" in page and page.count("<img ") == 1 and all(text in page for text in trained)
    assert f"{len(found)} of 7 prompts are likely memorized by the LoRA" in page


def test_a_dry_run_says_what_it_would_ask_and_writes_nothing(lora: Any, tmp_path: Path):
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "1.txt").write_text("a cat")
    out = tmp_path / "out"
    code, shown, cost = lora(FEW, "--prompts", tmp_path / "images", "--dry-run", "--out", out)
    assert code == 0 and not out.exists() and "241 prompts at 3 strengths and 3 images with maps will cost" in cost
    assert shown.splitlines() == ["lora: kohya, rank 4, 1 prompts", "  a cat  (caption of images)"]
    document = told(lora(FEW, "--dry-run", "--json"), 0)
    assert document["forward_rows"] == 3 * 4 * (240 + 7 + 1) and len(document["prompts"]) == 7


def test_bad_input_is_told_in_one_line(lora: Any, tmp_path: Path):
    bare = write(tmp_path / "bare.safetensors", low_rank(kohya(ATTENTION), 96, 96))
    assert "give --prompts, a file with those that it was trained on" in one_line(lora(bare))
    assert "was made for another base" in one_line(
        lora(write(tmp_path / "xl.safetensors", low_rank(kohya(ATTENTION), 640, 640)), "--prompts", _prompts(tmp_path))
    )
    assert "there is no LoRA" in one_line(lora(tmp_path / "nowhere.safetensors"))
    assert "is a pickle" in one_line(lora(tmp_path / "x.pt"))
    assert "strengths are one to 8 numbers" in one_line(lora(FEW, "-s", 0))
    assert "benign prompts are too few" in one_line(lora(FEW, "--benign", _prompts(tmp_path)))
    assert "--alpha is a false-alarm rate" in one_line(lora(FEW, "--alpha", 2))


def _prompts(folder: Path) -> Path:
    (folder / "p.txt").write_text("a cat\na dog\n")
    return folder / "p.txt"


@pytest.mark.parametrize(
    ("finding", "code"), [("memorized", 3), ("unsure", 5), ("memorized by the base", 0), ("clear", 0)]
)
def test_exit_codes_are_those_of_all_commands(monkeypatch: Any, lora: Any, finding: Any, code: int):
    cells = (Cell(0.0, 0.0, 0.5, 0.0, 1.0, 0.5), Cell(1.0, 3.0, 0.004, 3.0, 0.004, 0.004))
    prompts = [PromptFinding("a\x1b[31m cat", "given", finding, 0.004, 0.01, 1.0, cells)] * 25
    check = LoraCheck(
        "x", "kohya", [4], [0.0, 1.0], 0.01, 0.05, prompts, [[0.0] * 240] * 2, 1, 0, "empty branch", 9, ["a", "b"]
    )
    monkeypatch.setattr("cryptomnesia.lora.check_lora", lambda *args, **options: check)
    found, shown, _ = lora(FEW)
    assert found == code and "\x1b" not in shown and "and 5 more, in --json and with --out" in shown
