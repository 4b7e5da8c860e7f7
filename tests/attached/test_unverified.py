"""What could not be checked is reported, warned of or not handed out, as `unverified` says."""

import threading
import warnings
from dataclasses import replace

import pytest
import torch

from cryptomnesia import Guard, MemorizationBlocked, UnverifiedBlocked, UnverifiedWarning
from cryptomnesia.errors import InputError

from ..helpers.guarded import attached, calibration, call, flags_all, flags_none, initial_noise, untouched
from ..helpers.patience import PATIENCE
from ..helpers.pipelines import build
from ..helpers.recording import network_of

pytestmark = pytest.mark.filterwarnings("ignore::cryptomnesia.errors.MemorizationWarning")


def half(pipe, guard):
    pipe.to(torch.bfloat16)


def lora(pipe, guard):  # as peft's layers look
    layer = network_of(pipe).conv_in
    layer.scaling, layer.active_adapters = {"style": 1.0}, ["style"]


def trained_on(pipe, guard):
    network_of(pipe).conv_in.weight.add_(0.1)


def broken(pipe, guard):
    network_of(pipe).conv_out.bias.fill_(float("nan"))
    guard.calibration = replace(guard.calibration, fingerprint=guard.denoiser.fingerprint)


def short_of_memory(pipe, guard):
    def fail(*question):
        raise RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 9 bytes")

    guard.denoiser.output = fail


def without_text_encoder(pipe, guard):
    guard.denoiser.encode("a cat")  # the check itself has worked before
    pipe.text_encoder = None


class Wrapper(torch.nn.Module):
    """Passes everything on, past the hooks of the network inside it."""

    def __init__(self, network):
        super().__init__()
        self.__dict__["network"] = network

    def __getattr__(self, name):
        return getattr(self.__dict__["network"], name)

    def forward(self, *args, **kwargs):
        return self.network.forward(*args, **kwargs)


def told_more(pipe, guard):
    """A pipeline that adds what a ControlNet would."""
    network = network_of(pipe)

    class Told(type(network)):
        def __call__(self, *args, **kwargs):
            residual = {"mid_block_additional_residual": torch.zeros(1)}
            return super().__call__(*args, **kwargs, **residual)

    network.__class__ = Told


def embeddings(**options):
    denoiser = Guard(build("sd1")).denoiser
    given = {"prompt_embeds": denoiser.encode("a cat").tensors["text"]}
    return given | {"negative_prompt_embeds": denoiser.empty.tensors["text"], "prompt": None} | options


# what is done, with which arguments, and what the reason says
WAYS = {
    "half precision": (half, {}, "another (model|dtype)"),
    "a LoRA": (lora, {}, "another model"),
    "other weights": (trained_on, {}, "another model"),
    "another size": (None, {"width": 24}, "another latent size"),
    "no words": (None, embeddings(prompt_embeds=torch.zeros(1, 77, 16)), "no words"),
    "latents moved": (None, {"latents": initial_noise(1) + 0.25}, "standard normal"),
    "latents grown": (None, {"latents": initial_noise(1) * 1.25}, "standard normal"),
    "latents NaN": (None, {"latents": initial_noise(1) * float("nan")}, "standard normal"),
    "one of two latents": (
        None,
        {"prompt": ["a", "b"], "latents": torch.cat([initial_noise(1), initial_noise(2) * 0.7])},
        "standard normal",
    ),
    "attention arguments": (None, {"cross_attention_kwargs": {"x": 1}}, "cross_attention_kwargs"),
    "more than prompts": (told_more, {}, "a ControlNet or T2I-Adapter takes part"),
    "a network of NaN": (broken, {}, "NaN"),
    "no memory": (short_of_memory, {}, "no memory"),
    "no text encoder": (without_text_encoder, embeddings(), "has no text encoder"),
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("unverified", ["allow", "warn", "block"])
def test_what_cannot_be_checked_meets_what_was_asked_for(way, unverified, monkeypatch):
    change, options, reason = WAYS[way]
    pipe, steps = build("sd1"), []
    original, guard = type(pipe), Guard(pipe, calibration("sd1"), unverified=unverified)
    if change is not None:
        change(pipe, guard)
    step = pipe.scheduler.step
    monkeypatch.setattr(pipe.scheduler, "step", lambda *a, **o: steps.append(1) or step(*a, **o))
    options = {"prompt": "a cat"} | options
    prompt = options.pop("prompt")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", UnverifiedWarning)
        if unverified == "block":
            with guard.attached(), pytest.raises(UnverifiedBlocked, match=reason) as error:
                call(pipe, prompt, **options)
            assert not steps and "before the first step" in str(error.value) and "unverified=" in str(error.value)
            reports = error.value.reports
            assert error.value.report is reports[0] and isinstance(error.value, MemorizationBlocked)
        else:
            reports = attached(guard, prompt, **options).memorization
            assert len(steps) == 2
    found = [w for w in caught if w.category is UnverifiedWarning]
    assert len(found) == (unverified == "warn")
    assert all("cat" not in str(w.message) and w.filename.endswith("guarded.py") for w in found)
    assert all(report.verdict in ("uncalibrated", "not applicable") for report in reports)
    assert untouched(pipe, original)


@pytest.mark.parametrize(
    ("policy", "options", "expected"),
    [
        ("warn", {}, "warn"),
        ("block", {}, "block"),
        ("rewrite", {}, "warn"),
        ("embed", {"fallback": "block"}, "warn"),
        ("block", {"unverified": "allow"}, "allow"),
        ("reseed", {"unverified": "block"}, "block"),
    ],
)
def test_only_the_policy_block_blocks_by_default(policy, options, expected):
    assert Guard(build("sd1"), flags_none("sd1"), policy, **options).unverified == expected
    with pytest.raises(InputError, match="unverified"):
        Guard(build("sd1"), unverified="perhaps")


def test_without_a_calibration_every_call_warns_once():
    pipe = build("sd1")
    with Guard(pipe).attached(), warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", UnverifiedWarning)
        for count in (1, 2):
            call(pipe, ["a cat"] * 2)
            assert len(caught) == count and "calibrate" in str(caught[-1].message)
    with Guard(pipe, unverified="block").attached(), pytest.raises(UnverifiedBlocked, match="2 of 2"):
        call(pipe, ["a cat"] * 2)


def test_what_is_judged_neither_warns_nor_blocks():
    pipe = build("sd1")
    with warnings.catch_warnings():
        warnings.simplefilter("error", UnverifiedWarning)
        assert attached(Guard(pipe, flags_none("sd1"), "block"), num_images_per_prompt=2).memorization[1].verified
        attached(Guard(pipe, flags_all("sd1")))


@pytest.mark.parametrize("policy", ["rewrite", "embed", "reseed"])
def test_mitigations_block_what_they_cannot_even_judge_if_asked_to(policy):
    guard = Guard(build("sd1"), flags_all("sd1"), policy, unverified="block")
    with pytest.raises(UnverifiedBlocked, match="standard normal"):
        attached(guard, latents=initial_noise(1) * 1.25)


# --- the network's calls were not seen ---


def in_a_thread(pipe):
    """The pipeline calls its network in a thread of its own, as some servers do."""
    network = network_of(pipe)
    own = type(network).__call__

    class Elsewhere(type(network)):
        def __call__(self, *args, **kwargs):
            found = []

            def work():
                try:
                    found.append(own(self, *args, **kwargs))
                except Exception as error:  # noqa: BLE001
                    found.append(error)

            thread = threading.Thread(target=work)
            thread.start()
            thread.join(PATIENCE)
            if isinstance(found[0], Exception):
                raise found[0]
            return found[0]

    network.__class__ = Elsewhere


def wrapped(pipe):
    pipe.unet = Wrapper(pipe.unet)


def forward_alone(pipe):
    network = pipe.unet
    own = type(network)
    network.__class__ = type("Direct", (own,), {"__call__": lambda self, *a, **o: own.forward(self, *a, **o)})


@pytest.mark.parametrize(
    ("way", "reason"),
    [(in_a_thread, "another thread"), (forward_alone, "was not seen"), (wrapped, "cannot be read|Wrap")],
)
def test_images_of_a_network_that_was_not_seen_are_not_handed_out(way, reason):
    pipe = build("sd1")
    guard = Guard(pipe, flags_none("sd1"), "block")
    with guard.attached():
        way(pipe)
        with pytest.raises(UnverifiedBlocked, match=reason):
            call(pipe)
    pipe = build("sd1")
    guard = Guard(pipe, flags_none("sd1"))
    with guard.attached(), pytest.warns(UnverifiedWarning):
        way(pipe)
        out = call(pipe)
    assert not out.memorization[0].verified and torch.equal(out.images, call(build("sd1")).images)
