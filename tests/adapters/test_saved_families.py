"""Every family's folder, as diffusers saves it, is loaded without code or pickles, and is the model that was saved."""

from pathlib import Path
from typing import Any

import pytest
import torch

from cryptomnesia import Guard
from cryptomnesia.adapters import to_denoiser
from cryptomnesia.adapters.loading import load_pipeline
from cryptomnesia.errors import InputError

from ..helpers.families import families
from ..helpers.recording import CLOSE

FAMILIES = families()


@pytest.mark.parametrize("name", FAMILIES)
def test_a_saved_folder_is_loaded_as_what_it_was(name: str, tmp_path: Path):
    pipe = FAMILIES[name].made()
    pipe.save_pretrained(tmp_path)
    loaded = load_pipeline(str(tmp_path))
    before, after = (to_denoiser(one) for one in (pipe, loaded))
    assert type(loaded) is type(pipe) and after.fingerprint == before.fingerprint
    for key, tensor in encoded(before).items():
        torch.testing.assert_close(encoded(after)[key], tensor, **CLOSE)


def encoded(denoiser: Any) -> dict[str, torch.Tensor]:
    return denoiser.encode("a cat").tensors


def test_a_scheduler_may_be_set_to_infinity_but_not_to_nan(tmp_path: Path):
    FAMILIES["sana"].made().save_pretrained(tmp_path)
    config = tmp_path / "scheduler" / "scheduler_config.json"
    assert "-Infinity" in config.read_text("utf-8")  # as diffusers writes it
    config.write_text(config.read_text("utf-8").replace("-Infinity", "NaN"), "utf-8")
    with pytest.raises(InputError, match="NaN is no number"):
        load_pipeline(str(tmp_path))


def test_a_folder_without_its_last_text_encoder_says_what_is_missing(tmp_path: Path):
    """HiDream's Llama is not in its own repository, and is given by hand."""
    pipe = FAMILIES["hidream"].made()
    pipe.register_modules(text_encoder_4=None, tokenizer_4=None)
    pipe.save_pretrained(tmp_path)
    with pytest.raises(InputError, match="no text encoder 4"):
        Guard(load_pipeline(str(tmp_path))).check("a cat", height=16, width=16)
