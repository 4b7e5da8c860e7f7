"""The report of an audit: every row once, hostile texts as they are, whatever state the run is in."""

import re
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from cryptomnesia.audit import report_files, table
from cryptomnesia.audit.images import ImageJob
from cryptomnesia.audit.report import write_report
from cryptomnesia.audit.rows import PART, Reject
from cryptomnesia.errors import InputError

from ..helpers.audited import HOSTILE, KNOWN, data_of, many, prompts_run, words_of, write_run
from ..helpers.markup import parsed

# --- the data ---


@pytest.mark.parametrize("beside", [False, True])
def test_every_row_is_there_once_worst_first(tmp_path, monkeypatch, beside):
    if beside:
        monkeypatch.setattr(report_files, "EMBEDDED", 10)
        monkeypatch.setattr(table, "CHUNK", 100)
    prompts, scores = many(3 * PART)
    prompts[5], prompts[6] = prompts[4], "<b>" + prompts[4].upper()
    page = write_report(prompts_run(tmp_path, prompts, scores, first=0), calibration=KNOWN)
    columns, texts = data_of(page)
    assert sorted(columns["row"]) == list(range(len(prompts)))
    assert [prompts[row] for row in columns["row"]] == texts
    assert columns["score"] == pytest.approx([scores[row] for row in columns["row"]])
    assert (np.diff(columns["p_value"]) >= 0).all() and (np.diff(columns["adjusted"]) >= 0).all()
    assert (columns["adjusted"] >= columns["p_value"]).all()
    leader = int(np.flatnonzero(columns["row"] == 5)[0])  # of 4, 5 and 6 it may be any that is as bad
    cluster = {int(columns["row"][i]) for i in np.flatnonzero(columns["cluster"] == columns["cluster"][leader])}
    assert cluster == {4, 5, 6} and columns["alike"][leader] == 3
    assert (tmp_path / "report").exists() == beside


def test_a_new_report_takes_the_place_of_the_old(tmp_path, monkeypatch):
    monkeypatch.setattr(report_files, "EMBEDDED", 10)
    prompts, scores = many(30)
    page = write_report(prompts_run(tmp_path, prompts, scores))
    before = {folder.name for folder in (tmp_path / "report").iterdir()}
    write_report(prompts_run(tmp_path, prompts, scores))
    assert {folder.name for folder in (tmp_path / "report").iterdir()} == before  # same texts, same name
    for part in (tmp_path / "results").iterdir():
        part.unlink()
    write_report(prompts_run(tmp_path, [text + "!" for text in prompts], scores))
    assert len(before | {folder.name for folder in (tmp_path / "report").iterdir()}) == 2
    assert len(list((tmp_path / "report").iterdir())) == 1
    monkeypatch.setattr(report_files, "EMBEDDED", 100)
    write_report(tmp_path)
    assert not (tmp_path / "report").exists() and data_of(page)[1][0].endswith("!")


def test_a_report_that_cannot_be_written_leaves_the_old_one(tmp_path, monkeypatch):
    monkeypatch.setattr(report_files, "EMBEDDED", 10)
    prompts, scores = many(30)
    page = write_report(prompts_run(tmp_path, prompts, scores))
    before = page.read_bytes()

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(report_files, "write_atomically", full)
    with pytest.raises(InputError, match="No space left on device"):
        write_report(tmp_path)
    assert page.read_bytes() == before and data_of(page)
    monkeypatch.setattr(report_files, "create", full)
    with pytest.raises(InputError, match="No space left on device"):
        write_report(tmp_path)
    assert not [path for path in (tmp_path / "report").iterdir() if path.suffix == ".tmp"]


# --- the words ---


def test_the_page_says_what_the_run_amounts_to(tmp_path):
    prompts, scores = many(400)
    scores[3] = scores[4] = 5.0
    words = words_of(write_report(prompts_run(tmp_path, prompts, scores), calibration=KNOWN))
    flagged = sum(KNOWN.p_of(torch.tensor(scores)) <= 0.01)
    assert f"{flagged} of 400 prompts are likely memorized" in words
    assert "about 4 would have been flagged by chance, so there are more than chance explains" in words
    assert "false discovery rate 5 %" in words and "at most" in words
    assert "No model was at hand" in words and "not finished" not in words
    assert not re.search(r"\b(copied|stolen|is a member)\b", words)


def test_too_few_benign_prompts_for_any_to_be_flagged_are_named(tmp_path):
    prompts, scores = many(400)
    scores = [min(score, 0.5) for score in scores]
    scores[7] = 5.0
    words = words_of(write_report(prompts_run(tmp_path, prompts, scores), calibration=KNOWN))
    assert "at 5 % no prompt can be flagged unless 40 reach it" in words and "chance alone may explain" in words


def test_hostile_texts_stand_in_the_page_as_text(tmp_path):
    rejects = [Reject(6, "is <b>odd</b>", HOSTILE[0])]
    html = write_report(prompts_run(tmp_path, HOSTILE, [3.0] * 6, rejects=rejects)).read_text("utf-8")
    found = parsed(html)
    assert found.seen.count("script") == 2 and "img" not in found.seen and found.links == []
    assert all(mark not in html.split('id="audit-data">')[1].split("</script>")[0] for mark in "<>&\u2028\u2029")
    texts = data_of(tmp_path / "report.html")[1]
    assert sorted(texts)[:2] == sorted(HOSTILE)[:2] and all(len(text) < 1100 for text in texts)
    assert "[10,000 characters]" in html and "default-src 'none'" in html and "http:" not in html


def test_without_calibration_there_is_no_verdict(tmp_path):
    page = write_report(prompts_run(tmp_path, *many(20), known=None))
    columns, _ = data_of(page)
    words = words_of(page)
    assert "No prompt has a verdict" in words and "cryptomnesia calibrate" in words
    assert "false alarms" not in words and "likely memorized (" not in words
    assert "p_value" not in columns and (np.diff(columns["score"]) <= 0).all()


def test_no_row_at_all(tmp_path):
    page = write_report(prompts_run(tmp_path, [], []))
    assert "No row of the input has a result" in words_of(page)
    assert "script" not in parsed(page.read_text("utf-8")).seen


def test_rejects_only(tmp_path):
    rejects = [Reject(i, f"has {20_001 + i} characters, and at most 20000 are read", "<i>x") for i in range(30)]
    rejects.append(Reject(30, "is empty", ""))
    page = write_report(prompts_run(tmp_path, [], [], rejects=rejects))
    words = words_of(page)
    assert "31 rows could not be measured" in words and "the first 20 of them" in words
    # reasons that differ in numbers only are one
    assert re.search(r"has 20001 characters, and at most 20000 are read\s+30\s+is empty\s+1\s", words)
    assert "<i>" not in page.read_text("utf-8")


def test_a_run_that_is_not_finished_says_so(tmp_path):
    prompts, scores = many(PART)
    run = prompts_run(tmp_path, prompts, scores, rows=1000, finished=False)
    (run / "rejects" / "part-000001.parquet").write_bytes(b"of an attempt that was cut off")
    words = words_of(write_report(run))
    assert f"This audit is not finished. {PART} of 1,000 rows are done" in re.sub(r"\s+", " ", words)


def test_what_is_no_run_is_refused(tmp_path):
    with pytest.raises(InputError, match="holds no audit"):
        write_report(tmp_path)
    run = prompts_run(tmp_path, *many(3))
    with pytest.raises(InputError, match="is not that of this audit"):
        write_report(run, calibration=replace(KNOWN, seed=1))
    next((run / "results").iterdir()).write_bytes(b"PAR1 and no more")
    with pytest.raises(InputError, match=r"part-000000.parquet is damaged"):
        write_report(run)
    (run / "run.json").write_text('{"schema": 3, "kind": "prompts"}')
    with pytest.raises(InputError, match="no version that this one knows"):
        write_report(run)


# --- pictures ---


def test_the_gallery_shows_what_the_model_makes(tmp_path):
    from cryptomnesia import load_demo
    from cryptomnesia.demo.captions import select

    prompts = [select("verbatim", "eval")[0].text, select("general", "eval")[0].text]
    done = []
    run = prompts_run(tmp_path, [*prompts, prompts[0].upper()], [4.0, 0.0, 3.0])
    page = write_report(run, pipe=load_demo(), gallery=1, calibration=KNOWN, progress=lambda *told: done.append(told))
    html = page.read_text("utf-8")
    assert done == [(1, 1)] and parsed(html).seen.count("img") == 2
    assert "of the image likely memorized" in html and "2 near-identical" in html


def test_a_gallery_without_maps_says_why(tmp_path):
    from ..helpers.pipelines import stable_diffusion

    pipe = stable_diffusion()

    class Unseen(type(pipe.unet)):
        """Its hooks never run, so there is no latent to make a map of."""

        def __call__(self, *args, **kwargs):
            return self.forward(*args, **kwargs)

    pipe.unet.__class__ = Unseen
    html = write_report(prompts_run(tmp_path, ["a cat"], [4.0]), pipe=pipe).read_text("utf-8")
    assert parsed(html).seen.count("img") == 1 and "no map: " in html


def image_record(row, path, **answers):
    empty = dict.fromkeys(("claimed_verdict", "made_by", "made_by_probability", "made_by_p_value", "note"))
    empty |= {
        "nearest_signature": None,
        "signature_distance": None,
        "matches": False,
        "model": None,
        "calibration": None,
    }
    seen = {"sidecar": "missing", "file": "unknown", "pixels": "unknown", "c2pa": "none"}
    return {"row": row, "path": path} | empty | seen | answers


def test_images_are_shown_oddest_first(tmp_path):
    (tmp_path / "set <1>").mkdir()
    Image.fromarray(np.full((600, 400, 3), 99, np.uint8)).save(tmp_path / "set <1>" / "a.png")
    fits = {"sidecar": "found", "file": "same", "pixels": "same"}
    rows = [
        image_record(0, "z.png"),
        image_record(1, "gone.png", made_by="demo", made_by_p_value=0.4, made_by_probability=0.9),
        image_record(2, "set <1>/a.png", **fits | {"pixels": "changed"}),
        image_record(3, "b.png", made_by="none of these", made_by_p_value=0.01, made_by_probability=0.8, **fits),
    ]
    told = {"verdict": "no evidence", "headline": "No evidence", "notes": ["p = 0.4 <at most>"]}
    run = write_run(tmp_path / "run", "images", 4, rows, ImageJob(tmp_path).schema(), model=None, membership=told)
    page = write_report(run, images=tmp_path, gallery=3)
    columns, texts = data_of(page)
    html, words = page.read_text("utf-8"), re.sub(r"\s+", " ", words_of(page))
    assert columns["row"].tolist() == [2, 3, 1, 0] and texts[0] == "set <1>/a.png"
    assert parsed(html).seen.count("img") == 1 and "400x600 pixels" in html
    assert "the image cannot be read any more" in words and "<1>" not in html
    assert "4 images were examined" in words and "1 do not fit their sidecar" in words
    assert "Membership: no evidence" in words and "p = 0.4 &lt;at most&gt;" in words
    assert "likely memorized" not in words


def test_a_membership_test_without_an_answer_says_why(tmp_path):
    told = {"verdict": None, "reason": "9 references are too few"}
    run = write_run(tmp_path, "images", 1, [image_record(0, "a.png")], ImageJob(tmp_path).schema(), membership=told)
    assert "No answer: 9 references are too few." in words_of(write_report(run))
