"""No number that is not finite takes part in an attribution or an identification."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch import Tensor

from cryptomnesia.attribution import Signatures
from cryptomnesia.attribution.attribute import answers
from cryptomnesia.attribution.combination import learn
from cryptomnesia.attribution.evidence import Evidence
from cryptomnesia.attribution.gaussian import Gaussian, shrunk_covariance
from cryptomnesia.attribution.identify import identify_signatures, svm_votes
from cryptomnesia.attribution.verification import Verifier
from cryptomnesia.errors import InputError
from cryptomnesia.signals.spectral import cosine_distance, length

STEADY = settings(deadline=None, derandomize=True, max_examples=15)
ODD = st.sampled_from([float("nan"), float("inf"), float("-inf")])
IMAGES, MAKERS, NUMBERS = 24, 3, 14
MAKER = torch.arange(IMAGES) % MAKERS


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def evidence(values: Tensor) -> Evidence:
    """Each maker's own images have smaller numbers under it."""
    own = torch.nn.functional.one_hot(MAKER[: len(values)], MAKERS)[..., None]
    values = values - 2 * own
    return Evidence(("ada", "bo", "cy"), {"empty": values[..., :9], "clean": values[..., 9:]})


KNOWN = learn(evidence(noise(IMAGES, MAKERS, NUMBERS)), MAKER, ["1", "2", "3"])
GAUSSIAN = Gaussian.learn(noise(IMAGES, 4), MAKER, MAKERS)
VERIFIER = Verifier.learn(noise(IMAGES, MAKERS, 4), MAKER)


def signed(name: str, seed: int) -> Signatures:
    values = noise(4, length("1step"), seed=seed).abs().float()
    return Signatures(name, name, "f", "torch.float32", (4, 8, 8), "1step", 1, False, values, torch.zeros(1, 4, 8, 8))


LIBRARY = [signed("ada", 1), signed("bo", 2)]
FUNCTIONS: dict[str, tuple[tuple[int, ...], Callable[[Tensor], Any]]] = {
    "learn": ((IMAGES, MAKERS, NUMBERS), lambda v: learn(evidence(v), MAKER, ["1", "2", "3"])),
    "judge": ((2, MAKERS, NUMBERS), lambda v: KNOWN.judge(evidence(v))),
    "answers": ((2, MAKERS, NUMBERS), lambda v: answers(evidence(v), KNOWN)),
    "answers without": ((2, MAKERS, NUMBERS), lambda v: answers(evidence(v), None)),
    "Gaussian.learn": ((IMAGES, 4), lambda v: Gaussian.learn(v, MAKER, MAKERS)),
    "Gaussian.distance": ((2, 4), lambda v: GAUSSIAN.distance(v)),
    "shrunk_covariance": ((6, 4), shrunk_covariance),
    "Verifier.learn": ((IMAGES, MAKERS, 4), lambda v: Verifier.learn(v, MAKER)),
    "Verifier.score": ((2, MAKERS, 4), lambda v: VERIFIER.score(v)),
    "cosine_distance": ((2, 5), lambda v: cosine_distance(v[:1], v[1:])),
    "identify_signatures": ((2, length("1step")), lambda v: identify_signatures(v, LIBRARY)),
    "svm_votes": ((2, length("1step")), lambda v: svm_votes(v, LIBRARY)),
    "library": (
        (4, length("1step")),
        lambda v: identify_signatures(LIBRARY[0].values, [replace(LIBRARY[1], values=v)]),
    ),
}


@pytest.mark.parametrize("name", FUNCTIONS)
@given(place=st.integers(0, 10**6), odd=ODD)
@example(place=0, odd=float("nan"))
@STEADY
def test_no_number_may_be_odd(name, place, odd):
    shape, function = FUNCTIONS[name]
    values = noise(*shape)
    function(values)
    values.view(-1)[place % values.numel()] = odd
    with pytest.raises(InputError, match="NaN or infinity") as error:
        function(values)
    assert "\n" not in str(error.value)


def test_no_signature_is_no_question():
    with pytest.raises(InputError, match="no signature was given"):
        identify_signatures(torch.zeros(0, length("1step")), LIBRARY)
