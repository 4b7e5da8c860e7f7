"""Whatever fails while a guard is attached: the image is made, the reason is told, and nothing is left behind."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from diffusers import EulerDiscreteScheduler

import cryptomnesia.mitigation.rewrite
from cryptomnesia import CallableDenoiser, Guard
from cryptomnesia.errors import InputError
from cryptomnesia.signals.memorization import memorization_score

from ..helpers import gaussian
from ..helpers.guarded import (
    SHAPE,
    attached,
    calibration,
    call,
    flags_all,
    flags_none,
    initial_noise,
    seeded,
    untouched,
)
from ..helpers.patience import PATIENCE
from ..helpers.pipelines import build
from ..helpers.recording import network_of

pytestmark = pytest.mark.filterwarnings("ignore::cryptomnesia.errors.MemorizationWarning")
METHODS = ("rewrite", "embed", "reseed")


# --- attaching ---


def test_an_error_in_the_with_block_restores_the_pipeline():
    pipe = build("sd1")
    original = type(pipe)
    with pytest.raises(KeyError), Guard(pipe, flags_none("sd1")).attached():
        assert type(pipe) is not original and isinstance(pipe, original)
        assert type(pipe).__name__ == original.__name__
        raise KeyError
    assert untouched(pipe, original) and not hasattr(call(pipe), "memorization")


@pytest.mark.parametrize("when", ["before", "after"])
def test_an_error_in_the_call_leaves_no_hook(when, monkeypatch):
    pipe = build("sd1")
    original, guard = type(pipe), Guard(pipe, flags_none("sd1"))

    def fail(*args, **options):
        raise KeyError(when)

    with guard.attached():
        with pytest.raises(KeyError, match=when), monkeypatch.context() as patch:
            if when == "before":  # the network is asked
                patch.setattr(pipe.scheduler, "set_timesteps", fail)
            call(pipe, callback_on_step_end=fail)
        assert not network_of(pipe)._forward_hooks
        # a lock that is still held would stop other threads
        other = threading.Thread(target=guard.check, args=("a cat",), kwargs={"draws": 1}, daemon=True)
        other.start()
        other.join(PATIENCE)
        assert not other.is_alive()
        assert call(pipe).memorization[0].verdict == "clear"
    assert untouched(pipe, original)


def test_attaching_may_be_nested_and_detaching_repeated():
    pipe = build("sd1")
    original, guard = type(pipe), Guard(pipe, flags_none("sd1"))
    guard.detach()
    with guard.attached(), guard.attached() as same:
        assert same is guard
    assert untouched(pipe, original)
    guard.attach()
    guard.attach()
    guard.detach()
    assert hasattr(call(pipe), "memorization")
    guard.detach()
    guard.detach()
    assert untouched(pipe, original)
    assert hasattr(attached(guard), "memorization")


def test_a_pipeline_has_one_guard_at_a_time():
    pipe = build("sd1")
    first, second = Guard(pipe, flags_none("sd1")), Guard(pipe, flags_all("sd1"))
    with first.attached():
        with pytest.raises(InputError, match="another guard"), second.attached():
            pass
        second.detach()
        assert call(pipe).memorization[0].verdict == "clear"
    assert attached(second).memorization[0].verdict == "memorized"


def test_a_bare_denoiser_cannot_be_attached():
    guard = Guard(CallableDenoiser(lambda x, t, c: x, gaussian.ABAR, empty=torch.zeros(1, 1, 1), latent_shape=SHAPE))
    with pytest.raises(InputError, match="only a pipeline"):
        guard.attach()
    guard.detach()


@pytest.mark.parametrize("policy", ["block", *METHODS])
def test_policies_that_act_need_a_calibration(policy):
    with pytest.raises(InputError, match="calibration"):
        Guard(build("sd1"), policy=policy)
    with pytest.raises(InputError, match="fallback"):
        Guard(build("sd1"), flags_all("sd1"), policy, fallback="pray")


def test_wrong_arguments_raise_what_the_pipeline_raises():
    pipe = build("sd3")
    with Guard(pipe, flags_none("sd3")).attached():
        with pytest.raises(TypeError, match="sampler"):
            pipe("a cat", sampler="x")
        with pytest.raises(ValueError, match="divisible by"):
            call(pipe, height=15)
    assert hasattr(attached(Guard(pipe)), "memorization")


# --- rewriters and odd prompts ---


def failing(prompt):
    raise RuntimeError("no connection")


@pytest.mark.parametrize(
    ("rewriter", "reason"),
    [
        (failing, "RuntimeError: no connection"),
        (lambda prompt: None, "must return a list"),
        (lambda prompt: "one text", "must return a list"),
        (lambda prompt: ["fine", 7], "must return a list"),
        (lambda prompt: [], "no edit of up to"),
        (lambda prompt: ["", "  ", prompt], "no edit of up to"),
    ],
)
def test_a_rewriter_that_fails_costs_no_image(rewriter, reason):
    pipe = build("sd1")
    out = attached(Guard(pipe, flags_all("sd1"), "rewrite", rewriter=rewriter))
    about = out.memorization[0].mitigation
    assert not about.held and reason in about.reason and about.rewritten == "a cat"
    assert torch.equal(out.images, call(pipe).images)


def test_a_word_list_that_is_not_there_costs_no_image(tmp_path):
    guard = Guard(build("sd1"), flags_all("sd1"), "rewrite", words=tmp_path / "none.txt")
    assert "none.txt" in attached(guard).memorization[0].mitigation.reason


@pytest.mark.parametrize("family", ["sd1", "sdxl", "sd3", "pixart"])
@pytest.mark.parametrize("prompt", ["", "?!., --", "🐱🔥 👩‍🚀", "кошка 猫の絵 แมว قطة", "word " * 1000])
def test_odd_prompts_are_tried_to_rewrite(family, prompt, monkeypatch):
    monkeypatch.setattr(cryptomnesia.mitigation.rewrite, "ROUNDS", 1)  # all rounds are alike
    report = attached(Guard(build(family), flags_all(family), "rewrite"), prompt).memorization[0]
    assert report.prompt == prompt and report.memorized and not report.mitigation.held
    wordless = not any(c.isalnum() or ord(c) > 0x2000 for c in prompt)
    assert ("no word to change" if wordless else "no edit of up to") in report.mitigation.reason
    assert (report.note is not None) == (len(prompt) > 1000)


# --- changes and threads ---


def test_another_scheduler_between_calls_is_seen():
    guard = Guard(build("sd1"), calibration("sd1"))
    pipe = guard.denoiser.pipe
    with guard.attached():
        first = call(pipe, steps=50).memorization[0]
        pipe.scheduler = EulerDiscreteScheduler.from_config(pipe.scheduler.config)
        second = call(pipe, steps=50).memorization[0]
    assert (first.forward_rows, second.forward_rows) == (0, 2)
    assert second.score == pytest.approx(first.score, abs=0.02)  # Euler shrinks the noise a little


def test_what_other_threads_ask_of_the_network_is_not_judged(monkeypatch):
    guard = Guard(build("sd1"), calibration("sd1"))
    pipe, denoiser = guard.denoiser.pipe, guard.denoiser
    expected, condition = attached(guard).memorization, denoiser.encode(["x", "y"])
    set_timesteps, threads = pipe.scheduler.set_timesteps, []

    def intrude(*args, **options):
        threads.append(threading.Thread(target=memorization_score, args=(denoiser, condition)))
        threads[0].start()
        threads[0].join(PATIENCE)
        return set_timesteps(*args, **options)

    monkeypatch.setattr(pipe.scheduler, "set_timesteps", intrude)
    assert attached(guard).memorization == expected and len(threads) == 1 and not threads[0].is_alive()


def test_threads_get_what_sequential_calls_get():
    guard = Guard(build("sd1"), calibration("sd1", draws=2))
    pipe, prompts = guard.denoiser.pipe, [f"{letter * 3} cat" for letter in "abcdefgh"]

    def generate(prompt):
        out = call(pipe, prompt, generator=seeded(len(prompt))[0])
        return out.images, out.memorization

    def check(prompt):
        return guard.check(prompt, draws=2, height=16, width=16)

    with guard.attached():
        generate("warm up")  # the empty prompt is asked once, by the guard and by the check
        check("warm up")
        expected = [(generate(prompt), check(prompt)) for prompt in prompts]
        with ThreadPoolExecutor(4) as pool:
            generated, checked = [pool.submit(generate, p) for p in prompts], [pool.submit(check, p) for p in prompts]
            found = [(g.result(PATIENCE), c.result(PATIENCE)) for g, c in zip(generated, checked, strict=True)]
    for ((images, reports), report), ((images_, reports_), report_) in zip(expected, found, strict=True):
        assert torch.equal(images, images_) and reports == reports_ and report == report_


def test_text_is_encoded_by_one_thread_at_a_time(monkeypatch):
    # tokenizers remember how to pad from one use to the next, so that two at once mix up their settings
    guard, inside, seen = Guard(build("sd1")), [], []  # what encodes is part of a calibrated model
    pipe, encode = guard.denoiser.pipe, guard.denoiser.pipe.encode_prompt

    def slow(*args, **options):
        inside.append(None)
        seen.append(len(inside))
        time.sleep(0.01)
        try:
            return encode(*args, **options)
        finally:
            inside.pop()

    monkeypatch.setattr(pipe, "encode_prompt", slow)
    with guard.attached(), ThreadPoolExecutor(6) as pool:
        work = [pool.submit(call, pipe, "a cat") for _ in range(3)]
        work += [pool.submit(guard.check, "a cat", draws=1) for _ in range(6)]
        assert all(job.result(PATIENCE) for job in work)
    assert len(seen) >= 9 and max(seen) == 1


def test_the_users_latents_are_left_as_they_were():
    latents = initial_noise(3)
    before = latents.clone()
    attached(Guard(build("sd1"), flags_all("sd1"), "reseed"), latents=latents)
    assert torch.equal(latents, before)
