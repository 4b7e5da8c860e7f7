"""LoRAs of known truth: which captions they see, and that a recipe leaves a file that can be read and goes on."""

from pathlib import Path

import pytest
import torch
from PIL import Image

from cryptomnesia.lora import read_lora
from training.zoo import reproducing
from training.zoo.reproducing import RECIPES, Recipe, captions_of, left_out


def test_no_caption_is_asked_of_two_loras_and_none_of_the_model_itself():
    of_each = {made.name: [c.text for part in captions_of(made) for c in part] for made in RECIPES}
    everything = [text for texts in of_each.values() for text in texts]
    assert len(everything) == len(set(everything)) == sum(r.memorized + r.varied for r in RECIPES)
    for made in RECIPES:
        unseen = {c.text for c in left_out(made, 99)}
        assert len(unseen) >= 10 and not unseen & set(everything)


def test_a_recipe_writes_a_lora_that_tells_its_captions_and_resumes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(reproducing, "WEIGHTS", tmp_path)
    monkeypatch.setattr(reproducing, "EVERY", 1)
    monkeypatch.setattr(reproducing, "image", lambda caption, number: Image.new("RGB", (64, 64), (number, 90, 40)))
    made = Recipe("tiny", "dev", memorized=1, varied=1, renderings=2, steps=2, rank=2)
    with torch.random.fork_rng(devices=[]):
        with monkeypatch.context() as patch:
            patch.setattr(reproducing, "write_lora", lambda *arguments: 1 / 0)
            with pytest.raises(ZeroDivisionError):
                reproducing.train(made, tmp_path)
        assert (tmp_path / "tiny.state.safetensors").exists()
        reproducing.train(made, tmp_path)
    assert not (tmp_path / "tiny.state.safetensors").exists()
    read = read_lora(tmp_path / "tiny" / "lora.safetensors")
    texts = [c.text for part in captions_of(made) for c in part]
    assert [p.text for p in read.prompts()] == ["tiny", *sorted(texts)]
    assert read.ranks == [2] and read.format == "kohya" and len(read.updates) == 92
    assert any(update.delta().abs().max() > 0 for update in read.updates.values())
