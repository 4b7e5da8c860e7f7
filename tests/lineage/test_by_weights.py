"""Descent by weights: what was made of a model is known as such, in whatever format, and nothing else is."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from cryptomnesia import load_demo
from cryptomnesia.demo import WEIGHTS
from cryptomnesia.errors import CryptomnesiaError, InputError
from cryptomnesia.lineage import descent

from ..helpers import single_files
from ..helpers.commands import caller, one_line

State = dict[str, Tensor]


@pytest.fixture(scope="module")
def base() -> State:
    return {name: value.clone() for name, value in load_demo().unet.state_dict().items()}


@pytest.fixture(scope="module")
def files(base, tmp_path_factory) -> Any:
    """files(NAME=STATE) -> the path of each, written once."""
    folder = tmp_path_factory.mktemp("weights")

    def write(name: str, state: State) -> Path:
        path = folder / f"{name}.safetensors"
        if not path.exists():
            save_file({key: value.contiguous() for key, value in state.items()}, path)
        return path

    return write


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def tuned(base: State, seed: int, size: float = 0.1) -> State:
    """Every weight moved at random, by a share of its norm."""
    generator, found = seeded(seed), {}
    for name, value in base.items():
        step = torch.randn(value.shape, generator=generator)
        found[name] = value + size * value.norm() / step.norm().clamp_min(1e-12) * step
    return found


def with_lora(base: State, seed: int, rank: int = 4, size: float = 0.1) -> State:
    """Some attention matrices with a product of that rank added."""
    generator, found = seeded(seed), dict(base)
    for name, value in base.items():
        if "attn" in name and value.ndim == 2:
            step = torch.randn(len(value), rank, generator=generator) @ torch.randn(
                rank, value.shape[1], generator=generator
            )
            found[name] = value + size * value.norm() / step.norm() * step
    return found


def mixed(first: State, second: State, share: float) -> State:
    return {name: share * first[name] + (1 - share) * second[name] for name in first}


def random_like(base: State, seed: int) -> State:
    generator = seeded(seed)
    drawn = {name: torch.randn(value.shape, generator=generator) for name, value in base.items()}
    return {name: drawn[name] * value.std(correction=0) for name, value in base.items()}


def half(state: State, dtype: torch.dtype = torch.float16) -> State:
    return {name: value.to(dtype) for name, value in state.items()}


def test_a_fine_tune_and_a_lora_are_told_apart_and_strangers_are_none(base, files):
    pool = {"base": files("base", base), "stranger": files("stranger", random_like(base, 9))}
    answers = [descent(files("child-0", tuned(base, 1)), pool), descent(files("child-1", with_lora(base, 2)), pool)]
    for answer, relation in zip(answers, ("derived", "lora"), strict=True):
        assert answer.parent == "base" and answer.candidates["base"].relation == relation
        assert answer.candidates["base"].difference == pytest.approx(0.1, abs=0.09)
        assert answer.candidates["stranger"].relation == "unrelated" and answer.merge is None
    lora = answers[1].candidates["base"]
    assert lora.changed is not None and lora.changed < 0.5 and lora.rank is not None and lora.rank <= 4 / 64 + 1e-6
    assert descent(pool["stranger"], {"base": pool["base"]}).parent is None


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_a_merged_lora_is_one_in_half_precision_too(base, files, dtype):
    name = str(dtype).removeprefix("torch.")
    child = files(f"lora-{name}", half(with_lora(base, 3), dtype))
    answer = descent(child, {"base": files(f"base-{name}", half(base, dtype))})
    assert answer.candidates["base"].relation == "lora"


def test_equal_weights_are_one_model(base, files, tmp_path):
    answer = descent(WEIGHTS, {"copy": files("base", base), "tuned": files("child-0", tuned(base, 1))})
    assert answer.parent == "copy" and answer.candidates["copy"].relation == "equal"
    assert answer.candidates["copy"].difference == 0 and "the same model" in answer.headline()


@pytest.mark.parametrize("share", [0.1, 0.3, 0.5, 0.85])
def test_a_merge_is_known_with_its_shares(base, files, share):
    first, second = tuned(base, 11, 0.2), tuned(base, 12, 0.2)
    pool = {"first": files("first", first), "second": files("second", second), "base": files("base", base)}
    answer = descent(files(f"merge-{share}", half(mixed(first, second, share))), pool)
    assert answer.merge is not None and set(answer.merge) == {"first", "second"}
    assert answer.merge["first"] == pytest.approx(share, abs=0.01) and answer.left is not None and answer.left < 0.01
    assert "a merge: " in answer.headline() and answer.parent is None


def test_children_of_one_base_are_no_merge(base, files):
    pool = {"first": files("first", tuned(base, 11, 0.2)), "base": files("base", base)}
    answer = descent(files("child-0", tuned(base, 1)), pool)
    assert answer.merge is None and answer.parent == "base"


def test_formats_differ_and_weights_do_not(base, files, tmp_path):
    """The original layout has other names; its weights are told by their values, and also where three are one."""
    pipe = load_demo()
    pipe.unet.load_state_dict(with_lora(base, 2))
    single = single_files.write(pipe, tmp_path / "child.safetensors")
    pool = {"base": WEIGHTS, "stranger": files("stranger", random_like(base, 9))}
    answer = descent(single, pool)
    assert answer.candidates["base"].relation == "lora" and answer.candidates["base"].paired > 0.97
    assert answer.candidates["stranger"].relation == "other architecture" and answer.parent == "base"
    fused: State = {}
    for name, value in base.items():
        if "attn1.to_k" in name or "attn1.to_v" in name:
            continue
        parts = [base[name.replace("to_q", f"to_{part}")] for part in "qkv"] if "attn1.to_q" in name else [value]
        fused[f"blocks.{name.replace('to_q', 'qkv')}"] = torch.cat(parts)
    for pair in ((files("fused", fused), files("base", base)), (files("base", base), files("fused", fused))):
        one = descent(pair[0], {"other": pair[1]}).candidates["other"]
        assert one.relation == "equal" and one.paired == 1


def test_another_architecture_is_none(base, files):
    other = {f"x.{i}": torch.randn(30, 40, generator=seeded(i)) for i in range(20)}
    answer = descent(files("other", other), {"base": files("base", base)})
    assert answer.parent is None and answer.candidates["base"].relation == "other architecture"


def test_a_network_trained_on_for_long_is_no_sure_child(base, files):
    answer = descent(WEIGHTS, {"early": WEIGHTS / "early"})
    assert answer.candidates["early"].relation == "far" and answer.parent is None


def test_what_cannot_be_compared_says_why(base, files, tmp_path):
    good = files("base", base)
    broken = dict(base)
    name = "mid_block.resnets.0.conv1.weight"
    broken[name] = base[name].clone()
    broken[name][0, 0, 0, 0] = torch.nan
    (tmp_path / "cut.safetensors").write_bytes(good.read_bytes()[:1000])
    (tmp_path / "model.ckpt").write_bytes(b"\x80\x02")
    (tmp_path / "empty").mkdir()
    save_file(
        {"a.lora_down.weight": torch.ones(4, 8), "a.lora_up.weight": torch.ones(8, 4)}, tmp_path / "l.safetensors"
    )
    save_file({"scalar": torch.tensor(1.0), "line": torch.ones(5)}, tmp_path / "few.safetensors")
    for bad, words in (
        (files("nan", broken), "NaN or infinity in mid_block"),
        (tmp_path / "cut.safetensors", "no complete safetensors file"),
        (tmp_path / "model.ckpt", "is a pickle"),
        (tmp_path / "empty", "lacks its weights"),
        (tmp_path / "nothing.safetensors", "there is no weights file"),
        (tmp_path / "l.safetensors", "is a LoRA and no whole model"),
        (tmp_path / "few.safetensors", "no weights of a network"),
    ):
        for target, pool in ((bad, {"base": good}), (good, {"bad": bad})):
            with pytest.raises(CryptomnesiaError, match=words) as caught:
                descent(target, pool)
            assert "\n" not in str(caught.value)
    with pytest.raises(InputError, match="nothing to compare"):
        descent(good, {})


def test_the_command(base, files, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    command = caller(capsys)
    child = files("child-1", with_lora(base, 2))
    code, out, _ = command("lineage", "--weights", "-t", child, "--pool", "mine=demo", "-o", tmp_path / "out")
    assert code == 0 and "mine: differs by a LoRA" in out
    kept = json.loads((tmp_path / "out" / "lineage-weights.json").read_text())
    assert kept["schema"] == "cryptomnesia/lineage-weights/1" and kept["parent"] == "mine"
    code, out, _ = command("lineage", "--weights", "-t", "demo", "--pool", f"a={child}", "--json")
    assert code == 0 and json.loads(out)["candidates"]["a"]["relation"] == "lora"
    assert "the pool is empty" in one_line(command("lineage", "--weights", "-t", child))
    assert "--out FOLDER" in one_line(command("lineage", "-t", child, "--pool", "a=demo"))
    assert set(load_file(child)) == set(base)
