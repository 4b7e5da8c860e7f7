"""What is CogView4's alone: texts of many lengths without a mask, and times before the scheduler's shift."""

import warnings
from dataclasses import replace
from typing import Any

import pytest
import torch

from cryptomnesia import Guard
from cryptomnesia.adapters import to_denoiser
from cryptomnesia.calibration import calibrate
from cryptomnesia.denoiser import Condition
from cryptomnesia.errors import MemorizationWarning, NotApplicable
from cryptomnesia.mitigation.objective import Measure

from ..helpers.families import families
from ..helpers.guarded import BENIGN
from ..helpers.recording import CLOSE

FAMILY = families()["cogview-4"]
LONG = "a very long text about a cat that sits on a mat and looks at a dog"
SHAPE = (4, 8, 8)


def test_a_prompt_is_read_alike_beside_longer_ones():
    denoiser: Any = to_denoiser(FAMILY.made())
    alone, beside = denoiser.encode("a cat"), denoiser.encode(["a cat", LONG])
    assert beside.tensors["tokens"].tolist() == [16, 80]
    torch.testing.assert_close(beside.tensors["text"][:1, :16], alone.tensors["text"])
    x = torch.randn(2, *SHAPE, generator=torch.Generator().manual_seed(0))
    together = denoiser.predict(x, denoiser.level(0.5), beside).raw
    torch.testing.assert_close(together[:1], denoiser.predict(x[:1], denoiser.level(0.5), alone).raw, **CLOSE)


@pytest.mark.parametrize("dynamic", [False, True])
def test_the_level_is_the_schedulers(dynamic: bool):
    pipe = FAMILY.made()
    pipe.scheduler.register_to_config(use_dynamic_shifting=dynamic)
    pipe.scheduler.set_shift(3.0)
    pipe.scheduler.register_to_config(shift=3.0)
    denoiser: Any = to_denoiser(pipe)
    x = torch.zeros(1, *SHAPE)
    fed: dict[str, Any] = {
        "hidden_states": x,
        "encoder_hidden_states": denoiser.empty.tensors["text"],
        "original_size": torch.zeros(1, 2),
        "target_size": torch.zeros(1, 2),
        "crop_coords": torch.zeros(1, 2),
    }
    FAMILY.call(pipe, steps=4)
    for timestep, sigma in zip(pipe.scheduler.timesteps, pipe.scheduler.sigmas, strict=False):
        _, time, _, _ = denoiser.read_call(fed | {"timestep": timestep.expand(1)}, (x,))
        assert time.item() == pytest.approx(sigma.item(), abs=1e-6)


def guarded(pipe: Any, monkeypatch: pytest.MonkeyPatch) -> Guard:
    """Flags everything, and rewrites it to one short text."""
    denoiser: Any = to_denoiser(pipe)
    made = calibrate(denoiser, denoiser.encode(BENIGN), draws=1, latent_shape=SHAPE)
    known = replace(made, scores=[-1e9] * made.n)
    monkeypatch.setattr(Measure, "holds", lambda self, alpha: torch.ones_like(self.p_value, dtype=torch.bool))
    return Guard(pipe, known, policy="rewrite", rewriter=lambda prompt: ["zz"], unverified="allow")


def test_a_long_prompt_is_rewritten_to_a_short_one(monkeypatch: pytest.MonkeyPatch):
    pipe = FAMILY.made()
    guard = guarded(pipe, monkeypatch)
    with guard.attached(), warnings.catch_warnings():
        warnings.simplefilter("ignore", MemorizationWarning)
        (report,) = FAMILY.call(pipe, LONG).memorization
    assert report.mitigation is not None and report.mitigation.rewritten == "zz"


def test_embeddings_of_several_lengths_cannot_be_given():
    denoiser: Any = to_denoiser(FAMILY.made())
    with pytest.raises(NotApplicable, match="one length"):
        denoiser.as_arguments(denoiser.encode(["a cat", LONG]))
    short = denoiser.encode(["a cat", LONG])[[0]]
    assert denoiser.as_arguments(short)["prompt_embeds"].shape == (1, 16, 16)


def test_what_cannot_be_put_in_place_stays_flagged(monkeypatch: pytest.MonkeyPatch):
    pipe = FAMILY.made()
    guard = guarded(pipe, monkeypatch)

    def refuse(*conditions: Condition | None) -> dict[str, Any]:
        raise NotApplicable("one length only")

    monkeypatch.setattr(type(guard.denoiser), "as_arguments", lambda self, *conditions: refuse(*conditions))
    with guard.attached(), warnings.catch_warnings():
        warnings.simplefilter("ignore", MemorizationWarning)
        reports = FAMILY.call(pipe, ["a cat", LONG]).memorization
    assert all(report.memorized and not report.mitigation.held for report in reports)
    reasons = [report.mitigation.reason for report in reports]
    assert "one by one" in reasons[0] and "one length" in reasons[1]  # the short one is read as long as the other
