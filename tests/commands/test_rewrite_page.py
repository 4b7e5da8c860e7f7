"""The page of `cryptomnesia rewrite`: it stands alone, quotes literally, and says what held."""

import math
import re

import numpy as np
import pytest

from cryptomnesia.commands.rewrite_cases import Case, Pictures
from cryptomnesia.commands.rewrite_page import MitigationPage, render
from cryptomnesia.report import Method

from ..helpers.markup import parsed
from ..helpers.mended import mitigation, report


def pictures(seed=0, count=2, **options):
    images = np.random.default_rng(seed).integers(0, 256, (count, 8, 8, 3), dtype=np.uint8)
    return Pictures(images, [f"seed {i}" for i in range(count)], **options)


def page(*cases, method: Method = "rewrite", threshold=2.0):
    facts = [("model", "<tiny>"), ("made with", "cryptomnesia")]
    return render(MitigationPage(cases, method, np.linspace(-2, 2, 120).tolist(), threshold, 0.01, 0.1, facts))


def test_page_stands_alone_and_shows_both_sides():
    html = page(Case(report(), mitigation(), pictures(0), pictures(1)))
    found = parsed(html)
    assert "script" not in found.seen and "link" not in found.seen and found.seen.count("img") == 4
    assert all(link.startswith(("data:image/png;base64,", "#prompt-")) for link in found.links)
    assert "url(" not in html and "@import" not in html and "://" not in html
    assert "a <del>red</del> cat" in html and "a <ins>blue</ins> cat" in html
    assert "▲ likely memorized" in html and "✓ held on fresh noise" in html
    for number in ("0.004", "0.500", "3.25", "1.25", "0.625", "0.03", "0.75", "97"):
        assert number in html
    assert "prefers-color-scheme: dark" in html and "max-width: 620px" in html
    assert not re.search(r"\b(copied|stolen)\b", html)
    alternatives = re.findall(r'alt="([^"]*)"', html)
    assert alternatives == ["before: seed 0", "before: seed 1", "after: seed 0", "after: seed 1"]


def test_page_quotes_literally():
    bad = '<script>alert("x")</script> & co'
    html = page(Case(report(bad), mitigation(original=bad, rewritten=f"{bad} <img>")))
    parsed(html)
    assert "<script" not in html and "<img" not in html
    assert "&lt;tiny&gt;" in html


@pytest.mark.parametrize("method", ["rewrite", "attenuate"])
def test_page_of_what_was_not_found_shows_one_side_only(method):
    html = page(Case(report(), mitigation(method, held=False), pictures()), method=method)
    assert "Not mitigated" in html and "The prompt stays as it was" in html and ">after<" not in html
    assert parsed(html).seen.count("img") == 2 and "guidance similarity;" not in html


@pytest.mark.parametrize("method", ["embed", "reseed"])
def test_page_shows_what_was_tried_in_vain(method):
    html = page(Case(report(), mitigation(method, held=False), pictures(), pictures(independent=False)), method=method)
    assert "▲ did not hold" in html and "Do not rely on what was tried" in html
    assert parsed(html).seen.count("img") == 4 and html.count("images differ by") == 1


def test_a_reseed_is_compared_with_the_check_and_not_with_itself():
    case = Case(report(p_value=0.002, score=4.5), mitigation("reseed"))
    assert case.numbers_before == (0.002, 4.5) and case.numbers_after == (0.5, 1.25)
    assert "Pull to the same image" not in page(case, method="reseed")


def test_page_of_several_prompts_counts_them():
    clear = Case(report("a fox", "clear", p_value=0.5, score=0.0))
    html = page(Case(report(), mitigation()), Case(report("b"), mitigation(held=False)), clear)
    assert "2 of 3 prompts were found likely memorized" in html and "1 of 2 held" in html
    assert parsed(html).seen.count("article") == 3 and "Not changed" in html


def test_page_without_a_threshold():
    html = page(Case(report("a fox", "clear", p_value=0.5)), threshold=math.inf)
    parsed(html)
    assert "The prompt was found clear" in html and 'class="threshold"' not in html


def test_large_images_get_more_room():
    assert 'class="pictures large"' not in page(Case(report(), mitigation(), pictures()))
    large = Pictures(np.zeros((1, 8, 512, 3), np.uint8), ["seed 0"])
    html = page(Case(report(), mitigation(), large))
    assert 'class="pictures large"' in html and "images differ by" not in html


def test_outcome_says_why():
    assert Case(report(), mitigation(held=False, reason="no PixArt edit passed")).outcome == (
        "Not mitigated",
        "No PixArt edit passed. The prompt stays as it was.",
    )
