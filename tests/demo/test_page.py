"""The page of the demo: it stands alone, quotes literally, and calls a miss a miss."""

import math
import re
from dataclasses import replace
from types import SimpleNamespace

import numpy as np

from cryptomnesia.commands.demo import _cards
from cryptomnesia.demo.captions import select
from cryptomnesia.demo.page import Card, DemoPage, Group, render
from cryptomnesia.report import MemorizationReport, Verdict

from ..helpers.markup import parsed


def report(prompt, verdict: Verdict = "clear", score=0.5, p_value=0.4):
    return MemorizationReport(
        prompt, verdict, score, 1.0, 0.1, p_value, 0.01, None, None, 0, 4, 16, "ab" * 32, "cafe" * 4
    )


def card(prompt="a cat", group="g", **options):
    images = np.zeros((2, 8, 8, 3), np.uint8)
    return Card(
        report(prompt, **options), group, "a kind", images, [0.2, 0.125], np.zeros((8, 8, 4), np.uint8), "a dog"
    )


def page(cards, threshold=2.0):
    groups = [
        Group("g", "Recited", "About g.", "Recited", True),
        Group("h", "Others", "About h.", "Others\ntoo", False),
    ]
    benign = np.linspace(-2, 2, 120).tolist()
    return DemoPage(groups, cards, benign, threshold, 0.01, 10, 1.0, 20.0, [("model", "<tiny>")])


def test_page_stands_alone_and_says_verdicts_in_words():
    html = render(page([card("a cat", verdict="memorized", score=3.5, p_value=0.008), card("a fox", "h")]))
    found = parsed(html)
    assert "script" not in found.seen and "link" not in found.seen
    assert all(link.startswith(("data:image/png;base64,", "#prompt-")) for link in found.links)
    assert "url(" not in html and "@import" not in html and "://" not in html
    assert "▲ likely memorized" in html and "✓ clear" in html
    assert "0.008" in html and "3.50" in html and "0.125" in html
    assert "prefers-color-scheme: dark" in html
    assert not re.search(r"\b(copied|stolen)\b", html)


def test_a_miss_is_called_one_and_never_clear():
    html = render(page([replace(card("a cat"), missed=True), card("a fox", "h")]))
    parsed(html)
    missed, other = html.split("<article")[1:]
    assert 'class="card missed"' in missed and "✗ missed" in missed and "✓ clear" not in missed
    assert "✓ clear" in other and "1 missed" in html
    assert "missed" not in render(page([card("a cat")])).split("</style>")[1]


def test_what_the_demo_misses_is_what_returns_without_a_warning():
    """Of a caption that was fed one image; the everyday ones have training images, too."""

    def missed(kind, verdict, returned):
        caption = select(kind, "eval")[0]
        other = next(c for c in select(kind, "eval") if c.text != caption.text)
        gallery = SimpleNamespace(
            captions=[caption if returned else other],
            images=np.zeros((1, 64, 64, 3), np.uint8),
            masks=np.ones((1, 64, 64), bool),
            closest=lambda image, templates: (0, 0.1),
        )
        return _cards([caption], [report(caption.text, verdict)], [[None]], gallery)[0].missed

    assert missed("template", "clear", True) and missed("verbatim", "clear", True)
    assert not missed("template", "memorized", True) and not missed("template", "clear", False)
    assert not missed("general", "clear", True)


def test_page_quotes_prompts_literally():
    html = render(page([card('<script>alert("x")</script> & co')]))
    parsed(html)
    assert "<script" not in html
    assert "&lt;script&gt;" in html and "&lt;tiny&gt;" in html


def test_page_without_verdicts_or_threshold():
    cards = [
        card(verdict="uncalibrated", p_value=None),
        card("b", "h", verdict="not applicable", score=None, p_value=None),
    ]
    html = render(page(cards, threshold=math.inf))
    parsed(html)
    assert "? uncalibrated" in html and "– not applicable" in html and 'class="threshold"' not in html
