"""Captions of pictures are there as a whole."""

import numpy as np
import pytest
import torch

from cryptomnesia import drawing
from cryptomnesia.attribution import plots
from cryptomnesia.signals.spectral import PLANS, length


@pytest.fixture
def written(monkeypatch):
    """All lines, each with where it ends; and the pictures that they are on."""
    found, original = [], plots.write

    def write(draw, place, words, size, colour, anchor="la"):
        if anchor == "la":
            found.append((words, place[0] + plots.text_width(words, size)))
        original(draw, place, words, size, colour, anchor)

    for module in (plots, drawing):
        monkeypatch.setattr(module, "write", write)
    return found


@pytest.mark.parametrize("plan", list(PLANS))
def test_captions_of_a_signature_fit(written, plan):
    picture = plots.signature_plot(torch.rand(length(plan)), plan=plan, title="Signature of " + "m" * 200)
    assert all(end <= picture.width - plots.MARGIN for _, end in written)
    assert not any(words.endswith("...") for words, _ in written[1:])  # the title is the user's


class Answer:
    """As much of an attribution as is drawn."""

    def __init__(self):
        self.decision = "a model with a long name"
        self.probabilities = {self.decision: 0.7, "b": 0.3}
        self.distances = {self.decision: 1.0, "b": 2.0}

    def headline(self):
        return "If all showed the same subjects: likely made by a model with a long name, or so it seems to be, indeed"

    def notes(self):
        return ["A note that says what it rests on, at such a length that it must be broken into several lines. " * 2]


def test_captions_of_an_attribution_fit(written):
    picture = plots.attribution_plot(Answer())  # type: ignore[arg-type]
    text = " ".join(words for words, _ in written)
    assert Answer().headline() in text and Answer().notes()[0].strip() in text
    assert all(end <= picture.width - plots.MARGIN for _, end in written)
    assert (np.asarray(picture)[-8:] == np.asarray(picture)[-1, 0]).all()  # nothing reaches the edge below
