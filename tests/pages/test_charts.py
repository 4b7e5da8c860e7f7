"""The charts of scores: every prompt is seen, in order, and none hides another."""

import math
from itertools import pairwise
from xml.etree import ElementTree

from hypothesis import example, given
from hypothesis import strategies as st

from cryptomnesia.pages.axis import Axis
from cryptomnesia.pages.frame import templates
from cryptomnesia.pages.strip import STEP, Lane, Marker, chart, levels

scores = st.floats(-1e4, 1e4)
any_scores = st.floats(allow_nan=False, allow_infinity=False)


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
    laid_out = chart(benign, lanes, max(benign) if finite else math.inf, 0.01)
    svg = ElementTree.fromstring(templates().get_template("pages/charts.html").module.strip(laid_out))
    assert {link.get("href") for link in svg.iter("a")} == {f"#prompt-{i}" for i in range(1, len(marks) + 1)}
    assert "nan" not in ElementTree.tostring(svg, "unicode")
