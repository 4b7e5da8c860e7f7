"""A calibration at the sampler's own first timestep: the guard reads the sampler's call, and asks for no row."""

from dataclasses import replace

import pytest
import torch
from diffusers import DDIMScheduler, DPMSolverMultistepScheduler, EulerDiscreteScheduler

from cryptomnesia import Guard, calibration_store
from cryptomnesia.adapters import to_denoiser
from cryptomnesia.adapters.pipeline_call import first_timestep
from cryptomnesia.calibration import Calibration, calibrate
from cryptomnesia.errors import InputError
from cryptomnesia.signals.draws import derived_seed, draw_noise
from cryptomnesia.signals.memorization import memorization_score

from ..helpers.guarded import BENIGN, SHAPE, Counter, above, attached, call, flags_all, initial_noise, rows, seeded
from ..helpers.pipelines import build
from ..helpers.toy import linear, prompts

FEW = [*BENIGN, "a cat"]


def calibrated(pipe, time: int, draws: int = 1) -> Calibration:
    denoiser = to_denoiser(pipe)
    return calibrate(denoiser, denoiser.encode(BENIGN), draws=draws, latent_shape=SHAPE, time=time)


@pytest.mark.parametrize(
    ("scheduler", "spacing", "steps", "time"),
    [
        (DDIMScheduler, "leading", 4, 751),
        (DDIMScheduler, "leading", 20, 951),
        (EulerDiscreteScheduler, "leading", 30, 958),
        (EulerDiscreteScheduler, "linspace", 25, 999),
        (DPMSolverMultistepScheduler, "linspace", 20, 999),
        (DPMSolverMultistepScheduler, "trailing", 7, 999),
    ],
)
def test_no_row_is_asked_for_and_the_score_is_that_of_a_check(scheduler, spacing, steps, time):
    pipe, alone = build("sd1"), build("sd1")
    for each in (pipe, alone):
        each.scheduler = scheduler.from_config(each.scheduler.config, timestep_spacing=spacing)
    denoiser = to_denoiser(pipe)
    assert first_timestep(denoiser, steps) == time
    calibration = calibrated(pipe, time)
    guard = Guard(pipe, calibration)
    expected, before = rows(alone, lambda: call(alone, steps=steps))
    out, after = rows(pipe, lambda: attached(guard, steps=steps))
    (report,) = out.memorization
    assert torch.equal(out.images, expected.images) and after == before and report.forward_rows == 0
    noise = torch.randn(1, *SHAPE, generator=seeded(0)[0])
    level = calibration.level(denoiser)
    assert level.time.item() == time
    measured = memorization_score(denoiser, denoiser.encode("a cat"), noise=noise, level=level, alignment=False)
    # schedulers that start at their largest sigma shrink the noise by a quarter of a percent
    assert report.iso == pytest.approx(measured.iso.item(), rel=1e-4 if spacing == "leading" else 0.01)
    other = memorization_score(denoiser, denoiser.encode("a cat"), noise=noise, alignment=False)
    assert abs(other.iso.item() - measured.iso.item()) > 1e-6  # another level is another score


@pytest.mark.parametrize(("steps", "rows_each"), [(50, 4), (20, 2)])
def test_at_another_start_the_rows_are_asked_for_at_the_calibrations_level(steps, rows_each):
    """Two draws: one private row for the prompt, one for the empty prompt once, two where the call does not serve."""
    pipe = build("sd1")
    guard = Guard(pipe, calibrated(pipe, 951, draws=2))
    out, _ = rows(pipe, lambda: attached(guard, steps=steps))
    private = draw_noise(guard.denoiser, 1, derived_seed(0, "attached", False), SHAPE)
    checked = memorization_score(
        guard.denoiser,
        guard.denoiser.encode("a cat"),
        noise=torch.cat([initial_noise(0), private]),
        level=guard.denoiser.level(951),
        alignment=False,
    )
    assert out.memorization[0].forward_rows == rows_each
    assert out.memorization[0].score == pytest.approx(guard.calibration.score(checked).item(), abs=1e-4)  # type: ignore[union-attr]
    with Counter(pipe) as counter:
        attached(guard, steps=steps)
    assert counter.calls == steps + 1  # all of the guard's rows share one


def test_checks_and_mitigations_take_the_calibrations_level():
    pipe = build("sd1")
    calibration = calibrated(pipe, 951)
    guard = Guard(pipe, above(calibration, -1e9))
    report = guard.check("a cat", height=16, width=16)
    private = torch.randn(1, *SHAPE, generator=torch.Generator().manual_seed(0))
    level = guard.denoiser.level(951)
    measured = memorization_score(guard.denoiser, guard.denoiser.encode("a cat"), noise=private, level=level)
    assert report.score == pytest.approx(calibration.score(measured).item(), abs=1e-5)
    with_alignment = guard.check("a cat", height=16, width=16, alignment=True)
    assert with_alignment.score == pytest.approx(report.score, abs=1e-5)
    asked = []
    predict = guard.denoiser.predict
    guard.denoiser.predict = lambda x, level, *a, **k: (
        asked.append(level.time.unique().tolist())
        or predict(  # type: ignore[method-assign]
            x, level, *a, **k
        )
    )
    for method in ("rewrite", "reseed"):
        guard.mitigate("a cat", method, height=16, width=16)
    assert asked and all(times == [951] for times in asked)


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("CRYPTOMNESIA_HOME", str(tmp_path))
    return tmp_path


def test_the_kept_one_at_the_samplers_start_is_taken(home):
    pipe = build("sd1")
    guard = Guard(pipe, "auto")
    made = {steps: guard.calibrate(BENIGN, draws=1, steps=steps, height=16, width=16) for steps in (20, 30, 50)}
    assert [c.time for c in made.values()] == [951, 958, None]
    assert len(list((home / "calibrations").iterdir())) == 3
    for steps, extra in ((20, 0), (50, 0), (30, 0), (25, 2), (20, 0)):
        (report,) = attached(guard, steps=steps).memorization
        wanted = made.get(steps, made[50])
        assert (report.forward_rows, report.calibration_id) == (extra, wanted.identity), steps
    assert guard.check("a cat", height=16, width=16).calibration_id == made[50].identity


def test_one_at_any_start_is_better_than_none(home):
    pipe = build("sd1")
    guard = Guard(pipe, "auto")
    made = guard.calibrate(BENIGN, draws=1, steps=20, height=16, width=16)
    assert guard.check("a cat", height=16, width=16).calibration_id == made.identity
    assert attached(guard, steps=50).memorization[0].calibration_id == made.identity
    found, why = calibration_store.find(guard.denoiser, SHAPE, 1)
    assert found == made and why is None


def test_what_is_looked_up_once_is_not_read_again(home, monkeypatch):
    pipe = build("sd1")
    guard = Guard(pipe, "auto")
    guard.calibrate(BENIGN, draws=1, height=16, width=16)
    attached(guard, steps=20)
    monkeypatch.setattr(calibration_store, "kept", lambda: pytest.fail("looked up again"))
    attached(guard, steps=20)


def test_a_flow_model_starts_where_it_starts():
    guard = Guard(build("sd3"), flags_all("sd3"))
    assert first_timestep(guard.denoiser, 7) is None
    with pytest.raises(InputError, match="from time 1 on"):
        calibrate(guard.denoiser, guard.denoiser.encode(FEW), draws=1, latent_shape=SHAPE, time=951)


def test_what_cannot_be_is_said():
    denoiser = to_denoiser(build("sd1"))
    for steps in (0, 10**6):
        with pytest.raises(InputError, match=r"steps .*sample with"):
            first_timestep(denoiser, steps)
    with pytest.raises(InputError, match="leave out steps"):
        first_timestep(linear(), 20)
    with pytest.raises(InputError, match=r"0\.\.999"):
        calibrate(linear(), prompts(120), time=1000)
    with pytest.raises(InputError, match="leave out level"):
        memorization_score(linear(), prompts(1), level=linear().level(3), author_compat=True)


def test_a_file_tells_its_timestep(tmp_path):
    made = calibrate(linear(), prompts(120), time=951)
    made.save(tmp_path / "a.calibration.json")
    assert Calibration.load(tmp_path / "a.calibration.json") == made
    plain = replace(made, time=None)
    assert '"time"' not in str(plain._document()) and plain.identity != made.identity
