"""What is peculiar to the folders of some families, as diffusers saves them."""

from pathlib import Path

import pytest

from cryptomnesia import Guard
from cryptomnesia.adapters.loading import load_pipeline
from cryptomnesia.errors import InputError

from ..helpers.families import families

FAMILIES = families()


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
