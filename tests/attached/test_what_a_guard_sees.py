"""Runs each row of docs/what-a-guard-sees.md."""

import copy
import io
import threading
import warnings
from pathlib import Path
from typing import Any

import joblib
import pytest
import torch
from diffusers import StableDiffusionPipeline

from cryptomnesia import Guard, MemorizationBlocked, UnverifiedBlocked, UnverifiedWarning
from cryptomnesia.adapters import to_denoiser
from cryptomnesia.signals.memorization import memorization_score

from ..helpers.guarded import attached, calibration, call, flags_all, flags_none, initial_noise, rows, untouched
from ..helpers.patience import PATIENCE
from ..helpers.pipelines import build
from ..helpers.recording import network_of
from . import test_changed_while_sampling as changes
from . import test_unverified as unchecked

PAGE = Path(__file__).parents[2] / "docs" / "what-a-guard-sees.md"
BLOCKED, SAMPLED, WARNED = "blocked", "sampled", "warned"


def guarded(change=None, **options):
    """A guarded call after something was done to the pipeline."""

    def way(pipe, guard):
        if change is not None:
            change(pipe, guard)
        call(pipe, **options)

    return way


def in_callback(change):
    def callback(pipe, number, time, values):
        return (change(pipe, values) or {}) if number == 1 else {}

    return guarded(steps=4, callback_on_step_end=callback, negative_prompt="b c", **changes.EMBEDS)


def replaced_for_a_while(pipe, guard):
    first = pipe.unet

    def callback(pipe, number, time, values):
        pipe.unet = build("sd1", seed=3).unet if number == 0 else first
        return {}

    call(pipe, steps=4, callback_on_step_end=callback)


def other_scheduler(pipe, values):
    pipe.scheduler = type(pipe.scheduler).from_config(pipe.scheduler.config)
    pipe.scheduler.set_timesteps(4)


def weak_embeddings(pipe, guard):
    """Memorized whole; weakened they are not, were they judged as they are."""
    denoiser = guard.denoiser
    whole, empty = denoiser.encode("a cat").tensors["text"], denoiser.empty.tensors["text"]
    given = {"prompt": None, "prompt_embeds": whole, "negative_prompt_embeds": empty, "steps": 50}
    guard.calibration = flags_none("sd1")
    strong = call(pipe, **given).memorization[0].score
    weak = [empty + 0.5 * (whole - empty), 0.5 * whole]
    guard.calibration = changes_at(strong - 1e-3)
    caught = []
    for embeddings in weak:
        with pytest.raises(MemorizationBlocked) as block:
            call(pipe, **given | {"prompt_embeds": embeddings})
        assert block.value.report.score > strong - 1e-2 and "weaker" in block.value.report.note
        caught.append(block.value)
    raise caught[-1]


def changes_at(score):
    from ..helpers.guarded import above

    return above(calibration("sd1"), score)


def two_mixed(pipe, guard):
    denoiser = guard.denoiser
    both = sum(denoiser.encode(text).tensors["text"] for text in ("a cat", "two dogs")) / 2
    call(pipe, None, prompt_embeds=both, negative_prompt_embeds=denoiser.empty.tensors["text"])


def keeps_latents(pipe, guard):
    kept = []
    call(pipe, callback_on_step_end=lambda pipe, number, time, values: kept.append(values["latents"]) or {})
    assert len(kept) == 2


def other_copy(make):
    return lambda pipe, guard: call(make(pipe))


def before(make):
    """Made before the guard comes; see `test_each_row`."""
    make.before = True
    return make


@before
def earlier_copy(pipe):
    other = copy.deepcopy(pipe)
    return lambda pipe, guard: call(other)


@before
def earlier_call(pipe):
    bound = pipe.__call__
    return lambda pipe, guard: bound("a cat", num_inference_steps=1, output_type="latent")


def network_directly(how):
    text = torch.zeros(1, 77, 16)
    return lambda pipe, guard: how(pipe)(initial_noise(0), torch.tensor(5), encoder_hidden_states=text)


def through_pickle(value):
    file = io.BytesIO()
    joblib.dump(value, file)
    file.seek(0)
    return joblib.load(file)


def pickled(pipe, guard):
    again = through_pickle(pipe)
    assert type(again) is StableDiffusionPipeline
    call(again)


def superfluous_detach(pipe, guard):
    guard.detach()
    assert call(pipe).memorization[0].verdict == "clear"


def foreign_detach(pipe, guard):
    guard.detach()  # leaves nothing to undo for whom attached
    assert not hasattr(call(pipe), "memorization")


foreign_detach.alone = True  # type: ignore[attr-defined]


def hooks_removed(pipe, guard):
    pipe.unet._forward_pre_hooks.clear()
    call(copy.copy(pipe))

    def callback(pipe, number, time, values):
        pipe.unet._forward_hooks.clear()
        return {}

    pipe.scheduler.set_timesteps = lambda *a, f=pipe.scheduler.set_timesteps, **o: (
        pipe.unet._forward_hooks.clear(),
        f(*a, **o),
    )
    call(pipe)


def several(*ways):
    """Each of them is blocked."""

    def way(pipe, guard):
        for one in ways[:-1]:
            with pytest.raises(UnverifiedBlocked):
                one(pipe, guard)
        ways[-1](pipe, guard)

    return way


def fresh(way, change, **options):
    """As `guarded`, on a pipeline of its own, since it does not survive the change."""

    def run(pipe, guard):
        pipe = build("sd1")
        guard = Guard(pipe, flags_none("sd1"), "block")
        with guard.attached():
            way(change, **options)(pipe, guard)

    return run


def no_guard(change):
    return lambda pipe, guard: change(pipe)


# in the order of the page: what it says first, what is done, and how that ends
ROWS = [
    (
        "another dtype",
        several(
            *(fresh(guarded, c) for c in (unchecked.half, unchecked.lora, unchecked.trained_on)), guarded(width=24)
        ),
        BLOCKED,
    ),
    (
        "latents that are no standard",
        several(
            guarded(latents=initial_noise(1) * 1.25),
            guarded(ip_adapter_image_embeds=[torch.zeros(2, 1, 16)]),
            guarded(cross_attention_kwargs={"x": 1}),
        ),
        BLOCKED,
    ),
    (
        "embeddings without words",
        guarded(prompt=None, prompt_embeds=torch.zeros(1, 77, 16), negative_prompt_embeds=torch.ones(1, 77, 16)),
        BLOCKED,
    ),
    (
        "the check runs out",
        several(fresh(guarded, unchecked.short_of_memory), fresh(guarded, unchecked.broken)),
        BLOCKED,
    ),
    ("a callback changes the prompt's", in_callback(changes.other_prompt), BLOCKED),
    ("a callback changes weights", several(in_callback(changes.trained), in_callback(changes.adapted)), BLOCKED),
    (
        "a callback changes the negative",
        lambda pipe, guard: [
            in_callback(change)(pipe, guard)
            for change in (changes.other_negative, changes.other_latents, changes.other_scale, other_scheduler)
        ],
        SAMPLED,
    ),
    ("a callback puts another network in place |", in_callback(changes.replaced), BLOCKED),
    ("a callback puts another network in place and", replaced_for_a_while, SAMPLED),
    ("embeddings that are mixed", weak_embeddings, BLOCKED),
    ("embeddings of two", two_mixed, SAMPLED),
    ("a callback keeps", keeps_latents, SAMPLED),
    ("the pipeline calls its network", guarded(lambda pipe, guard: unchecked.in_a_thread(pipe)), BLOCKED),
    ("the pipeline calls `network.forward", guarded(lambda pipe, guard: unchecked.forward_alone(pipe)), BLOCKED),
    ("the pipeline's network is wrapped", guarded(lambda pipe, guard: unchecked.wrapped(pipe)), BLOCKED),
    ("`copy.copy(pipe)`", other_copy(copy.copy), BLOCKED),
    ("`copy.deepcopy(pipe)`, made while", other_copy(copy.deepcopy), BLOCKED),
    ("`copy.deepcopy(pipe)`, made before", earlier_copy, SAMPLED),
    (
        "`type(pipe)(",
        several(
            other_copy(lambda pipe: type(pipe)(**pipe.components, requires_safety_checker=False)),
            other_copy(lambda pipe: StableDiffusionPipeline.from_pipe(pipe)),
        ),
        BLOCKED,
    ),
    ("a `pipe.__call__`", earlier_call, BLOCKED),
    ("the network called directly", network_directly(lambda pipe: pipe.unet), BLOCKED),
    ("the network's `forward`", network_directly(lambda pipe: pipe.unet.forward), SAMPLED),
    ("a pickle", pickled, SAMPLED),
    ("`detach()` without", superfluous_detach, WARNED),
    ("`detach()` once", foreign_detach, SAMPLED),
    ("hooks removed", hooks_removed, BLOCKED),
]


def table():
    lines = [line for line in PAGE.read_text("utf-8").splitlines() if line.startswith("| ")]
    return lines[1:]


def test_the_page_lists_what_is_run():
    for line, (start, _, end) in zip(table(), ROWS, strict=True):
        assert line.startswith(f"| {start}")
        happens = line.split(" | ")[-1]
        assert ("block" in happens or "judged at full" in happens) == (end == BLOCKED)
        assert happens.startswith("a warning") == (end == WARNED)


@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.parametrize(("start", "way", "end"), ROWS, ids=[row[0] for row in ROWS])
def test_each_row(start, way, end):
    pipe = build("sd1")
    original, guard = type(pipe), Guard(pipe, flags_none("sd1"), "block")
    if getattr(way, "before", False):
        way = way(pipe)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", UnverifiedWarning)
        if getattr(way, "alone", False):
            guard.attach()
            way(pipe, guard)
        elif end == BLOCKED:
            with guard.attached(), pytest.raises(MemorizationBlocked):
                way(pipe, guard)
        else:
            with guard.attached():
                way(pipe, guard)
    assert any(w.category is UnverifiedWarning for w in caught) == (end == WARNED)
    assert type(pipe) is original and not network_of(pipe)._forward_hooks


# --- calls round the guard ---


def test_a_call_round_the_guard_warns_once_and_samples_what_it_would():
    pipe = build("sd1")
    expected = call(build("sd1")).images
    with Guard(pipe, flags_none("sd1")).attached():
        with pytest.warns(UnverifiedWarning, match="round its guard") as caught:
            assert torch.equal(call(copy.copy(pipe), steps=2).images, expected)
        assert len([w for w in caught if w.category is UnverifiedWarning]) == 1
        call(pipe)
        with pytest.warns(UnverifiedWarning):  # another guarded call lies between
            call(copy.copy(pipe))
    with warnings.catch_warnings():
        warnings.simplefilter("error", UnverifiedWarning)
        call(copy.copy(pipe))
        with Guard(pipe, flags_none("sd1"), unverified="allow").attached():
            call(copy.copy(pipe))


@pytest.mark.parametrize("make", [copy.copy, copy.deepcopy, through_pickle])
def test_copies_are_of_the_pipelines_own_class_and_free_once_detached(make):
    pipe = build("sd1")
    with Guard(pipe, flags_all("sd1"), "block").attached():
        other = make(pipe)
        assert type(other) is StableDiffusionPipeline
        networks = through_pickle(network_of(pipe))
    assert torch.equal(call(other).images, call(build("sd1")).images)
    assert torch.equal(networks.conv_in.weight, network_of(pipe).conv_in.weight)


def test_another_network_between_calls_is_watched_in_place_of_the_first():
    pipe = build("sd1")
    first, original = pipe.unet, type(pipe)
    with Guard(pipe, flags_none("sd1"), "block", unverified="block").attached():
        pipe.unet = build("sd1").unet
        call(pipe)
        assert not first._forward_pre_hooks
        with pytest.raises(UnverifiedBlocked, match="round its guard"):
            call(copy.copy(pipe))
    assert untouched(pipe, original)


def test_what_the_library_itself_asks_goes_round_no_guard():
    pipe = build("sd1")
    guard = Guard(pipe, calibration("sd1"), "block")
    condition = guard.denoiser.encode("a cat")
    size: Any = {"height": 16, "width": 16}
    with guard.attached(), warnings.catch_warnings():
        warnings.simplefilter("error", UnverifiedWarning)
        guard.check("a cat", draws=1, **size)
        guard.locate("a cat", steps=2, **size)
        guard.mitigate("a cat", "embed", **size)
        memorization_score(to_denoiser(copy.copy(pipe)), condition)
        other = threading.Thread(target=guard.check, args=("a cat",), kwargs={"draws": 1, **size})
        other.start()
        other.join(PATIENCE)


def test_watching_costs_no_row_and_changes_no_bit():
    pipe = build("sd1")
    expected, before = rows(pipe, lambda: call(pipe, steps=50))
    guard = Guard(pipe, flags_none("sd1"), "block")
    out, after = rows(pipe, lambda: attached(guard, steps=50))
    assert torch.equal(out.images, expected.images) and after == before


def test_detaching_undoes_ones_own_attachment_only():
    pipe = build("sd1")
    original, guard = type(pipe), Guard(pipe, flags_none("sd1"))
    guard.detach()  # nothing to undo, nothing at stake
    with guard.attached():
        guard.attach()
        guard.detach()
        with pytest.warns(UnverifiedWarning, match="stays attached"):
            guard.detach()
        assert hasattr(call(pipe), "memorization")
    assert untouched(pipe, original)
    guard.attach()
    with guard.attached():
        pass
    assert hasattr(call(pipe), "memorization")
    guard.detach()
    assert untouched(pipe, original)
