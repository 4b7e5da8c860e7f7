"""What a guard does about flagged images: block before the first step, or sample with something mended."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from diffusers import EulerAncestralDiscreteScheduler

import cryptomnesia.attached.mitigating
from cryptomnesia import Guard, load_demo
from cryptomnesia.adapters.request import Request
from cryptomnesia.demo import demo_calibration
from cryptomnesia.demo.captions import select
from cryptomnesia.errors import MemorizationBlocked, MemorizationWarning, NotApplicable
from cryptomnesia.mitigation.mitigate import failed
from cryptomnesia.mitigation.result import Mended

from ..helpers.guarded import (
    above,
    calibration,
    call,
    every_guarded,
    flags_all,
    flags_none,
    initial_noise,
    seeded,
    untouched,
)
from ..helpers.pipelines import build

quiet = pytest.mark.filterwarnings("ignore::cryptomnesia.errors.MemorizationWarning")
CLOSE: dict[str, Any] = {"rtol": 0, "atol": 1e-4}


def scores(pipe, calibrated, *args, **options):
    with Guard(pipe, above(calibrated, 1e9)).attached():
        return [report.score for report in call(pipe, *args, **options).memorization]


# --- block ---


@every_guarded
def test_blocking_comes_before_the_first_step(family, monkeypatch):
    pipe, steps = build(family), []
    original = type(pipe)
    monkeypatch.setattr(pipe.scheduler, "step", lambda *args, **options: steps.append(args))
    monkeypatch.setattr(pipe.vae, "decode", lambda *args, **options: steps.append(args))
    with Guard(pipe, flags_all(family), "block").attached(), pytest.raises(MemorizationBlocked) as caught:
        call(pipe, ["secret cat", "dog"])
    assert not steps and untouched(pipe, original)
    error = caught.value
    assert [r.prompt for r in error.reports] == ["secret cat", "dog"] and error.report is error.reports[0]
    assert error.report.memorized and "2 of 2" in str(error) and "secret" not in str(error)
    monkeypatch.undo()
    assert torch.equal(call(pipe).images, call(build(family)).images)


def test_one_flagged_image_blocks_its_batch_and_none_blocks_nothing():
    pipe, calibrated = build("sd1"), calibration("sd1")
    low, high = sorted(scores(pipe, calibrated, ["a cat", "two dogs"]))
    with Guard(pipe, above(calibrated, (low + high) / 2), "block").attached():
        with pytest.raises(MemorizationBlocked, match="1 of 2") as caught:
            call(pipe, ["a cat", "two dogs"])
        assert caught.value.report.score == pytest.approx(high)
        assert call(pipe, caught.value.reports[0 if caught.value.reports[1].memorized else 1].prompt).memorization
    with Guard(pipe, flags_none("sd1"), "block").attached():
        assert torch.equal(call(pipe).images, call(build("sd1")).images)


@pytest.mark.parametrize("policy", ["rewrite", "embed", "attenuate", "reseed"])
def test_what_cannot_be_mended_is_made_or_blocked(policy):
    pipe = build("sd1")
    expected, steps = call(build("sd1")).images, []
    with Guard(pipe, flags_all("sd1"), policy).attached(), pytest.warns(MemorizationWarning):
        out = call(pipe)
    report = out.memorization[0]
    assert torch.equal(out.images, expected) and report.memorized
    assert report.mitigation.method == policy and not report.mitigation.held and report.mitigation.reason
    with Guard(pipe, flags_all("sd1"), policy, fallback="block").attached(), pytest.raises(MemorizationBlocked) as e:
        call(pipe, callback_on_step_end=lambda *args: steps.append(args))
    assert not steps and e.value.report.mitigation == report.mitigation


# --- sampling with another wording, whatever found it ---


@pytest.fixture
def worded(monkeypatch):
    """Every mitigation answers with this prompt, and says that it held."""

    def answer(method, denoiser, calibration, prompt, condition, **options):
        about = replace(failed(method, prompt, "").mitigation, held=True, reason=None, rewritten="two dogs")
        return Mended(about, denoiser.encode("two dogs"))

    monkeypatch.setattr(cryptomnesia.attached.mitigating, "mitigate", answer)


@quiet
@every_guarded
def test_a_rewritten_prompt_is_sampled_as_if_it_had_been_given(family, worded):
    pipe = build(family)
    options = {"negative_prompt": "a b c", "num_images_per_prompt": 2, "steps": 3}
    expected = call(build(family), "two dogs", generator=(own := seeded(3, 4)), **options).images
    with Guard(pipe, flags_all(family), "rewrite").attached():
        out = call(pipe, generator=(mine := seeded(3, 4)), **options)
    assert torch.allclose(out.images, expected, **CLOSE)
    assert not torch.allclose(call(pipe, generator=seeded(3, 4), **options).images, expected, **CLOSE)
    assert all(torch.equal(a.get_state(), b.get_state()) for a, b in zip(own, mine, strict=True))
    for report in out.memorization:
        # still flagged, since everything is
        assert (report.prompt, report.mitigation.rewritten, report.memorized) == ("a cat", "two dogs", True)
        assert not report.mitigation.held and "when sampling began" in report.mitigation.reason


@quiet
@pytest.mark.parametrize("family", ["sd1", "sdxl", "pixart"])
def test_only_flagged_prompts_are_rewritten(family, worded):
    pipe, prompts = build(family), ["a cat", "b b b b"]
    found = scores(pipe, calibration(family), prompts, generator=seeded(1, 2))
    flagged = found.index(max(found))
    guard = Guard(pipe, above(calibration(family), sum(found) / 2), "rewrite")
    with guard.attached():
        out = call(pipe, prompts, generator=seeded(1, 2))
    assert [r.mitigation is not None for r in out.memorization] == [i == flagged for i in range(2)]
    wanted = ["two dogs" if i == flagged else prompt for i, prompt in enumerate(prompts)]
    assert torch.allclose(out.images, call(pipe, wanted, generator=seeded(1, 2)).images, **CLOSE)


@quiet
def test_latents_callbacks_tuples_and_random_samplers_work_with_a_rewritten_prompt(worded):
    pipe, steps = build("sd1"), []
    pipe.scheduler = EulerAncestralDiscreteScheduler.from_config(pipe.scheduler.config)
    options = {"latents": initial_noise(9) * 1.0, "return_dict": False, "steps": 3}
    expected = call(pipe, "two dogs", **options)[0]

    def note(pipe, step, time, values):
        steps.append(step)
        return values

    with Guard(pipe, flags_all("sd1"), "rewrite").attached():
        out = call(pipe, "a cat", callback_on_step_end=note, **options)
    assert torch.allclose(out[0], expected, **CLOSE) and steps == [0, 1, 2]
    assert out.memorization[0].mitigation.rewritten == "two dogs"


@quiet
@pytest.mark.parametrize(
    ("family", "options", "reason"),
    [
        ("sdxl", {"prompt_2": "another"}, "prompt_2"),
        ("sd3", {"max_sequence_length": 50}, "max_sequence_length"),
        ("pixart", {"max_sequence_length": 50}, "max_sequence_length"),
    ],
)
def test_texts_read_in_a_special_way_are_not_rewritten(family, options, reason, worded):
    expected, pipe = call(build(family), **options).images, build(family)
    with Guard(pipe, flags_all(family), "rewrite").attached():
        out = call(pipe, **options)
    assert reason in out.memorization[0].mitigation.reason and not out.memorization[0].mitigation.held
    assert torch.equal(out.images, expected)


def test_calls_that_this_host_cannot_make_are_refused_by_their_arguments():
    pipe = build("sd1")
    made = type(pipe).__call__
    with pytest.raises(NotApplicable, match="clip_skip"):
        Request.read(made, pipe, ("a cat",), {"clip_skip": 1}).require_rewritable(0)
    with pytest.raises(NotApplicable, match="IP-Adapter"):
        Request.read(made, pipe, ("a cat",), {"ip_adapter_image": object()}).require_pure_noise(made)


@quiet
def test_embeddings_have_no_text_to_rewrite(worded):
    pipe = build("sd1")
    guard = Guard(pipe, flags_all("sd1"), "rewrite")
    given = guard.denoiser.encode("a cat").tensors["text"]
    with guard.attached():
        report = call(pipe, None, prompt_embeds=given, negative_prompt_embeds=given * 0.5).memorization[0]
    assert report.prompt is None and not report.mitigation.held and "no text to rewrite" in report.mitigation.reason
    assert report.mitigation.original is report.mitigation.rewritten is None


# --- another noise ---


@pytest.mark.parametrize("random", [False, True])
@pytest.mark.parametrize("each", [False, True])
def test_reseeding_changes_the_flagged_images_only(random, each):
    pipe, prompts = build("sd1"), ["a cat", "b b b b"]
    if random:
        pipe.scheduler = EulerAncestralDiscreteScheduler.from_config(pipe.scheduler.config)

    def generators() -> Any:
        return seeded(5, 6) if each else seeded(5)[0]

    expected = call(pipe, prompts, generator=(own := generators())).images
    found = scores(pipe, calibration("sd1"), prompts, generator=generators())
    flagged = found.index(max(found))
    with Guard(pipe, above(calibration("sd1"), max(found) - 1e-3), "reseed").attached():
        out = call(pipe, prompts, generator=(mine := generators()))
    assert [r.mitigation is not None for r in out.memorization] == [i == flagged for i in range(2)]
    report = out.memorization[flagged]
    assert report.verdict == "clear" and report.mitigation.held and report.score < found[flagged]
    assert torch.allclose(out.images[1 - flagged], expected[1 - flagged], **CLOSE)
    assert not torch.allclose(out.images[flagged], expected[flagged], atol=1e-2)
    for a, b in zip(own if each else [own], mine if each else [mine], strict=True):
        assert torch.equal(a.get_state(), b.get_state())


# --- the built-in model ---


@pytest.fixture(scope="module")
def demo():
    return load_demo()


def demo_call(pipe, prompts, **options):
    return call(pipe, prompts, height=64, width=64, generator=(own := seeded(2)[0]), **options), own.get_state()


def mended(pipe, policy):
    """The first recited caption that the method mends, and the output of its guarded call beside a benign one."""
    benign = select("general", "eval")[0].text
    for caption in select("verbatim", "eval")[:4]:
        with Guard(pipe, demo_calibration(), policy).attached():
            out, state = demo_call(pipe, [caption.text, benign])
        assert out.memorization[0].mitigation is not None and out.memorization[1].mitigation is None
        if out.memorization[0].mitigation.held:
            return [caption.text, benign], out, state
    return pytest.fail("none of four recited captions could be mended")


def test_what_the_built_in_model_recites_is_flagged_and_the_rest_is_not(demo):
    texts = [select(kind, "eval")[0].text for kind in ("verbatim", "general")]
    with Guard(demo, demo_calibration()).attached(), pytest.warns(MemorizationWarning, match="1 of 2"):
        out, _ = demo_call(demo, texts)
    assert [r.verdict for r in out.memorization] == ["memorized", "clear"]
    with Guard(demo, demo_calibration(), "block").attached(), pytest.raises(MemorizationBlocked):
        demo_call(demo, texts)


@quiet
def test_a_recited_prompt_is_rewritten_for_real(demo):
    prompts, out, state = mended(demo, "rewrite")
    report, about = out.memorization[0], out.memorization[0].mitigation
    assert report.verdict == "clear" and report.prompt == about.original == prompts[0] != about.rewritten
    assert about.words and about.p_after > report.alpha >= about.p_before and about.similarity < 1
    expected, own = demo_call(demo, [about.rewritten, prompts[1]])
    assert torch.allclose(out.images, expected.images, **CLOSE) and torch.equal(state, own)
    unguarded, _ = demo_call(demo, prompts)
    assert torch.allclose(out.images[1], unguarded.images[1], **CLOSE)
    assert not torch.allclose(out.images[0], unguarded.images[0], atol=1e-2)


@quiet
@pytest.mark.parametrize("inference", [False, True])
def test_a_recited_embedding_is_moved_for_real(demo, inference):
    with torch.inference_mode(inference):
        prompts, out, state = mended(demo, "embed")
    about, (unguarded, own) = out.memorization[0].mitigation, demo_call(demo, prompts)
    assert out.memorization[0].verdict == "clear" and about.rewritten == about.original and not about.words
    assert about.similarity < 1 and about.score_after < about.score_before and about.backward_rows > 0
    assert torch.allclose(out.images[1], unguarded.images[1], **CLOSE) and torch.equal(state, own)
    assert not torch.allclose(out.images[0], unguarded.images[0], atol=1e-2)
