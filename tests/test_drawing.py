"""What all pictures share: lines that fit, bars and colour scales."""

import numpy as np

from cryptomnesia.drawing import (
    BAR,
    GROUND,
    PAPER,
    SCALE,
    STRONG,
    blank,
    colours,
    cut,
    draw_bar,
    draw_scale,
    text_width,
    wrapped,
    write_lines,
)

WORDS = "a note that says what it rests on, at such a length that it is broken into several lines"


def test_lines_fit():
    lines = wrapped(WORDS, 120, 12)
    assert len(lines) > 2 and " ".join(lines) == WORDS and all(text_width(line, 12) <= 120 for line in lines)
    assert cut("short", 120, 12) == "short" and cut("m" * 100, 120, 12).endswith("...")
    assert text_width(cut("m" * 100, 120, 12), 12) <= 120


def test_lines_lie_below_each_other():
    image, draw = blank(80, 70)
    write_lines(draw, (5, 5), ["aaa", "bbb", "ccc"], 12, (0, 0, 0), apart=20)
    rows = (np.asarray(image).min((1, 2)) < 100).nonzero()[0]
    assert {(row - 5) // 20 for row in rows} == {0, 1, 2} and rows.max() < 65


def test_a_bar_is_as_long_as_its_value():
    for filled in (None, 1, 40):
        image, draw = blank(200, BAR)
        draw_bar(draw, (60, 0), 100, filled, "a", "1", colour=STRONG, chosen=True)
        row = np.asarray(image)[8, 60:161]
        expected = 0 if filled is None else filled + 1
        assert (row == STRONG).all(1).sum() == expected and (row == GROUND).all(1).sum() == 101 - expected


def test_a_scale_runs_from_the_highest_value_down():
    image, draw = blank(40, 110)
    draw_scale(draw, (5, 5), 100)
    column = np.asarray(image)[6:104, 5 + SCALE // 2]
    assert np.array_equal(column, colours(np.linspace(1, 0, 100))[1:99]) and tuple(np.asarray(image)[0, 0]) == PAPER
