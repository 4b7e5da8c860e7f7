"""A benchmark that is stopped goes on where it was, and is never mixed with another."""

import json

import pytest
import torch

from cryptomnesia import CallableDenoiser
from cryptomnesia.benchmark.evaluation import evaluate
from cryptomnesia.benchmark.lists import Lists
from cryptomnesia.benchmark.methods import METHODS
from cryptomnesia.benchmark.reproduction import Reproduction
from cryptomnesia.benchmark.run import CHUNK, FILE, open_run
from cryptomnesia.calibration import calibrate
from cryptomnesia.errors import InputError

TEXTS = [f"prompt {i}" for i in range(2 * CHUNK + 5)]
DIGESTS = {"the negatives n": "0" * 64}


def encode(texts):
    return torch.stack([torch.tensor([[float(sum(map(ord, text)) % 97)]]) / 97 for text in texts])


@pytest.fixture
def denoiser():
    return CallableDenoiser(
        lambda x, t, text: 0.9 * x + text.mean((1, 2)).view(-1, 1, 1, 1),
        torch.linspace(0.999, 0.005, 1000),
        empty=torch.zeros(1, 1, 1),
        latent_shape=(1, 4, 4),
        encode=encode,
    )


def steps(run, denoiser):
    return run.steps(denoiser, draws=2, shape=(1, 4, 4))


def test_a_stopped_run_goes_on_with_the_same_numbers(denoiser, tmp_path):
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
    whole = open_run(tmp_path / "one", TEXTS, 3, DIGESTS)
    assert list(steps(whole, denoiser)) == [CHUNK, 2 * CHUNK, len(TEXTS)]
    first = open_run(tmp_path / "two", TEXTS, 3, DIGESTS)
    assert next(steps(first, denoiser)) == CHUNK
    again = open_run(tmp_path / "two", TEXTS, 3, DIGESTS)
    assert again.done == CHUNK and again.rows == first.rows
    assert list(steps(again, denoiser)) == [2 * CHUNK, len(TEXTS)]
    assert again.rows == whole.rows and again.forward_rows == whole.forward_rows
    assert list(steps(open_run(tmp_path / "two", TEXTS, 3, DIGESTS), denoiser)) == []


def test_scores_come_in_the_order_of_the_texts(denoiser, tmp_path):
    run = open_run(tmp_path, TEXTS, 3, DIGESTS)
    list(steps(run, denoiser))
    assert run.order != list(range(len(TEXTS))) and sorted(run.order) == list(range(len(TEXTS)))
    combination = calibrate(denoiser, encode([f"benign {i}" for i in range(100)]), draws=2).combination
    # a prompt moves each of 16 pixels by as much, whatever the noise
    assert torch.allclose(run.scores(combination)["iso"], 4 * encode(TEXTS).flatten().double(), atol=1e-5)


def test_another_run_is_refused_in_one_line(tmp_path):
    run = open_run(tmp_path, TEXTS, 3, DIGESTS)
    run.bind({"model": "a" * 64, "draws": 4})
    with pytest.raises(
        InputError, match=r"holds a benchmark with other settings \(seed: 3 then, 4 now\): give the same"
    ):
        open_run(tmp_path, TEXTS, 4, DIGESTS)
    with pytest.raises(InputError, match="the negatives n changed"):
        open_run(tmp_path, TEXTS, 3, {"the negatives n": "1" * 64})
    with pytest.raises(InputError, match="the model changed; draws: 4 then, 2 now"):
        open_run(tmp_path, TEXTS, 3, DIGESTS).bind({"model": "b" * 64, "draws": 2})


@pytest.mark.parametrize("change", [{"rows": [[1.0]]}, {"bound": 3}, {"parts": []}, {"schema": "else"}])
def test_a_damaged_run_is_refused_in_one_line(tmp_path, change):
    open_run(tmp_path, TEXTS, 3, DIGESTS).bind({"draws": 4})
    document = json.loads((tmp_path / FILE).read_text()) | change
    (tmp_path / FILE).write_text(json.dumps(document))
    with pytest.raises(InputError, match=FILE):
        open_run(tmp_path, TEXTS, 3, DIGESTS)
    (tmp_path / FILE).write_text("{")
    with pytest.raises(InputError, match="give another --out"):
        open_run(tmp_path, TEXTS, 3, DIGESTS)


def test_groups_and_pairs_are_those_of_the_lists(denoiser):
    calibration = calibrate(denoiser, encode([f"benign {i}" for i in range(100)]), draws=2, alpha=0.05)
    lists = Lists({"VM": ["a", "b"], "TM": ["c"]}, {"n": ["d", "e"], "m": ["e", "f"]})
    top = max(calibration.scores) + 1
    default = torch.tensor([top, 0.0, top, 0.0, top, 0.0], dtype=torch.float64)  # of a, b, c, d, e, f
    scores = {method.key: default if method.key == "default" else -default for method in METHODS}
    made = {text: Reproduction(between, 0.0, None) for text, between in (("a", 1.0), ("b", 0.0), ("c", 0.0))}
    found = evaluate(lists, scores, calibration, made, rounds=20)
    assert [(group.name, group.memorized, group.flagged, group.prompts) for group in found.groups] == [
        ("VM", True, 1, 2),
        ("TM", True, 1, 1),
        ("all kinds", True, 2, 3),
        ("VM, reproduced", True, 1, 1),
        ("n", False, 1, 2),
        ("m", False, 1, 2),
    ]
    assert [prompt.memorized for prompt in found.prompts] == [True, False, True, False, True, False]
    pairs = {(pair.memorized, pair.negatives): pair.methods for pair in found.pairs}
    assert len(pairs) == 8
    assert pairs["TM", "n"]["default"].auc.value == 0.75 and pairs["TM", "n"]["iso"].auc.value == 0.25
    assert pairs["VM", "m"]["default"].auc.value == 0.5 and pairs["VM", "m"]["default"].tpr.value == 0
