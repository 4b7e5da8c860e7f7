import json
from dataclasses import replace
from typing import Any

import pytest
import torch

from cryptomnesia import CallableDenoiser, Guard
from cryptomnesia.adapters import to_denoiser
from cryptomnesia.calibration import Calibration, calibrate
from cryptomnesia.calibration_run import CalibrationRun
from cryptomnesia.condition import Condition, mean_text
from cryptomnesia.errors import CalibrationError, InputError
from cryptomnesia.expectation import RIDGE, SHARE, Expectation, learn
from cryptomnesia.mitigation.objective import Objective
from cryptomnesia.signals.memorization import memorization_score

from .helpers.guarded import BENIGN, call, flags_none
from .helpers.pipelines import build
from .helpers.toy import linear, prompts


def kinds(count, seed):
    """Words of two kinds, whose scores lie three apart, and noise of the size 1."""
    generator = torch.Generator().manual_seed(seed)
    kind = torch.arange(count) % 2
    words = torch.randn(count, 6, generator=generator) * 0.3
    words[:, 0] += 2.0 * kind - 1
    return words, 3.0 * kind + torch.randn(count, generator=generator).double()


@pytest.mark.parametrize("width", [7, 90])
def test_each_prompt_is_left_out_of_what_it_is_compared_with(width):
    generator = torch.Generator().manual_seed(width)
    words = torch.randn(60, width, generator=generator).double()
    scores = words[:, 0] * 2 + torch.randn(60, generator=generator).double()
    expectation, left_out = learn(words, scores)
    x = torch.nn.functional.normalize(words - words.mean(0))
    y = scores - scores.mean()
    for i in range(60):
        others = torch.arange(60) != i
        beta = torch.linalg.solve(
            x[others].T @ x[others] + RIDGE * torch.eye(width, dtype=x.dtype), x[others].T @ y[others]
        )
        assert left_out[i].item() == pytest.approx(SHARE * (x[i] @ beta).item(), abs=1e-9)
    whole = torch.linalg.solve(x.T @ x + RIDGE * torch.eye(width, dtype=x.dtype), x.T @ y)
    torch.testing.assert_close(expectation.of(words), SHARE * x @ whole, atol=1e-5, rtol=1e-4)


def test_a_prompt_of_a_low_kind_stands_out_sooner():
    words, scores = kinds(300, 0)
    expectation, left_out = learn(words, scores)
    low, high = torch.tensor([[-1.0] + [0.0] * 5]), torch.tensor([[1.0] + [0.0] * 5])
    assert expectation.of(high).item() - expectation.of(low).item() == pytest.approx(3 * SHARE, abs=0.15)
    assert (scores - left_out).var() < scores.var()


def test_words_that_tell_nothing_change_nothing():
    words, _ = kinds(200, 1)
    scores = torch.randn(200, generator=torch.Generator().manual_seed(5)).double()
    expectation, left_out = learn(words, scores)
    assert expectation == Expectation([], []) and not left_out.any()
    assert expectation.of(words) == 0.0 and expectation.of(None) == 0.0


def test_fresh_benign_prompts_are_flagged_as_rarely_as_promised():
    rates = []
    for seed in range(40):
        words, scores = kinds(600, 10 + seed)
        expectation, left_out = learn(words[:100], scores[:100])
        benign, fresh = scores[:100] - left_out, scores[100:] - expectation.of(words[100:])
        p_values = (1 + (benign[None] >= fresh[:, None]).sum(1)) / 101
        rates.append((p_values <= 0.05).double().mean())
    assert 0.035 < torch.stack(rates).mean() < 0.06


def test_padding_does_not_count():
    text = torch.arange(24.0).view(2, 4, 3)
    plain = mean_text(Condition(text=text))
    torch.testing.assert_close(plain, text.mean(1))
    for told in ({"tokens": torch.tensor([2, 4])}, {"mask": torch.tensor([[1, 1, 0, 0], [1, 1, 1, 1]])}):
        found = mean_text(Condition(text=text, **told))
        torch.testing.assert_close(found, torch.stack([text[0, :2].mean(0), text[1].mean(0)]))
        torch.testing.assert_close(mean_text(Condition(text=text, **told)[[1, 0]]), found[[1, 0]])
    assert mean_text(Condition(text=torch.zeros(2, 3))) is None


def by_words(denoiser=None, count=150):
    return calibrate(denoiser or linear(), prompts(count), by_words=True)


def test_file_keeps_it_and_no_prompt(tmp_path):
    made, path = by_words(), tmp_path / "toy.calibration.json"
    made.save(path)
    loaded, document = Calibration.load(path), json.loads(path.read_text())
    assert loaded == made and loaded.identity == made.identity
    assert {name: len(part) for name, part in document["expectation"].items()} == {"centre": 5, "direction": 5}
    fresh = memorization_score(linear(), prompts(20, seed=4))
    assert torch.equal(loaded.score(fresh), made.score(fresh))
    usual = calibrate(linear(), prompts(150))
    usual.save(path)
    assert "expectation" not in json.loads(path.read_text()) and Calibration.load(path).expectation is None
    torch.testing.assert_close(made.score(fresh), usual.score(fresh) - made.expectation.of(fresh.words))


@pytest.mark.parametrize(
    "odd",
    [
        None,
        [],
        {"centre": [1.0]},
        {"centre": [1.0], "direction": []},
        {"centre": ["1"], "direction": [1.0]},
        {"centre": [1e400], "direction": [1.0]},
        {"centre": [], "direction": [], "more": []},
    ],
)
def test_spoiled_files_are_refused(tmp_path, odd):
    path = tmp_path / "toy.calibration.json"
    by_words().save(path)
    path.write_text(json.dumps(json.loads(path.read_text()) | {"expectation": odd}))
    with pytest.raises(CalibrationError, match=r"impossible values|no number in JSON"):
        Calibration.load(path)


def test_other_embeddings_are_refused():
    result = memorization_score(linear(), prompts(3))
    for words in (None, torch.zeros(3, 7)):
        with pytest.raises(CalibrationError, match="calibrate again") as caught:
            by_words().score(replace(result, words=words))
        assert "\n" not in str(caught.value)
    flat = CallableDenoiser(
        lambda x, t, c: x + c.sum(1).view(-1, 1, 1, 1),
        torch.linspace(0.999, 0.01, 100),
        empty=torch.zeros(1, 2),
        latent_shape=(1, 2, 2),
    )
    with pytest.raises(InputError, match="by_words"):
        calibrate(flat, torch.ones(100, 2), by_words=True)


@pytest.mark.parametrize("family", ["sd1", "sd3", "pixart"])
def test_every_check_takes_the_same_off(family):
    pipe, usual = build(family), flags_none(family)
    denoiser = to_denoiser(pipe)
    words = mean_text(denoiser.encode(BENIGN[:20]))
    made = replace(usual, expectation=Expectation(words.mean(0).tolist(), (words[3] - words[5]).tolist()))
    less = made.expectation.of(mean_text(denoiser.encode(["a cat"]))).item()
    assert abs(less) > 1e-4
    scores = {}
    for name, calibration in (("usual", usual), ("by words", made)):
        guard = Guard(pipe, calibration)
        checked = guard.check("a cat", height=16, width=16)
        with guard.attached():
            attached = call(pipe).memorization[0]
        lowered = Objective(denoiser, calibration, denoiser.encode(["a cat"])).before
        scores[name] = torch.tensor([checked.score, attached.score, lowered.score.item()])
        assert ("expect" in (checked.note or "")) == ("expect" in (attached.note or "")) == (name != "usual")
    torch.testing.assert_close(scores["usual"] - scores["by words"], torch.full((3,), less), atol=1e-4, rtol=1e-3)


def test_a_run_that_was_stopped_gives_the_same(tmp_path):
    denoiser = to_denoiser(build("sd1"))
    path, partial = tmp_path / "made.calibration.json", tmp_path / "partial"
    settings: dict[str, Any] = {"draws": 1, "seed": 0, "alpha": 0.01, "partial": partial, "latent_shape": (4, 8, 8)}
    settings["by_words"] = True
    next(CalibrationRun(denoiser, BENIGN, **settings).steps())
    run = CalibrationRun(denoiser, BENIGN, **settings)
    assert 0 < run.done < run.total
    assert set(json.loads(partial.read_text())) == {"key", "rows"}  # no embedding of a prompt
    list(run.steps())
    made = run.finish(path)
    whole = calibrate(denoiser, denoiser.encode(BENIGN), draws=1, latent_shape=(4, 8, 8), by_words=True)
    assert made.expectation is not None
    torch.testing.assert_close(torch.tensor(made.scores), torch.tensor(whole.scores), atol=1e-4, rtol=1e-4)
    assert CalibrationRun(denoiser, BENIGN, **settings).finished(path) == made
    settings["by_words"] = False
    assert CalibrationRun(denoiser, BENIGN, **settings).finished(path) is None


def test_known_prompts_and_words_are_two_ways():
    with pytest.raises(InputError, match="one of them"):
        Guard(build("sd1")).calibrate(BENIGN, known=["a"] * 20, by_words=True)
