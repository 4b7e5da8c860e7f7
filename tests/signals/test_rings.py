import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from cryptomnesia.signals.rings import RINGS, ring_energy


@given(st.integers(2, 12), st.integers(2, 12), st.integers(1, 3), st.integers(0, 99))
def test_rings_share_out_all_energy(height, width, channels, seed):
    x = torch.randn(2, channels, height, width, generator=torch.Generator().manual_seed(seed))
    assert ring_energy(x).shape == (2, RINGS)
    torch.testing.assert_close(ring_energy(x).sum(-1), x.square().sum((1, 2, 3)), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("cycles", range(8))
def test_a_wave_falls_into_its_ring(cycles):
    wave = torch.cos(2 * math.pi * cycles * torch.arange(16) / 16).expand(1, 1, 16, 16)
    # the highest frequency along one axis lies at 1 / sqrt 2 of the way to the corner
    ring = int(cycles / 16 / math.sqrt(0.5) * RINGS)
    assert ring_energy(wave)[0].argmax() == ring
    assert ring_energy(wave)[0, ring] == pytest.approx(wave.square().sum().item(), rel=1e-4)
