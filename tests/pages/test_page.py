"""The page of the demo, and the command that makes it, on a tiny model with random weights."""

import base64
import io
import json
import math
import re
from dataclasses import replace
from html.parser import HTMLParser
from itertools import pairwise
from types import SimpleNamespace
from xml.etree import ElementTree

import numpy as np
import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from PIL import Image

from cryptomnesia.calibration import calibrate
from cryptomnesia.cli import run
from cryptomnesia.commands.demo import _cards
from cryptomnesia.demo import showcase
from cryptomnesia.demo.captions import select
from cryptomnesia.demo.gallery import Gallery
from cryptomnesia.pages.demo import Card, DemoPage, Group, render
from cryptomnesia.pages.images import data_uri
from cryptomnesia.pages.strip import STEP, Axis, Lane, Marker, chart, levels
from cryptomnesia.report import MemorizationReport

from ..helpers import pipelines

VOID = {"meta", "img", "br", "line", "rect", "circle"}
scores = st.floats(-1e4, 1e4)
any_scores = st.floats(allow_nan=False, allow_infinity=False)


class Balanced(HTMLParser):
    """Raises unless every element is closed where it was opened."""

    def __init__(self):
        super().__init__()
        self.open, self.seen, self.links = [], [], []

    def handle_starttag(self, tag, attrs):
        self.seen.append(tag)
        self.links += [value for name, value in attrs if name in ("src", "href")]
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        if tag not in VOID:
            assert self.open.pop() == tag


def report(prompt, verdict="clear", score=0.5, p_value=0.4):
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


def parsed(html):
    parser = Balanced()
    parser.feed(html)
    parser.close()
    assert parser.open == []
    return parser


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


def test_data_uri_holds_the_pixels():
    image = np.random.default_rng(0).integers(0, 256, (5, 7, 4), dtype=np.uint8)
    head, data = data_uri(image).split(",")
    assert head == "data:image/png;base64"
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(base64.b64decode(data)))), image)


@given(st.lists(st.floats(0, 1000), min_size=1, max_size=20).map(sorted))
def test_marks_never_overlap(places):
    found = levels(places)
    for level in set(found):
        row = [place for place, at in zip(places, found, strict=True) if at == level]
        assert all(b - a >= STEP for a, b in pairwise(row))


@given(st.lists(scores, min_size=1, max_size=40), st.lists(scores, min_size=1, max_size=12))
@example([0.0], [5e-324])
@example([5e-324], [0.0])
@example([1e9], [1e9 + 1e-6])
@example([0.0, 1e-13], [-1e-13])
def test_axis_keeps_order_and_room(benign, marks):
    axis = Axis([*benign, *marks], benign)
    ordered = sorted([*benign, *marks])
    places = [axis.x(score) for score in ordered]
    assert all(a <= b + 1e-6 for a, b in pairwise(places))
    assert places[0] >= 170 and places[-1] <= 940
    ticks = axis.ticks()
    assert all(axis.x(b) - axis.x(a) >= 59 for a, b in pairwise(ticks))


@given(st.lists(any_scores, min_size=1, max_size=40), st.lists(any_scores, min_size=1, max_size=12), st.booleans())
@example([0.0], [5e-324], True)
@example([0.0], [5e-324], False)
@example([1.7e308, -1.7e308], [1.7e308], True)
@example([2.2e-311] * 3, [0.0], True)
def test_chart_is_valid_and_shows_every_prompt(benign, marks, finite):
    lanes = [Lane("all", [Marker(i, score, "<&>", i % 2 == 0) for i, score in enumerate(marks, 1)])]
    svg = ElementTree.fromstring(chart(benign, lanes, max(benign) if finite else math.inf, 0.01))
    assert {link.get("href") for link in svg.iter("a")} == {f"#prompt-{i}" for i in range(1, len(marks) + 1)}
    assert "nan" not in ElementTree.tostring(svg, "unicode")


def test_showcase_prompts_are_of_the_reported_split():
    chosen = showcase.prompts()
    assert len(chosen) == 12 and {caption.split for caption in chosen} == {"eval"}
    assert sum(caption.kind in ("verbatim", "template") for caption in chosen) == 5


def test_sampling_is_private_and_repeatable():
    pipe = pipelines.build("sd1")
    config, state = dict(pipe.scheduler.config), torch.random.get_rng_state()
    calls = []
    first = showcase.sample(pipe, ["a", "b", "c", "d", "e"], 2, steps=2, progress=lambda *step: calls.append(step))
    again = showcase.sample(pipe, ["e"], 2, steps=2)
    assert first.shape == (5, 2, 16, 16, 3) and first.dtype == np.uint8 and calls[-1] == (10, 10)
    assert np.abs(first[4].astype(int) - again[0]).max() <= 1
    assert not np.array_equal(first[0, 0], first[0, 1])
    assert torch.equal(torch.random.get_rng_state(), state) and dict(pipe.scheduler.config) == config


@pytest.fixture
def tiny_demo(monkeypatch, tmp_path):
    """The demo command on a tiny model; a gallery of two images of its size."""
    from cryptomnesia.adapters import to_denoiser

    pipe = pipelines.build("sd1")
    denoiser = to_denoiser(pipe)
    calibration = calibrate(denoiser, denoiser.encode([f"{a}{b}" for a in "abcdefghij" for b in "klmnopqrst"]))
    images = np.stack([np.full((16, 16, 3), value, np.uint8) for value in (60, 180)])
    gallery = Gallery(select("verbatim")[:2], images, np.ones((2, 16, 16), bool))
    monkeypatch.setattr("cryptomnesia.demo.load_demo", lambda: pipe)
    monkeypatch.setattr("cryptomnesia.demo.demo_calibration", lambda: calibration)
    monkeypatch.setattr(Gallery, "load", staticmethod(lambda: gallery))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_demo_command(tiny_demo, capsys):
    assert run(["demo", "--seeds", "2", "--no-open"]) == 0
    out, err = capsys.readouterr()
    prompts = [caption.text for caption in showcase.prompts()]
    assert all(prompt in out for prompt in prompts) and "cryptomnesia-demo/index.html" in out
    assert err == ""
    assert sorted(file.name for file in (tiny_demo / "cryptomnesia-demo").iterdir()) == ["index.html", "report.json"]
    html = (tiny_demo / "cryptomnesia-demo" / "index.html").read_text(encoding="utf-8")
    found = parsed(html)
    assert found.seen.count("img") == 12 * 3 and found.seen.count("article") == 12
    written = json.loads((tiny_demo / "cryptomnesia-demo" / "report.json").read_text())
    assert [entry["report"]["prompt"] for entry in written["prompts"]] == prompts
    assert all(len(entry["distances"]) == 2 for entry in written["prompts"])


def test_demo_as_json_into_a_folder_that_cannot_be(tiny_demo, capsys):
    assert run(["demo", "--seeds", "1", "--no-open", "--json", "--out", "deep/er"]) == 0
    assert len(json.loads(capsys.readouterr().out)["prompts"]) == 12
    (tiny_demo / "file").write_text("")
    assert run(["demo", "--out", "file"]) == 2
    assert "a file is in the way" in capsys.readouterr().err
