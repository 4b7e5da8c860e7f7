"""Many prompts at once: Memorization Table and Compare LoRAs."""

import csv
import io
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from .graphs import BENIGN, MEMORIZED, complaint, demo, keep, links, ours, part, ran, report_of, with_check
from .harness import Comfy
from .results import node
from .test_calibrations import lora

NAMES = ("table", "text", "csv", "prompts", "reports")
INJECTION = "=HYPERLINK(1)"


def tabled(comfy: Comfy, **changes: Any) -> dict[str, Any]:
    prompt = demo()
    own = {name: link for name, link in links(prompt).items() if name != "positive"}
    return prompt | {"table": ours(comfy, "MemorizationTable", **own | changes), "end": keep("table", 1)}


def values(comfy: Comfy, prompt: dict[str, Any]) -> dict[str, Any]:
    return dict(zip(NAMES, ran(comfy, prompt).outputs["table"], strict=True))


def read(output: Path, name: str) -> list[dict[str, str]]:
    content = (output / name).read_bytes()
    assert content.startswith(b"\xef\xbb\xbf")
    return list(csv.DictReader(io.StringIO(content.decode("utf-8-sig"))))


def test_lines_a_list_and_a_file_give_one_table(comfy: Comfy, output: Path):
    file = Path(comfy.folder_paths.get_input_directory()) / "many.csv"
    file.write_text(f"prompt,other\n{BENIGN},1\n{INJECTION},2\n", "utf-8")
    found = values(comfy, tabled(comfy, prompts=f"{MEMORIZED}\n\n# a remark\nold clock", file="many.csv"))
    assert found["prompts"] == [MEMORIZED, "old clock", BENIGN, INJECTION]
    assert found["text"].startswith("4 prompts: 1 memorized, 3 clear\n")
    assert found["text"].splitlines()[2].endswith(MEMORIZED)  # the most suspicious first
    single = report_of(comfy, with_check(comfy, demo()))
    assert found["reports"][0]["score"] == pytest.approx(single["score"], abs=1e-3)
    assert found["reports"][0]["verdict"] == "memorized" and found["reports"][0]["prompt"] == MEMORIZED
    rows = read(output, found["csv"])
    assert [row["prompt"] for row in rows] == [MEMORIZED, "old clock", BENIGN, f"'{INJECTION}"]
    assert float(rows[0]["p_value"]) == pytest.approx(single["p_value"]) and rows[1]["verdict"] == "clear"
    height, width = found["table"].shape[1:3]
    assert width == 900 and 150 < height < 250 and float(found["table"].std()) > 0.05
    file.unlink()


def test_a_list_of_texts_is_one_table_and_not_several(comfy: Comfy, output: Path):
    """As of a wildcard node."""
    prompt = tabled(comfy, prompts=["list", 3], filename_prefix="")
    inputs = prompt["table"]["inputs"] | {"prompts": f"{MEMORIZED}\na\nb"}
    found = values(comfy, prompt | {"list": node("CryptomnesiaMemorizationTable", **inputs)})
    assert found["prompts"] == [MEMORIZED, "a", "b"] and len(found["reports"]) == 3
    assert found["csv"] == "" and not list(output.rglob("*.csv"))


def test_clear_ones_pass_a_gate_and_flagged_ones_do_not(comfy: Comfy):
    prompt = tabled(comfy, prompts=f"{BENIGN}\n{MEMORIZED}", filename_prefix="")
    prompt["gate"] = node(
        "CryptomnesiaMemorizationGate", value=["table", 3], report=["table", 4], policy="block if memorized"
    )
    result = comfy.run(prompt | {"kept": keep("gate")})
    assert result.ok
    passed = result.outputs["gate"][0]
    assert passed[0] == BENIGN and type(passed[1]).__name__ == "ExecutionBlocker"
    assert [entry["state"] for entry in result.ui["gate"]["cryptomnesia"]] == ["passed", "stopped"]


def test_without_a_calibration_there_are_scores(comfy: Comfy):
    found = values(comfy, tabled(comfy, prompts=BENIGN, calibration="none", filename_prefix=""))
    assert found["reports"]["verdict"] == "uncalibrated" and "no calibration was chosen" in found["text"]


def test_one_prompt_that_cannot_be_read_stops_no_other(comfy: Comfy):
    deep = "(" * 3000 + "a" + ")" * 3000
    found = values(comfy, tabled(comfy, prompts=f"{deep}\n{MEMORIZED}", filename_prefix=""))
    assert found["reports"][0] is None and found["reports"][1]["verdict"] == "memorized"
    assert "1 not checked" in found["text"]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"prompts": " \n"}, "there is no prompt"),
        ({"file": "../../secret.txt"}, "is not inside the input folder"),
        ({"file": "/etc/passwd"}, "is not inside the input folder"),
        ({"file": "gone.txt"}, "gone.txt"),
        ({"prompts": "a", "filename_prefix": "../out"}, "leads out of the output folder"),
    ],
)
def test_what_cannot_be_read_or_written_is_told(comfy: Comfy, changes: dict[str, str], words: str):
    assert words in complaint(comfy, tabled(comfy, **changes))


def compared(comfy: Comfy, **changes: Any) -> dict[str, Any]:
    lora(comfy, 1.0)  # writes the file
    prompt = demo()
    own = {name: link for name, link in links(prompt).items() if name != "positive"}
    own |= {"prompts": f"{MEMORIZED}\n{BENIGN}", "lora_1": "style.safetensors", "strengths": "0.5, 1", "draws": 4}
    return prompt | {"table": ours(comfy, "CompareLoras", **own | changes), "end": keep("table", 1)}


def test_loras_are_compared_on_the_same_noise(comfy: Comfy, output: Path):
    table, text, name = ran(comfy, compared(comfy)).outputs["table"]
    rows = read(output, name)
    assert list(rows[0]) == ["prompt", "model alone", "style 0.5", "style 1"]
    for strength, column in ((0.0, "model alone"), (0.5, "style 0.5"), (1.0, "style 1")):
        prompt = demo() | {"lora": lora(comfy, strength)}
        report = report_of(comfy, with_check(comfy, prompt, model=["lora", 0]))
        assert float(rows[0][column]) == pytest.approx(report["iso"], rel=1e-3)
    assert text.splitlines()[1].startswith("model alone: ") and "times the model alone" in text
    assert table.shape[2] == 330 + 3 * 118 + 48 and float(table.std()) > 0.05


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"lora_1": "none"}, "no LoRA was chosen"),
        ({"strengths": "much"}, "strengths are one to six numbers"),
        ({"strengths": "1,2,3,4,5,6,7"}, "strengths are one to six numbers"),
        ({"strengths": "nan"}, "strengths are one to six numbers"),
    ],
)
def test_what_cannot_be_compared_is_told(comfy: Comfy, changes: dict[str, str], words: str):
    assert words in complaint(comfy, compared(comfy, **changes))


def test_pictures_hold_many_rows_and_odd_texts(comfy: Comfy):
    tables = part(comfy, "nodes.tables")
    rows = [
        {"prompt": f"{number} \u202e\x1b[31m" + "w" * 900, "score": number, "p_value": 0.5, "verdict": "clear"}
        for number in range(200)
    ]
    assert tables.picture(rows).size == (900, 56 + 26 * 61 + 24)
    image = tables.heat(["a", "b"], ["x"], np.array([[1.0, math.nan]]), [["1", "-"]])
    assert image.getpixel((24 + 330 + 4, 60)) != image.getpixel((24 + 330 + 118 + 4, 60))
