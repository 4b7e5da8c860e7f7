"""Mitigations: on denoisers with known answers, and for real on the built-in model."""

from dataclasses import replace

import pytest
import torch

from cryptomnesia import Guard
from cryptomnesia.adapters import to_denoiser
from cryptomnesia.calibration import calibrate
from cryptomnesia.demo.captions import select
from cryptomnesia.denoiser import CallableDenoiser, Condition
from cryptomnesia.errors import CalibrationError, InputError, OutOfMemory
from cryptomnesia.mitigation.embedding import optimise_embedding
from cryptomnesia.mitigation.initial_noise import neighbours, optimise_noise, select_noise
from cryptomnesia.mitigation.mitigate import mitigate
from cryptomnesia.mitigation.objective import LIMIT, Objective, ordinary
from cryptomnesia.mitigation.result import similarity
from cryptomnesia.mitigation.rewrite import rewrite
from cryptomnesia.signals.draws import draw_noise

from ..helpers import toy
from ..helpers.guarded import SHAPE, of_a_few
from ..helpers.pipelines import build


@pytest.fixture(scope="module")
def linear():
    denoiser = toy.linear()
    return denoiser, calibrate(denoiser, 0.1 * toy.prompts(100), draws=2)


@pytest.fixture(scope="module")
def memorized(demo):
    """A caption that the built-in model recites, and that is flagged."""
    reports = Guard(*demo).check_many([c.text for c in select("verbatim", "eval")])
    return next(report.prompt for report in reports if report.memorized)


def strong(seed: int = 1) -> Condition:
    return Condition(text=3 * toy.prompts(1, seed))


# --- embedding ---


def test_an_embedding_is_moved_until_it_looks_benign_and_pulls_elsewhere(linear):
    denoiser, calibration = linear
    original = strong()
    before = original.tensors["text"].clone()
    found = optimise_embedding(denoiser, calibration, original, steps=200)
    test = Objective(denoiser, calibration, original, seed=99)
    assert bool(test.before.p_value <= calibration.alpha)
    assert bool(test(found.condition).holds(calibration.alpha))
    assert torch.equal(original.tensors["text"], before)
    assert found.steps < 200 and found.backward_rows == 2 * found.steps + 2


def test_the_first_token_stays(linear):
    denoiser, calibration = linear
    found = optimise_embedding(denoiser, calibration, strong(), steps=1)
    moved = found.condition.tensors["text"] - strong().tensors["text"]
    # weight decay alone: 1 - .05 * .01
    torch.testing.assert_close(moved[:, 0], -0.0005 * strong().tensors["text"][:, 0])
    assert moved[:, 1].abs().max() > 0.04


def test_the_vector_that_sums_the_words_up_is_moved_too():
    denoiser = to_denoiser(build("sd3"))
    original = denoiser.encode("a cat")
    found = optimise_embedding(denoiser, of_a_few(denoiser), original, shape=SHAPE, target=-1e9, steps=1)
    start, moved = original.tensors["pooled"], found.condition.tensors["pooled"]
    # AdamW's first step is as long in every element, whatever the gradient, which is exactly 0 nowhere here
    torch.testing.assert_close(
        (moved - start * (1 - 0.05 * 0.01)).abs(), torch.full_like(start, 0.05), rtol=0.01, atol=0
    )
    assert not torch.equal(found.condition.tensors["text"][:, 1:], original.tensors["text"][:, 1:])


def test_without_direction_it_stops_at_the_target(linear):
    denoiser, calibration = linear
    target = calibration.threshold + 1
    found = optimise_embedding(denoiser, calibration, strong(), target=target, direction=False, steps=200)
    after = Objective(denoiser, calibration, strong())(found.condition)
    assert after.score.item() <= target + 0.01
    assert after.guidance_similarity.item() > LIMIT


def test_one_prompt_at_a_time(linear):
    with pytest.raises(InputError, match="one prompt"):
        optimise_embedding(linear[0], linear[1], Condition(text=toy.prompts(2)))


class Exhausted(torch.autograd.Function):
    """Runs out of memory in the backward pass of more rows than allowed."""

    most = 1

    @staticmethod
    def forward(ctx, x):
        return x.clone()

    @staticmethod
    def backward(ctx, *grad_outputs):
        if len(grad_outputs[0]) > Exhausted.most:
            raise torch.OutOfMemoryError("no memory for the gradient")
        return grad_outputs[0]


def test_a_gradient_that_does_not_fit_is_taken_row_by_row(linear, monkeypatch):
    plain, calibration = linear
    expected = optimise_embedding(plain, calibration, strong(), steps=30)
    tight = CallableDenoiser(
        lambda x, t, c: plain.fn(x, t, Exhausted.apply(c)), toy.ABAR, empty=torch.zeros(1, 2, 5), latent_shape=toy.SHAPE
    )
    found = optimise_embedding(tight, calibration, strong(), steps=31)  # one step goes by in finding out
    torch.testing.assert_close(found.condition.tensors["text"], expected.condition.tensors["text"])
    monkeypatch.setattr(Exhausted, "most", 0)
    with pytest.raises(OutOfMemory, match="single row"):
        optimise_embedding(tight, calibration, strong(), steps=31)


# --- initial noise ---


def bumpy() -> CallableDenoiser:
    """Guidance that is sharp where x is large."""

    def fn(x, t, condition):
        return condition.mean((1, 2)).view(-1, 1, 1, 1) * x**2

    return CallableDenoiser(fn, toy.ABAR, empty=torch.zeros(1, 2, 5), latent_shape=toy.SHAPE)


def test_the_noise_with_the_lowest_score_is_selected():
    denoiser, condition = bumpy(), Condition(text=torch.ones(1, 2, 5))
    calibration = calibrate(denoiser, toy.prompts(100), draws=1)
    found = select_noise(denoiser, calibration.combination, condition, draw_noise(denoiser, 16, 3))
    noises = draw_noise(denoiser, 16, 3)
    alone = [Objective(denoiser, calibration, condition, noise=noises[[i]]).before.score for i in range(16)]
    torch.testing.assert_close(found.scores, torch.cat(alone))
    assert torch.equal(found.noise, noises[[int(found.scores.argmin())]])
    with pytest.raises(InputError, match="noise has shape"):
        select_noise(denoiser, calibration.combination, condition, torch.zeros(0, 4, 16, 16))


def test_neighbours_are_close_standard_normal_and_fresh():
    noise = torch.randn(1, 4, 64, 64, generator=torch.Generator().manual_seed(0))
    near = neighbours(noise, 3, seed=1)
    assert near.shape == (3, 4, 64, 64)
    assert abs(near.std().item() - 1) < 0.02
    for one in near:
        assert torch.cosine_similarity(one.flatten(), noise.flatten(), dim=0) > 0.98
    assert not torch.equal(near[0], near[1])


def test_sail_makes_guidance_less_sharp_and_leaves_its_input_alone():
    denoiser, condition = bumpy(), Condition(text=torch.ones(1, 2, 5))
    noise = draw_noise(denoiser, 1, 5)
    kept = noise.clone()

    def sharpness(x):
        g = x**2
        return ((x + g / g.norm()) ** 2 - g).square().sum().item()

    moved = optimise_noise(denoiser, condition, noise)
    assert sharpness(moved) < sharpness(noise)
    assert torch.equal(noise, kept)
    with pytest.raises(InputError, match="one noise"):
        optimise_noise(denoiser, condition, draw_noise(denoiser, 2, 5))


# --- on the built-in model ---


def test_what_scores_high_among_what_holds_is_left_out():
    assert ordinary(torch.tensor([5.0, 1.0, 4.0, 2.0, 3.0])) == [1, 3]
    assert ordinary(torch.tensor([2.0, 1.0])) == [1] and ordinary(torch.tensor([7.0])) == [0]


@pytest.mark.parametrize("method", ["rewrite", "embed"])
def test_a_recited_caption_is_mended_and_holds_on_noise_of_our_own(demo, memorized, method):
    denoiser, calibration = demo
    original = denoiser.encode(memorized)
    mended = mitigate(method, denoiser, calibration, memorized, original)
    about = mended.mitigation
    assert about.held and about.p_before <= calibration.alpha < about.p_after
    assert mended.condition is not None
    again = Objective(denoiser, calibration, original, seed=4711)(mended.condition)
    assert again.p_value.item() > calibration.alpha and again.guidance_similarity.item() < 2 * LIMIT
    assert about.similarity == pytest.approx(similarity(mended.condition, original).item())
    if method == "rewrite":
        assert about.rewritten != memorized and about.words
        torch.testing.assert_close(mended.condition.tensors["text"], denoiser.encode(about.rewritten).tensors["text"])


def test_the_same_seed_gives_the_same_rewriting(demo, memorized):
    first, second = (rewrite(demo[0], demo[1], memorized, seed=5).mitigation for _ in range(2))
    assert first == second


def test_significance_is_the_gradient_at_the_words_own_tokens(demo):
    denoiser, _ = demo
    prompt = "the solemn baker of ravenna"
    spans = [(0, 3), (4, 10), (11, 16), (17, 19), (20, 27)]

    def score(condition, grad):
        assert grad
        # position 4 of a causal encoder has read "<start> the solemn baker" (one token each), and nothing after it
        assert len(denoiser.pipe.tokenizer("the solemn baker").input_ids) == 5
        return condition.tensors["text"][:, 3].square().sum()

    found = denoiser.significance(prompt, spans, score)
    assert min(found[:3]) > 0 and found[3:] == [0.0, 0.0]


def test_a_rewriter_comes_first_and_is_tested_like_all(demo, memorized):
    asked, others = [], [c.text for c in select("general", "eval")[:20]]

    def rewriter(prompt):
        asked.append(prompt)
        return [prompt + " ", *others]

    about = rewrite(demo[0], demo[1], memorized, rewriter=rewriter).mitigation
    assert asked == [memorized]
    assert about.held and about.rewritten in others


def test_a_rewriter_without_ideas_leaves_it_to_words(demo, memorized):
    about = rewrite(demo[0], demo[1], memorized, rewriter=lambda prompt: []).mitigation
    assert about.held and about.rewritten not in (memorized, "")


def test_rewriters_that_fail_are_named(demo, memorized):
    def broken(prompt):
        raise KeyError("no model")

    with pytest.raises(InputError, match="rewriter raised KeyError"):
        rewrite(demo[0], demo[1], memorized, rewriter=broken)
    with pytest.raises(InputError, match="list of prompts"):
        rewrite(demo[0], demo[1], memorized, rewriter=lambda prompt: "one prompt")  # type: ignore[arg-type, return-value]


def test_an_own_word_list_is_used(demo, memorized, tmp_path):
    words = tmp_path / "words.txt"
    words.write_text("zebra\n")
    about = rewrite(demo[0], demo[1], memorized, words=words).mitigation
    assert {change.became for change in about.words} <= {"", "zebra", *memorized.split()}


@pytest.mark.parametrize("prompt", ["", "?!... --", "🐵 🐶", "雪の夜に", "the " * 100])
def test_odd_prompts_are_no_fault(demo, prompt):
    denoiser, calibration = demo
    about = rewrite(denoiser, calibration, prompt).mitigation
    assert about.original == prompt
    if not about.held:
        assert about.reason and about.rewritten == prompt


def test_when_no_edit_will_do_nothing_is_changed(demo, memorized):
    denoiser, calibration = demo
    strict = replace(calibration, scores=[-1e9] * calibration.n)
    about = rewrite(denoiser, strict, memorized).mitigation
    assert not about.held and about.rewritten == memorized and not about.words
    assert about.reason is not None and "4 words" in about.reason


def test_guard_mend_needs_a_calibration_that_fits(demo, memorized):
    denoiser, calibration = demo
    with pytest.raises(InputError, match="calibrat"):
        Guard(denoiser).mitigate(memorized)
    with pytest.raises(CalibrationError, match="another model"):
        Guard(denoiser, replace(calibration, fingerprint="0" * 64)).mitigate(memorized)
    with pytest.raises(InputError, match="unknown method"):
        Guard(denoiser, calibration).mitigate(memorized, "erase")  # type: ignore[arg-type]
