"""The page stands alone, quotes literally, and says what was found."""

from html import unescape

import numpy as np
import pytest
import torch

from cryptomnesia.benchmark.evaluation import evaluate
from cryptomnesia.benchmark.forest import AREA, forest
from cryptomnesia.benchmark.lists import Lists
from cryptomnesia.benchmark.methods import METHODS
from cryptomnesia.benchmark.page import BenchmarkPage, Cost, Exhibit, Generated, KindMade, render
from cryptomnesia.benchmark.reproduction import Reproduction
from cryptomnesia.calibration import Calibration, Combination

from ..helpers.markup import parsed, words

BAD = '<script>alert("x")</script> & co'


def evaluated(count=30, bad=BAD, negatives="others"):
    rng = np.random.default_rng(0)
    benign = rng.normal(0, 1, 200).tolist()
    calibration = Calibration(
        "f", "sd", "torch.float32", (4, 8, 8), 4, 0.01, 0, "2026-01-01", Combination([1.0] * 8), benign
    )
    lists = Lists({"VM": [bad, *(f"v{i}" for i in range(count - 1))]}, {negatives: [f"o{i}" for i in range(count)]})
    scores = torch.from_numpy(np.concatenate([rng.normal(5, 1, count), rng.normal(0, 1, count)]))
    scores[0] = 0  # so that it is missed
    return evaluate(lists, {method.key: scores for method in METHODS}, calibration, rounds=20), calibration


def page(generated=None, notes=(), count=30):
    found, calibration = evaluated(count)
    cost = Cost(1234, 12.34, 6.0, len(found.prompts))
    facts = [("model", "<tiny>")]
    return render(BenchmarkPage("<tiny>", found, calibration, "200 others", cost, list(notes), generated, facts))


def test_it_stands_alone_and_says_what_was_found():
    html = page(notes=["only 3 <b>prompts</b>"])
    found = parsed(html)
    assert "script" not in found.seen and "img" not in found.seen and found.seen.count("svg") == 2
    assert "://" not in html and "url(" not in html and "@import" not in html
    assert BAD not in html and "&lt;script&gt;" in html and "&lt;tiny&gt;" in html and "only 3 &lt;b&gt;" in html
    text = unescape(words(html))
    flagged = evaluated()[0].groups[0].flagged
    assert f"VM: {flagged} of 30" in text and 20 < flagged < 30
    assert "next to others, 30 prompts" in text and "1,234 rows of the network" in text and "100 ms" in text
    assert "VM (verbatim)" in text and "Of fewer than 100 (others) 1 % is none" in text
    assert all(method.name in text for method in METHODS)
    assert "--generate 4" in text and "Really reproduced" not in text


@pytest.mark.parametrize("reference", [None, np.full((8, 8, 3), 7, np.uint8)])
def test_images_are_shown_where_there_are_any(reference):
    about = Reproduction(1.0, 0.01, None if reference is None else [0.12, 0.31])
    images = np.random.default_rng(0).integers(0, 256, (2, 8, 8, 3), dtype=np.uint8)
    exhibit = Exhibit(BAD, True, about, images, reference)
    made = Generated([5, 6], "DDIM, 30 steps", [KindMade("VM", 30, 29, 0 if reference is None else 1)], [exhibit])
    html = page(made)
    assert parsed(html).seen.count("img") == 2 + (reference is not None)
    text = words(html)
    assert "DDIM, 30 steps" in text and "29 of 30" in text and "--generate 4" not in text
    assert ("seed 5 seed 6" in text) == (reference is None) and ("reference 0.12 away 0.31 away" in text) == (
        reference is not None
    )
    assert ("1 have a reference" in text) == (reference is not None)


def test_rates_lie_on_their_axis():
    found, _ = evaluated()
    chart = forest(found.positives[0], found.pairs, {"others": 30})
    left, right = AREA
    for row in chart.lists[0].rows:
        assert left <= row.area.left <= row.area.x <= row.area.right <= right
        assert row.area.x == pytest.approx(left + (right - left) * found.pairs[0].methods[row.method.key].auc.value)
    assert [row.own for row in chart.lists[0].rows] == [method.key == "default" for method in METHODS]
