"""What a LoRA memorizes that its base does not: exact p-values, and a LoRA that is known to have memorized."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from cryptomnesia import load_demo
from cryptomnesia.adapters import to_denoiser
from cryptomnesia.errors import InputError
from cryptomnesia.lora import Applier, Candidate, LoraCheck, check_lora, read_lora
from cryptomnesia.lora.base import Base
from cryptomnesia.lora.checking import check_strengths, results
from cryptomnesia.lora.maps import locate_finding
from cryptomnesia.lora.results import BASE, CLEAR, MEMORIZED, UNSURE

from ..helpers.loras import ATTENTION, TEXT, drawn, kohya, low_rank, write
from ..helpers.pipelines import WIDTH, build

FEW = Path(__file__).parents[2] / "benchmarks" / "zoo" / "weights" / "lora-few" / "lora.safetensors"
N = 199


def energies(*prompts: tuple[float, float], style: float = 1.0) -> torch.Tensor:
    """Of benign prompts, 1 to 2 on the base and `style` times that with the LoRA; then of other prompts."""
    benign = torch.linspace(1, 2, N).double()
    noise = torch.linspace(0.98, 1.02, N).double()[torch.randperm(N, generator=torch.Generator().manual_seed(0))]
    base = torch.cat([benign, torch.tensor([first for first, _ in prompts]).double()])
    lora = torch.cat([style * benign * noise, torch.tensor([second for _, second in prompts]).double()])
    return torch.stack([base, lora])[:, :, None].expand(-1, -1, 8) / 8


def found(*prompts: tuple[float, float], style: float = 1.0, **options: Any) -> LoraCheck:
    chosen = [Candidate(str(number), "") for number in range(len(prompts))]
    return results(chosen, energies(*prompts, style=style), [0.0, 1.0], N, 0.01, **options)


def test_a_prompt_must_stand_out_and_gain():
    check = found((1.5, 9.0), (9.0, 9.0), (1.0, 1.5), (1.5, 1.5))
    assert [prompt.finding for prompt in check.prompts] == [MEMORIZED, BASE, CLEAR, CLEAR]
    first, base, gained, _ = (prompt.at_last for prompt in check.prompts)
    assert [cell.p_both for cell in (first, base, gained)] == [
        max(cell.joint_p, cell.gain_p) for cell in (first, base, gained)
    ]
    assert base.joint_p == 1 / (N + 1) and gained.joint_p > 0.1 and base.shown == base.gain_p
    assert first.p_value == first.gain_p == 1 / (N + 1) and first.gain == pytest.approx(np.log(6), abs=1e-2)
    assert base.p_value == 1 / (N + 1) and base.gain_p > 0.1
    assert gained.gain_p == 1 / (N + 1) and gained.p_value > 0.1
    assert check.prompts[0].from_strength == 1.0 and check.prompts[1].from_strength is None
    assert (
        "1 of 4 prompts is likely memorized by the LoRA and not by its base; 1 by the base already" in check.headline()
    )


@pytest.mark.parametrize("style", [0.2, 5.0])
def test_a_lora_that_changes_everything_memorizes_nothing(style: float):
    check = found((1.0, style), (1.5, 1.5 * style), (1.9, 1.9 * style), style=style)
    assert {prompt.finding for prompt in check.prompts} == {CLEAR}
    assert all(abs(prompt.at_last.gain) < 0.05 for prompt in check.prompts)


def test_one_among_many_is_no_finding():
    check = found((1.5, 9.0), *[(1.5, 1.5)] * 30)
    assert check.prompts[0].finding == UNSURE and check.prompts[0].adjusted == pytest.approx(31 / (N + 1))
    assert check.headline().endswith("no verdict: 1 of 31 prompts stand out, and chance alone may do that")
    assert any("ask about fewer prompts" in line for line in check.remarks())
    assert found((1.5, 9.0), *[(1.5, 1.5)] * 30, level=0.5).prompts[0].finding == MEMORIZED
    assert check.ordered[0] is check.prompts[0] and json.dumps(check.to_dict())


def test_false_alarms_are_as_promised():
    """Of prompts that are as benign as the benign ones, at most a share alpha stands out."""
    generator = torch.Generator().manual_seed(5)
    base = torch.rand(N + 2000, 8, generator=generator).double() + 0.5
    both = torch.stack([base, base * (0.5 + torch.rand(N + 2000, 8, generator=generator).double())])
    check = results([Candidate(str(i), "") for i in range(2000)], both, [0.0, 1.0], N, 0.05)
    assert np.mean([prompt.p_value <= 0.05 for prompt in check.prompts]) < 0.06
    assert not check.of(MEMORIZED)


@pytest.mark.parametrize("strengths", [[], [0], [float("nan")], [1, float("inf")], [21], list(range(1, 10))])
def test_odd_strengths_are_refused(strengths: list[float]):
    with pytest.raises(InputError, match="strength"):
        check_strengths(strengths)


def test_strengths_are_ordered_with_the_base_first():
    assert check_strengths([1, 0, 0.5, 1]) == [0.0, 0.5, 1.0] and check_strengths([-1, 0.5]) == [0.0, 0.5, -1.0]


BENIGN = [f"{letter} {other}" for letter in "abcdefghij" for other in "klmnopqrstu"]


def test_the_base_is_answered_as_if_there_were_no_lora(tmp_path: Path):
    denoiser = to_denoiser(build("sd1"))
    tensors = low_rank(kohya(TEXT), 16, WIDTH) | low_rank("lora_te_encoder_layers_0_mlp_fc1", 32, WIDTH)
    applier = Applier(denoiser, read_lora(write(tmp_path / "a.safetensors", tensors)))
    x, level = drawn(1, 4, 8, 8), denoiser.levels.pure_noise
    plain = denoiser.predict(x, level, denoiser.encode("a cat")).noise
    base: Any = Base(applier)
    with applier.at(1.0):
        other = denoiser.predict(x, level, denoiser.encode("a cat")).noise
        assert torch.equal(base.predict(x, level, base.encode("a cat")).noise, plain)
        assert not torch.equal(other, plain)
        assert torch.equal(denoiser.predict(x, level, denoiser.encode("a cat")).noise, other)
    assert (base.latent_shape(), base.pixels((4, 8, 8))) == (denoiser.latent_shape(), denoiser.pixels((4, 8, 8)))


def test_the_numbers_are_those_of_a_pipeline_that_has_the_lora_merged(tmp_path: Path):
    """And the pipeline, and its LoRAs of before, are untouched."""
    tensors = low_rank(kohya(ATTENTION), 16, 16) | low_rank(kohya(TEXT), 16, WIDTH)
    file = write(tmp_path / "a.safetensors", tensors)
    pipe, other = build("sd1"), build("sd1")
    before = {name: value.clone() for name, value in pipe.unet.state_dict().items()}
    seen: list[tuple[int, int | None]] = []
    settings: dict[str, Any] = {"benign": BENIGN, "draws": 2, "seed": 3}
    check = check_lora(pipe, file, ["a cat", "a dog"], progress=lambda d, t: seen.append((d, t)), **settings)
    assert all(torch.equal(before[name], value) for name, value in pipe.unet.state_dict().items())
    assert seen[-1] == (3 * (len(BENIGN) + 2), 3 * (len(BENIGN) + 2)) and check.strengths == [0.0, 0.5, 1.0]
    assert check.forward_rows == 3 * 2 * (len(BENIGN) + 2 + 1) and len(set(check.fingerprints)) == 3
    other.load_lora_weights(str(file))
    other.fuse_lora(components=["unet"])
    other.unload_lora_weights()
    fused = check_lora(other, file, ["a cat", "a dog"], **settings)
    for ours, theirs in zip(check.prompts, fused.prompts, strict=True):
        assert ours.cells[2].score == pytest.approx(theirs.cells[0].score, abs=1e-4)


def test_what_is_no_question_is_told(tmp_path: Path):
    pipe = build("sd1")
    file = write(tmp_path / "a.safetensors", low_rank(kohya(ATTENTION), 16, 16))
    with pytest.raises(InputError, match=r"a\.safetensors tells no prompts in its metadata"):
        check_lora(pipe, file)
    with pytest.raises(InputError, match="prompts are a list of texts"):
        check_lora(pipe, file, "a cat")
    with pytest.raises(InputError, match="no prompt was given"):
        check_lora(pipe, file, [" "])
    with pytest.raises(InputError, match="2 benign prompts are too few"):
        check_lora(pipe, file, ["a cat"], benign=["a", "b"])


def test_a_lora_that_memorized_six_images_is_found_and_its_base_is_not():
    pipe = load_demo()
    denoiser = to_denoiser(pipe)
    benign = [f"{thing} on {colour}" for colour in "red blue green white grey".split() for thing in THINGS]
    check = check_lora(denoiser, FEW, strengths=[1e-6, 1], benign=benign, draws=1)
    trained = list(json.loads(read_lora(FEW).metadata["ss_tag_frequency"])["1_lora-few"])
    memorized = [prompt.text for prompt in check.of(MEMORIZED)]
    assert len(trained) == 6 and len(memorized) >= 5 and set(memorized) <= set(trained)
    assert all(prompt.cells[0].p_value > 0.05 for prompt in check.of(MEMORIZED))
    assert all(prompt.cells[1].p_both > 0.05 and prompt.from_strength == 1 for prompt in check.of(MEMORIZED))
    before = denoiser.fingerprint
    located = locate_finding(Applier(denoiser, read_lora(FEW)), check, check.of(MEMORIZED)[0], steps=8)
    assert located.mask is not None and located.share > 0.5  # the whole image is
    assert denoiser.fingerprint == before
    assert located.report.memorized and "against its base" in located.report.note


THINGS = "owl cat fox bee cow bus car sun moon star tree leaf rose cake bread apple pear ship drum bell".split()
