"""The report of an audit in headless Chromium: it runs nothing but its own script, and its table does what it says."""

import pytest
import torch

from cryptomnesia.audit import report_files, table
from cryptomnesia.audit.report import write_report

from ..helpers.audited import HOSTILE, KNOWN, many, prompts_run


def settled(page):
    page.wait("document.querySelector('#rows tbody tr') && !document.querySelector('#rows[aria-busy]')")


def shown(page):
    """Texts of the rows on show, and what is said of them."""
    settled(page)
    whole = "cell => cell.lastChild.lastChild?.data ?? cell.textContent"  # of a text that is folded, all of it
    return page.evaluate(f"[...document.querySelectorAll('#rows td.text')].map({whole})"), page.evaluate(
        "document.querySelector('#status').textContent"
    )


@pytest.mark.parametrize("beside", [False, True])
def test_hostile_texts_do_nothing_in_a_browser(browser, tmp_path, monkeypatch, beside):
    if beside:
        monkeypatch.setattr(report_files, "EMBEDDED", 1)
    page = write_report(prompts_run(tmp_path, HOSTILE, [3.0, 2.9, 2.8, 2.7, 2.6, 2.5]))
    browser.open(page)
    found, status = shown(browser)
    assert found == [table.cut(text) for text in HOSTILE] and status == "6 rows; these are 1 to 6"
    assert browser.evaluate("document.title") == "Cryptomnesia: audit of 6 prompts"
    assert browser.complaints() == [] and len(browser.asked_for()) == 1 + beside
    assert all(address.startswith("file://") for address in browser.asked_for())


def test_nothing_but_the_page_s_own_script_may_run(browser, tmp_path):
    browser.open(write_report(prompts_run(tmp_path, *many(3))))
    settled(browser)
    browser.evaluate("document.body.insertAdjacentHTML('beforeend', '<img src=x onerror=\"document.title=1\">')")
    browser.evaluate("fetch('http://127.0.0.1:9/').catch(error => error.message)")
    browser.until(lambda: sum("Content Security Policy" in text for text in browser.complaints()) >= 2)
    assert browser.evaluate("document.title") != "1"


def test_the_table_sorts_filters_and_turns_pages(browser, tmp_path, monkeypatch):
    monkeypatch.setattr(report_files, "EMBEDDED", 10)
    monkeypatch.setattr(table, "CHUNK", 64)
    prompts, scores = many(240)
    prompts[10], prompts[20] = prompts[0].upper(), prompts[0] + "!"
    browser.open(write_report(prompts_run(tmp_path, prompts, scores), calibration=KNOWN))
    by_score = prompts[::-1]
    assert shown(browser) == (by_score[:50], "240 rows; these are 1 to 50")
    assert len(browser.asked_for()) == 2  # the page, and the one file that is seen

    browser.evaluate("document.querySelector('[data-turn=last]').click()")
    assert shown(browser) == (by_score[200:], "240 rows; these are 201 to 240")
    assert browser.evaluate("document.querySelector('[data-turn=on]').disabled")

    head = "document.querySelector('th[data-key=row] button').click()"
    browser.evaluate(head)
    assert shown(browser)[0] == prompts[:50]
    assert browser.evaluate("document.querySelector('th[data-key=row]').getAttribute('aria-sort')") == "ascending"
    browser.evaluate(head)
    assert shown(browser)[0] == prompts[::-1][:50]
    browser.evaluate(head)  # back to worst first, which here is the same

    ask = "(value => {{ const one = document.querySelector({!r}); one.value = value; {} }})"
    search = ask.format("#search", "one.dispatchEvent(new Event('input'))")
    verdict = ask.format("[data-words=verdict]", "one.dispatchEvent(new Event('change'))")
    browser.evaluate(f"{search}('PLACE13 thing7')")
    wanted = [text for text in by_score if "place13" in text and "thing7" in text]
    assert shown(browser) == (wanted, f"{len(wanted)} of 240 rows; these are 1 to {len(wanted)}")
    browser.evaluate(f"{search}('')")
    flagged = int((KNOWN.p_of(torch.tensor(scores)) <= 0.01).sum())
    browser.evaluate(f"{verdict}('0')")
    found, status = shown(browser)
    assert found == by_score[: min(50, flagged)] and status.startswith(f"{flagged} of 240 rows")
    browser.evaluate(f"{verdict}('')")

    browser.evaluate("document.querySelector('[data-only=once]').click()")
    assert shown(browser)[1].startswith("238 of 240 rows")
    browser.evaluate("document.querySelector('[data-cluster]').click()")
    assert sorted(shown(browser)[0]) == sorted([prompts[0], prompts[10], prompts[20]])
    browser.evaluate("document.querySelector('#group').click()")
    browser.evaluate("document.querySelector('[data-only=once]').click()")
    assert shown(browser)[1].startswith("240 rows")
    assert browser.complaints() == []


def test_a_missing_file_is_told_and_asked_for_again(browser, tmp_path, monkeypatch):
    monkeypatch.setattr(report_files, "EMBEDDED", 10)
    page = write_report(prompts_run(tmp_path, *many(20)))
    (file,) = (tmp_path / "report").glob("*/*.js")
    away = file.rename(tmp_path / "away.js")
    browser.open(page)
    browser.wait("document.querySelector('#status').textContent.includes('keep the folder')")
    away.rename(file)
    browser.evaluate("document.querySelector('th[data-key=score] button').click()")
    assert len(shown(browser)[0]) == 20
