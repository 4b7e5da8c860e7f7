"""The recipe of the built-in model runs from nothing to checkpoints, and resumes."""

import logging

import pytest
import torch
from PIL import Image

from cryptomnesia.demo.captions import captions
from training.demo import networks, train
from training.demo.records import Record


@pytest.fixture
def small(monkeypatch):
    """One image per trained caption, small batches, no font needed."""
    records = [Record(c, 0) for c in captions() if c.kind not in ("general", "unseen") or c.index < 8]
    records = [r for r in records if r.caption.kind != "unseen"]
    monkeypatch.setattr(train, "training_records", lambda: records)
    monkeypatch.setattr(train, "render", lambda r: Image.new("RGB", (64, 64), (r.caption.index % 256, 90, 40)))
    monkeypatch.setattr(train, "BATCH", 8)
    monkeypatch.setattr(train, "CHECKPOINTS", 2)


def test_from_nothing_to_checkpoints_and_on(small, tmp_path, caplog):
    caplog.set_level(logging.INFO)
    tokenizer = networks.train_tokenizer([c.text for c in captions()], tmp_path / "tokenizer")
    assert tokenizer("the solemn baker")["input_ids"][0] == tokenizer.bos_token_id
    train.train_autoencoder(tmp_path, 1)
    train.encode_all(tmp_path)
    train.train_unet(tmp_path, 2)
    assert sorted(p.name for p in (tmp_path / "checkpoints").iterdir()) == ["000001", "000002"]
    train.train_unet(tmp_path, 4)
    assert "resumed at step 2" in caplog.text
    unet = networks.UNet2DConditionModel.from_pretrained(tmp_path / "checkpoints" / "000004" / "unet")
    assert unet.config["cross_attention_dim"] == networks.TEXT_WIDTH
    assert not list(tmp_path.rglob("*.tmp"))


def test_titles_are_drawn_equally_often(small):
    sampler = train.Sampler(seed=0)
    counts = {}
    for _ in range(600):
        numbers, texts = sampler.batch(step=0)
        assert len(numbers) == len(texts) == 8
        for number in numbers:
            caption = sampler.records[number].caption
            counts[caption.kind] = counts.get(caption.kind, 0) + 1
    titles = {k: counts[k] / len([c for c in captions() if c.kind == k]) for k in ("verbatim", "template", "control")}
    assert max(titles.values()) < 1.25 * min(titles.values())
    assert counts["general"] == 600 * 4


def test_a_saved_state_is_the_training_itself(tmp_path):
    def fresh():
        torch.manual_seed(0)
        model = torch.nn.Linear(3, 2)
        return model, torch.optim.AdamW(model.parameters(), 0.1), {k: v.clone() for k, v in model.state_dict().items()}

    def advance(model, optimizer, average):
        model(torch.ones(1, 3)).square().sum().backward()
        optimizer.step()
        optimizer.zero_grad()
        average["bias"].add_(1)

    going = fresh()
    advance(*going)
    train.save_state(tmp_path / "state.safetensors", 7, *going)
    resumed = fresh()
    assert train.load_state(tmp_path / "state.safetensors", *resumed) == 7
    for training in (going, resumed):
        advance(*training)
    for name, value in going[0].state_dict().items():
        assert torch.equal(value, resumed[0].state_dict()[name])
    assert torch.equal(going[2]["bias"], resumed[2]["bias"])
