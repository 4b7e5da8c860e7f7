"""A monitor says when a training begins to memorize, and leaves the training as it was."""

import itertools
import json
import random
from typing import Any

import numpy as np
import pytest
import torch

from cryptomnesia import CallableDenoiser, MemorizationMonitor
from cryptomnesia.errors import InputError
from cryptomnesia.monitoring.judging import at_least, chance, share_interval
from cryptomnesia.monitoring.parts import unwrapped
from training.zoo import lora

from ..helpers import pipelines

TRAINED = [f"trained {i}" for i in range(6)]
BENIGN = [f"benign {i}" for i in range(120)]
LETTERS = [f"{a} {b} {c}" for a, b, c in itertools.product("abcdef", "ghijk", "lmnop")]  # what tiny tokenizers read
SHAPE = (3, 4, 4)


class Toy:
    """A model whose guidance is the same strength for all captions, save those that it has learned."""

    def __init__(self) -> None:
        self.learned: dict[str, float] = {}
        self.broken = False
        strengths = np.random.default_rng(5).uniform(0.5, 1.5, 10_000)
        numbers = itertools.count()
        self._own: dict[str, float] = {}
        self._strength = lambda text: self._own.setdefault(text, float(strengths[next(numbers)]))

    def encode(self, texts: list[str]) -> torch.Tensor:
        for text in texts:
            self._strength(text)
        return torch.tensor([[[float(list(self._own).index(text) + 1)]] for text in texts])

    def __call__(self, x: torch.Tensor, t: torch.Tensor, text: torch.Tensor) -> torch.Tensor:
        names = list(self._own)
        rows = text[:, 0, 0].long().tolist()
        pull = [0.0 if not row else self.learned.get(names[row - 1], self._own[names[row - 1]]) for row in rows]
        bad = float("nan") if self.broken else 0.0
        return x + bad + torch.tensor(pull).view(-1, 1, 1, 1)

    def denoiser(self) -> CallableDenoiser:
        alphas = torch.linspace(0.9999, 0.005, 1000)
        empty = torch.zeros(1, 1, 1)
        return CallableDenoiser(self, alphas, empty=empty, latent_shape=SHAPE, encode=self.encode, fingerprint="toy")


def toy_monitor(**options: Any) -> tuple[Toy, MemorizationMonitor]:
    toy = Toy()
    return toy, MemorizationMonitor(toy.denoiser(), TRAINED, BENIGN, draws=1, **options)


# --- what is more than chance ---


def test_chance_counts_every_order_of_trained_and_benign():
    trained, benign, allowed = 3, 4, 2
    hits = []
    for places in itertools.combinations(range(trained + benign), trained):  # from the highest score down
        others = [place for place in range(trained + benign) if place not in places]
        hits.append(sum(place < others[allowed - 1] for place in places))
    for least in range(trained + 1):
        expected = sum(hit >= least for hit in hits) / len(hits)
        assert chance(least, trained, benign, allowed) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize(("hits", "of"), [(0, 10), (3, 10), (10, 10), (1, 64), (0, 1)])
def test_intervals_are_those_of_scipy(hits, of):
    stats = pytest.importorskip("scipy.stats")
    expected = stats.binomtest(hits, of).proportion_ci(0.95, "exact")
    assert share_interval(hits, of) == pytest.approx((expected.low, expected.high), abs=1e-9)
    assert at_least(hits, of, 0.3) == pytest.approx(stats.binom.sf(hits - 1, of, 0.3), abs=1e-12)


# --- the course of a training ---


def test_it_takes_off_when_captions_are_learned_and_not_before():
    toy, monitor = toy_monitor()
    toy.learned[TRAINED[0]] = 9.0  # before the training began
    first = monitor(0)
    assert (first.flagged, first.already, first.newly, first.took_off) == (1, 1, 0, False)
    assert not monitor(1).took_off
    toy.learned[TRAINED[1]] = 8.0
    assert (monitor(2).newly, monitor.should_stop) == (1, False)  # one may be chance
    toy.learned |= dict.fromkeys(TRAINED[2:], 7.0)
    record = monitor(3)
    assert (record.flagged, record.share, record.took_off) == (6, 1.0, True)
    assert [found.caption for found in record.worst[:2]] == TRAINED[:2]
    assert monitor.should_stop and monitor.take_off == record
    assert sum(r.level for r in monitor.history[1:]) < monitor.significance


def test_benign_captions_that_are_learned_too_raise_no_alarm():
    toy, monitor = toy_monitor()
    monitor(0)
    toy.learned |= dict.fromkeys([*TRAINED, *BENIGN], 9.0)
    record = monitor(1)
    assert not record.took_off and record.flagged in (0, len(TRAINED))


def test_a_network_that_answers_nan_stops_no_training():
    toy, monitor = toy_monitor()
    monitor(0)
    toy.broken = True
    record = monitor(1)
    assert record.share is None and "NaN" in (record.reason or "") and "nothing measured" in str(record)
    toy.broken = False
    assert monitor(2).share == 0.0


def test_captions_are_sampled_once_and_none_of_them_is_benign():
    toy = Toy()
    monitor = MemorizationMonitor(toy.denoiser(), [*BENIGN[:9], "", BENIGN[0]], BENIGN, most=4, draws=1)
    assert len(monitor.captions) == len(set(monitor.captions)) == 4
    assert not set(BENIGN[:9]) & set(monitor.benign) and len(monitor.benign) == 100


# --- its log ---


def test_a_log_goes_on_and_keeps_captions_private(tmp_path):
    file = tmp_path / "log.jsonl"
    toy, monitor = toy_monitor(log=file)
    toy.learned[TRAINED[0]] = 9.0
    first = monitor(0)
    assert TRAINED[0] not in file.read_text() and len(file.read_text().splitlines()) == 2
    toy, again = toy_monitor(log=file)
    assert again.history == [first] and again.history[0].worst[0].caption == TRAINED[0]
    toy.learned |= dict.fromkeys(TRAINED, 9.0)
    assert (again(1).already, again.should_stop) == (1, True)
    assert json.loads(file.read_text().splitlines()[-1])["took_off"] is True
    with pytest.raises(InputError, match="does not come after 1"):
        again(1)
    with pytest.raises(InputError, match="other captions or settings"):
        toy_monitor(log=file, seed=1)
    file.write_text("{}\n{broken")
    with pytest.raises(InputError, match="no monitor's log"):
        toy_monitor(log=file)
    assert file.read_text() == "{}\n{broken"


def test_captions_are_written_where_asked(tmp_path):
    _, monitor = toy_monitor(log=tmp_path / "log.jsonl", log_captions=True)
    monitor(0)
    _, again = toy_monitor(log=tmp_path / "log.jsonl", log_captions=True)
    assert again.history == monitor.history and "trained" in (tmp_path / "log.jsonl").read_text()


def test_the_picture_marks_where_it_took_off():
    toy, monitor = toy_monitor()
    with pytest.raises(InputError, match="nothing to draw"):
        monitor.plot()
    monitor(0)
    calm = np.asarray(monitor.plot())
    toy.learned |= dict.fromkeys(TRAINED, 9.0)
    monitor(1)
    alarm = np.asarray(monitor.plot())
    red = np.array((176, 62, 44))
    assert calm.shape == alarm.shape and (alarm == red).all(-1).sum() > 100 and not (calm == red).all(-1).any()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"captions": []}, "no captions"),
        ({"captions": "one text"}, "list of texts"),
        ({"captions": ["ok", "\x00"]}, "caption 2 of 2"),
        ({"captions": [3]}, "no text"),
        ({"benign": BENIGN[:50]}, "50 benign prompts are too few"),
        ({"alpha": 0.001}, "cannot promise"),
        ({"significance": 0}, "significance"),
        ({"most": 0}, "most is 0"),
        ({"draws": 0}, "at least one noise draw"),
        ({"pipe": None}, "give a pipeline, or its parts: unet and text_encoder"),
    ],
)
def test_bad_input_is_one_line(options, message):
    with pytest.raises(InputError, match=message):
        MemorizationMonitor(**{"pipe": Toy().denoiser(), "captions": TRAINED, "benign": BENIGN, **options})


@pytest.mark.parametrize("epoch", [float("nan"), True, "1", None])
def test_epochs_are_numbers(epoch):
    with pytest.raises(InputError, match="the epoch is a number"):
        toy_monitor()[1](epoch)


# --- the training is left as it was ---


def parts_of(pipe: Any) -> dict[str, Any]:
    return {name: getattr(pipe, name) for name in ("unet", "text_encoder", "tokenizer", "scheduler")}


def trained(monitored: bool) -> list[torch.Tensor]:
    """The LoRA after a training of four steps with dropout, and with or without a monitor."""
    torch.manual_seed(0)
    pipe = pipelines.stable_diffusion()
    pipe.unet.requires_grad_(False)
    pipe.text_encoder.requires_grad_(False).eval()
    peft = pytest.importorskip("peft")
    pipe.unet.add_adapter(peft.LoraConfig(r=2, target_modules=["to_q", "to_v"], lora_dropout=0.5))
    parameters = [p for p in pipe.unet.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(parameters, 1e-2)
    monitor = MemorizationMonitor(**parts_of(pipe), captions=LETTERS[:2], benign=LETTERS[2:], draws=1)
    random.seed(1)
    np.random.seed(1)
    torch.manual_seed(1)
    pipe.unet.train()
    for step in range(4):
        with torch.autocast("cpu", torch.bfloat16):
            if monitored:
                before = [p.grad for p in parameters]
                monitor(step)
                assert all(a is b for a, b in zip(before, [p.grad for p in parameters], strict=True))
            x = torch.randn(2, 4, 8, 8) + random.random() + float(np.random.rand())
            text = pipe.text_encoder(torch.zeros(2, 77, dtype=torch.long)).last_hidden_state
            loss = pipe.unet(x, torch.tensor([100, 900]), text).sample.float().square().mean()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
    modules = [layer.training for layer in pipe.unet.modules()]
    assert all(modules) and not pipe.text_encoder.training and torch.is_grad_enabled()
    return [p.detach() for p in parameters]


def test_a_training_goes_the_same_way_with_and_without_it():
    for watched, alone in zip(trained(True), trained(False), strict=True):
        assert torch.equal(watched, alone)


def test_what_trainers_wrap_is_what_is_asked():
    torch.manual_seed(0)
    pipe = pipelines.stable_diffusion()
    peft, accelerate = pytest.importorskip("peft"), pytest.importorskip("accelerate")

    def measured(**parts: Any) -> float:
        given = {**parts_of(pipe), **parts}
        monitor = MemorizationMonitor(**given, captions=LETTERS[:1], benign=LETTERS[1:], draws=1)
        return monitor(0).worst[0].score

    whole = MemorizationMonitor(pipe, LETTERS[:1], LETTERS[1:], draws=1)(0).worst[0].score
    wrapped = {
        "compiled": torch.compile(pipe.unet),
        "parallel": type("DistributedDataParallel", (torch.nn.Module,), {})(),
        "accelerated": accelerate.Accelerator(cpu=True).prepare(pipe.unet),
    }
    wrapped["parallel"].module = pipe.unet
    assert measured() == whole
    for name, network in wrapped.items():
        assert measured(unet=network) == whole, name
    adapted = peft.get_peft_model(pipe.unet, peft.LoraConfig(r=2, target_modules=["to_q"], init_lora_weights=False))
    assert measured(unet=adapted) != whole
    assert unwrapped(torch.compile(adapted)) is adapted.get_base_model()
    sharded = type("FullyShardedDataParallel", (torch.nn.Module,), {})()
    with pytest.raises(InputError, match="spread over several processes"):
        measured(unet=sharded)


def test_text_encoders_that_are_trained_are_read_again():
    torch.manual_seed(0)
    pipe = pipelines.stable_diffusion()
    monitor = MemorizationMonitor(pipe, LETTERS[:1], LETTERS[1:], draws=1)
    first = monitor(0).worst[0].score
    layer = pipe.text_encoder.get_input_embeddings()
    layer.weight.data.mul_(torch.linspace(0.1, 3, len(layer.weight))[:, None])  # as optimizers do, unseen
    assert monitor(1).worst[0].score != first
    pipe.text_encoder.requires_grad_(False)
    second = monitor(2).worst[0].score
    pipe.text_encoder.to("meta")  # as where captions are read once, and the encoder makes room
    assert monitor(3).worst[0].score == second  # frozen, they are read once


def test_low_rank_parametrizations_and_xl_are_followed():
    torch.manual_seed(0)
    pipe = pipelines.stable_diffusion_xl()
    parts = {
        "unet": pipe.unet,
        "text_encoder": [pipe.text_encoder, pipe.text_encoder_2],
        "tokenizer": [pipe.tokenizer, pipe.tokenizer_2],
        "scheduler": pipe.scheduler,
    }
    parameters = lora.add(pipe.unet, 2)
    monitor = MemorizationMonitor(**parts, captions=LETTERS[:1], benign=LETTERS[1:], draws=1)
    first = monitor(0).worst[0].score
    assert monitor(1).worst[0].score == first
    with torch.no_grad():
        for parameter in parameters:
            parameter.add_(0.3)
    assert monitor(2).worst[0].score != first
    with pytest.raises(InputError, match="2 text encoders and 1 tokenizers"):
        MemorizationMonitor(**{**parts, "tokenizer": pipe.tokenizer}, captions=LETTERS[:1], benign=LETTERS[1:])
