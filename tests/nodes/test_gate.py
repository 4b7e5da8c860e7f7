"""Memorization Gate: what passes, what does not, and what else of the workflow runs."""

import copy
from pathlib import Path
from typing import Any

import pytest
import torch

from . import models
from .graphs import BENIGN, MEMORIZED, demo, given, keep, ran, sampler, with_check
from .harness import Comfy
from .results import Result, node

BLOCK, STRICT, PASS = "block if memorized", "block unless clear", "pass with a warning"
BLOCKED = {BLOCK: {"memorized"}, STRICT: {"memorized", "uncalibrated", "not applicable"}, PASS: set()}
VERDICTS = ("memorized", "clear", "uncalibrated", "not applicable")


def report(verdict: str) -> dict[str, Any]:
    known = verdict in ("memorized", "clear")
    return {
        "verdict": verdict,
        "score": None if verdict == "not applicable" else 1.25,
        "p_value": 0.002 if known else None,
        "alpha": 0.01 if known else None,
        "draws": 4,
        "reason": None if known else "a reason",
        "note": None,
        "mitigation": None,
    }


def gate(value: Any, policy: str, source: str = "check") -> dict[str, Any]:
    return node("CryptomnesiaMemorizationGate", value=value, report=[source, 0], policy=policy)


def blocked(result: Result) -> list[str]:
    """What gates say of branches that they stopped; for ComfyUI such a run is a success."""
    assert not result.named("execution_error") and result.messages[-1][0] == "execution_success"
    texts = [data["text"] for data in result.named("progress_text")]
    assert all(list(result.ui["gate"]["text"]) == [text] for text in texts[-1:] if "gate" in result.ui)
    return [text for text in texts if text.startswith("Cryptomnesia stopped this branch")]


def made(result: Result) -> set[str]:
    """Nodes that gave something; ComfyUI hands on a blocker where they did not run."""
    return {name for name, outputs in result.outputs.items() if type(outputs[0]).__name__ != "ExecutionBlocker"}


@pytest.mark.parametrize("verdict", VERDICTS)
@pytest.mark.parametrize("policy", BLOCKED)
def test_policies(comfy: Comfy, policy: str, verdict: str):
    prompt = {
        "check": given(comfy, report(verdict)),
        "value": given(comfy, 7),
        "gate": gate(["value", 0], policy),
        "behind": keep("gate"),
        "said": keep("gate", 1),
    }
    result = comfy.run(prompt)
    words = "LIKELY MEMORIZED" if verdict == "memorized" else verdict
    assert words in result.outputs["said"][0]  # comes, stopped or not
    if verdict in BLOCKED[policy]:
        (line,) = blocked(result)
        assert policy in line and words in line
        assert "behind" not in made(result)
    else:
        assert not blocked(result) and result.outputs["behind"] == [7]


def image(text: str, policy: str = BLOCK) -> dict[str, Any]:
    """A whole workflow with a gate on the conditioning, and a branch of its own beside it."""
    return demo(text) | {
        "gate": gate(["text", 0], policy),
        "sampler": sampler(positive=["gate", 0]),
        "decode": node("VAEDecode", samples=["sampler", 0], vae=["load", 2]),
        "save": node("SaveImage", images=["decode", 0], filename_prefix="gated"),
        "other": sampler(positive=["empty", 0]),
        "kept other": keep("other"),
    }


def test_nothing_behind_a_closed_gate_runs_and_all_else_does(comfy: Comfy, output: Path):
    comfy.fresh()
    result = comfy.run(with_check(comfy, image(MEMORIZED)))
    (line,) = blocked(result)
    assert "LIKELY MEMORIZED" in line and {data["node"] for data in result.named("progress_text")} == {"gate"}
    assert not {"sampler", "decode", "save"} & made(result)
    assert result.ui.get("save") is None and not list(output.iterdir())
    assert result.outputs["kept other"][0]["samples"].std() > 0


def test_an_open_gate_changes_nothing(comfy: Comfy):
    direct = image(BENIGN)
    direct["sampler"] = sampler()
    found, expected = (ran(comfy, with_check(comfy, prompt)) for prompt in (image(BENIGN), direct))
    assert not blocked(found) and found.ui["save"]["images"]
    assert torch.equal(found.outputs["sampler"][0]["samples"], expected.outputs["sampler"][0]["samples"])


def test_it_opens_when_the_prompt_changes(comfy: Comfy):
    comfy.fresh()
    assert blocked(comfy.run(with_check(comfy, image(MEMORIZED))))
    assert not blocked(ran(comfy, with_check(comfy, image(BENIGN))))
    assert blocked(comfy.run(with_check(comfy, image(MEMORIZED))))
    assert not blocked(ran(comfy, with_check(comfy, image(MEMORIZED, PASS))))


VALUES = {
    "conditioning": models.conditioning("eps"),
    "latent": {"samples": torch.ones(1, 4, 8, 8)},
    "image": torch.rand(2, 8, 8, 3, generator=torch.Generator().manual_seed(0)),
    "text": "some words",
    "number": 0,
    "nothing": None,
    "list": [1, [2]],
}


@pytest.mark.parametrize("name", VALUES)
def test_any_type_passes_as_it_is(comfy: Comfy, name: str):
    value = VALUES[name]
    before = copy.deepcopy(value)
    prompt = {
        "check": given(comfy, report("clear")),
        "value": given(comfy, value),
        "gate": gate(["value", 0], STRICT),
        "behind": keep("gate"),
    }
    assert ran(comfy, prompt).outputs["behind"][0] is value
    assert str(before) == str(value)


def test_a_gate_on_an_image_or_a_latent_takes_its_place(comfy: Comfy):
    prompt = with_check(comfy, image(BENIGN))
    prompt["sampler"] = sampler()
    prompt["late"] = gate(["sampler", 0], BLOCK)
    prompt["decode"]["inputs"]["samples"] = ["late", 0]
    prompt["last"] = gate(["decode", 0], STRICT)
    prompt["save"]["inputs"]["images"] = ["last", 0]
    assert ran(comfy, prompt).ui["save"]["images"]


@pytest.mark.parametrize("policy", BLOCKED)
def test_without_a_report_only_the_strict_gate_stops(comfy: Comfy, policy: str):
    """As where the node that makes it is bypassed."""
    prompt = {"value": given(comfy, 7), "behind": keep("gate")}
    prompt["gate"] = node("CryptomnesiaMemorizationGate", value=["value", 0], policy=policy)
    result = comfy.run(prompt)
    assert bool(blocked(result)) == (policy == STRICT) and "nothing was checked" in result.outputs["gate"][1]
    assert ("behind" in made(result)) == (policy != STRICT)


def test_a_stopped_branch_is_told_in_the_log(comfy: Comfy, caplog: pytest.LogCaptureFixture):
    comfy.fresh()
    comfy.run(with_check(comfy, image(MEMORIZED)))
    assert [one for one in caplog.messages if one.startswith("Cryptomnesia stopped this branch")]


def test_only_reports_are_taken(comfy: Comfy):
    prompt = with_check(comfy, image(BENIGN)) | {"gate": gate(["text", 0], BLOCK, source="empty")}
    result = comfy.run(prompt)
    (error,) = result.invalid["gate"]["errors"]
    assert "CRYPTOMNESIA_REPORT" in error["details"] and "save" not in made(result)
