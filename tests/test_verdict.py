"""The one function from a measurement and a calibration to verdicts and reports."""

from dataclasses import replace

import pytest
import torch

from cryptomnesia.calibration import calibrate
from cryptomnesia.calibration_source import NO_CALIBRATION, CalibrationSource
from cryptomnesia.denoiser import Condition
from cryptomnesia.errors import CalibrationError, InputError
from cryptomnesia.protocols import encoder_of, pipeline_of, text_of
from cryptomnesia.report import CallReport, MemorizationReport, Mitigation, RegionReport, WordChange
from cryptomnesia.signals.memorization import memorization_score
from cryptomnesia.verdict import check, judge, not_applicable, reports_on

from .helpers.toy import linear, prompts, without_guidance

DENOISER = linear()
KNOWN = calibrate(DENOISER, prompts(120))
MEASURED = memorization_score(DENOISER, prompts(5), draws=4)


def test_without_a_calibration_there_is_a_score_and_no_verdict():
    judged = judge(MEASURED, None)
    assert [one.score for one in judged] == MEASURED.score.tolist()
    assert {(one.p_value, one.verdict) for one in judged} == {(None, "uncalibrated")}


def test_memorized_is_what_lies_at_or_below_alpha():
    p_values = KNOWN.p_value(MEASURED).tolist()
    known = replace(KNOWN, alpha=sorted(p_values)[1])
    judged = judge(MEASURED, known)
    assert [one.p_value for one in judged] == p_values
    assert [one.verdict == "memorized" for one in judged] == [p <= known.alpha for p in p_values]


def test_a_report_says_the_same_as_the_judgement_and_shares_the_cost():
    reports = reports_on(DENOISER, [None] * 5, MEASURED, KNOWN, seed=7, fingerprint="f", reason="not told")
    assert [(r.score, r.p_value, r.verdict) for r in reports] == judge(MEASURED, KNOWN)
    assert {(r.seed, r.fingerprint, r.reason, r.calibration_id) for r in reports} == {(7, "f", None, KNOWN.identity)}
    assert reports[0].forward_rows == -(-MEASURED.forward_rows // 5) and reports[0].draws == MEASURED.draws


def test_another_number_of_draws_is_refused():
    with pytest.raises(CalibrationError, match="draws"):
        judge(memorization_score(DENOISER, prompts(2), draws=2), KNOWN)


def test_a_check_takes_the_draws_of_its_calibration_and_says_why_there_is_none():
    row = Condition.of(prompts(1))
    known = replace(KNOWN, draws=2)
    assert check(DENOISER, [None], row, CalibrationSource(known))[0].draws == 2
    report = check(DENOISER, [None], row, CalibrationSource())[0]
    assert (report.verdict, report.reason, report.draws) == ("uncalibrated", NO_CALIBRATION, 4)


def test_where_the_question_has_no_meaning_nothing_is_measured():
    refiner = without_guidance(linear())
    report = check(refiner, [None], Condition.of(prompts(1)), CalibrationSource(KNOWN), draws=3)[0]
    assert (report.verdict, report.score, report.forward_rows, report.draws) == ("not applicable", None, 0, 3)
    assert report.reference is None
    assert report == not_applicable(refiner, None, report.reason or "", seed=0, draws=3)


def test_a_report_comes_back_from_its_plain_data():
    report = reports_on(DENOISER, [None] * 5, MEASURED, KNOWN, seed=2**60 + 1, fingerprint="f")[0]
    words = [WordChange("swap", "a", "b", 0.5)]
    about = Mitigation("rewrite", True, None, "a", "b", words, 1.0, 0.5, 0.01, 0.6, 0.0, 0.9, 4, 2)
    call = CallReport(2**63, None, None, "DDIMScheduler", {"steps": 50})
    whole = replace(report, mitigation=about, region=RegionReport(0.5, 1.0, 0.1, 4, 1.0, 8), call=call)
    for one in (report, whole, replace(whole, call=replace(call, seed=None))):
        assert MemorizationReport.from_dict(one.to_dict()) == one
    for odd in ({}, {"seed": "1"}, {**report.to_dict(), "more": 1}, {**report.to_dict(), "region": 1}):
        with pytest.raises(InputError, match="no report"):
            MemorizationReport.from_dict(odd)


@pytest.mark.parametrize("ask", [encoder_of, text_of, pipeline_of])
def test_what_a_model_lacks_is_one_clear_line(ask):
    with pytest.raises(InputError) as caught:
        ask(object())
    assert "\n" not in str(caught.value) and ": " in str(caught.value)


def test_capabilities_are_seen_in_what_a_model_offers():
    assert encoder_of(DENOISER) is DENOISER and text_of(DENOISER) is DENOISER
    with pytest.raises(InputError, match="only a pipeline can sample"):
        pipeline_of(DENOISER)
    assert torch.equal(MEASURED.score, MEASURED.iso)
