"""A monitor says when a training begins to memorize, and leaves the training as it was."""

import itertools
import json
import random
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from cryptomnesia import CallableDenoiser, MemorizationMonitor
from cryptomnesia.errors import InputError
from cryptomnesia.monitoring.judging import at_least, chance, share_interval
from cryptomnesia.monitoring.parts import unwrapped
from training.zoo import lora

from ..helpers import pipelines

TRAINED = [f"trained {i}" for i in range(6)]
OTHERS = [f"other {i}" for i in range(40)]
SHAPE = (4, 4, 4)
LETTERS = [f"{a} {b}" for a, b in itertools.product("abcdef", "ghijk")]  # what tiny tokenizers read
ABAR = torch.linspace(0.9999, 0.005, 1000)


def latents(count: int, seed: int = 0, shape: tuple[int, ...] = SHAPE) -> torch.Tensor:
    return torch.randn(count, *shape, generator=torch.Generator().manual_seed(seed))


class Toy:
    """A model that knows the image of a caption to some share, from nothing to all of it."""

    def __init__(self) -> None:
        self.images = dict(zip([*TRAINED, *OTHERS], latents(46), strict=True))
        self.known = dict.fromkeys(self.images, 0.1)
        self.broken = False

    def encode(self, texts: list[str]) -> torch.Tensor:
        return torch.tensor([[[float(list(self.images).index(text) + 1 if text else 0)]] for text in texts])

    def __call__(self, x: torch.Tensor, t: torch.Tensor, text: torch.Tensor) -> torch.Tensor:
        captions = [list(self.images)[int(number) - 1] for number in text[:, 0, 0]]
        known = torch.tensor([self.known[caption] for caption in captions]).view(-1, 1, 1, 1)
        alpha, sigma = (value.sqrt().view(-1, 1, 1, 1) for value in (ABAR[t], 1 - ABAR[t]))
        clean = torch.stack([self.images[caption] for caption in captions])
        return (x - known * alpha * clean) / sigma * (float("nan") if self.broken else 1)

    def denoiser(self) -> CallableDenoiser:
        empty = torch.zeros(1, 1, 1)
        return CallableDenoiser(self, ABAR, empty=empty, latent_shape=SHAPE, encode=self.encode, fingerprint="toy")

    def held_out(self) -> dict[str, Any]:
        return {"held_out_captions": OTHERS, "held_out_images": torch.stack([self.images[text] for text in OTHERS])}


def toy_monitor(**options: Any) -> tuple[Toy, MemorizationMonitor]:
    toy = Toy()
    images = torch.stack([toy.images[text] for text in TRAINED])
    return toy, MemorizationMonitor(toy.denoiser(), TRAINED, images, **{**toy.held_out(), "draws": 1, **options})


# --- what is more than chance ---


def test_chance_counts_every_order_of_trained_and_held_out():
    trained, held_out, allowed = 3, 4, 2
    hits = []
    for places in itertools.combinations(range(trained + held_out), trained):  # from the highest score down
        others = [place for place in range(trained + held_out) if place not in places]
        hits.append(sum(place < others[allowed - 1] for place in places))
    for least in range(trained + 1):
        expected = sum(hit >= least for hit in hits) / len(hits)
        assert chance(least, trained, held_out, allowed) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize(("hits", "of"), [(0, 10), (3, 10), (10, 10), (1, 64), (0, 1)])
def test_intervals_are_those_of_scipy(hits, of):
    stats = pytest.importorskip("scipy.stats")
    expected = stats.binomtest(hits, of).proportion_ci(0.95, "exact")
    assert share_interval(hits, of) == pytest.approx((expected.low, expected.high), abs=1e-9)
    assert at_least(hits, of, 0.3) == pytest.approx(stats.binom.sf(hits - 1, of, 0.3), abs=1e-12)


# --- the course of a training ---


def test_it_takes_off_when_images_are_learned_and_not_before():
    toy, monitor = toy_monitor()
    first = monitor(0)
    assert (first.flagged, first.p_value, first.took_off, first.forward_rows) == (0, 1.0, False, 46)
    toy.known |= dict.fromkeys(TRAINED, 0.3) | dict.fromkeys(OTHERS, 0.35)  # all alike, as a style is learned
    toy.known[TRAINED[3]] = 0.5
    record = monitor(1)
    assert (record.flags, record.took_off, monitor.should_stop) == ((3,), False, False)  # one may be chance
    toy.known |= dict.fromkeys(TRAINED, 0.8)
    record = monitor(2)
    assert (record.flagged, record.share, record.took_off) == (6, 1.0, True)
    assert record.worst[0].caption in TRAINED and record.worst[0].p_value == pytest.approx(1 / 41)
    assert record.worst[0].score == pytest.approx(2 * np.log(0.9 / 0.2), rel=1e-4)
    assert monitor.should_stop and monitor.take_off == record
    assert sum(r.level for r in monitor.history) < monitor.significance


def test_what_was_known_before_the_training_is_not_its_doing():
    toy = Toy()
    toy.known |= dict.fromkeys(TRAINED, 0.9)
    images = torch.stack([toy.images[text] for text in TRAINED])
    monitor = MemorizationMonitor(toy.denoiser(), TRAINED, images, draws=1, **toy.held_out())
    assert monitor(0).flagged == 0
    toy.known |= dict.fromkeys(OTHERS, 0.5)
    assert monitor(1).flagged == 0


def test_a_network_that_answers_nan_stops_no_training():
    toy, monitor = toy_monitor()
    toy.broken = True
    record = monitor(1)
    assert record.share is None and "NaN" in (record.reason or "") and "nothing measured" in str(record)
    toy.broken = False
    assert monitor(2).share == 0.0


def test_of_many_images_a_sample_with_its_captions_is_measured():
    toy, monitor = toy_monitor(most=3)
    assert len(monitor.captions) == 3 and set(monitor.captions) <= set(TRAINED)
    for number, caption in enumerate(monitor.captions):
        toy.known |= dict.fromkeys(TRAINED, 0.1) | {caption: 0.7}
        assert monitor(number).flags == (number,)


# --- its log ---


def test_a_log_goes_on_and_keeps_captions_private(tmp_path):
    file = tmp_path / "log.jsonl"
    toy, monitor = toy_monitor(log=file)
    toy.known[TRAINED[0]] = 0.5
    first = monitor(0)
    assert TRAINED[0] not in file.read_text() and len(file.read_text().splitlines()) == 2
    monkey = Toy()
    monkey.known |= dict.fromkeys(TRAINED, 0.9)  # resumed in the middle of it
    images = torch.stack([monkey.images[text] for text in TRAINED])
    again = MemorizationMonitor(monkey.denoiser(), TRAINED, images, draws=1, log=file, **monkey.held_out())
    assert again.history == [first] and again.history[0].worst[0].caption == TRAINED[0]
    assert again(1).took_off
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
    toy.known |= dict.fromkeys(TRAINED, 0.9)
    monitor(1)
    alarm = np.asarray(monitor.plot())
    red = np.array((176, 62, 44))
    assert calm.shape == alarm.shape and (alarm == red).all(-1).sum() > 100 and not (calm == red).all(-1).any()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"captions": []}, "there are no captions"),
        ({"captions": "one text"}, "list of texts"),
        ({"captions": ["ok", "\x00", *TRAINED[2:]]}, "caption 2 of 6"),
        ({"captions": [3]}, "no text"),
        ({"captions": TRAINED[:4]}, "images: 6 for 4 captions"),
        ({"images": None}, "images: none for 6 captions"),
        ({"images": latents(6, 1, (4, 2, 2))}, "different sizes"),
        ({"images": latents(6, 1, (5, 4, 4))}, "5 channels"),
        ({"images": latents(6) * float("nan")}, "hold NaN"),
        ({"images": latents(46)[-6:]}, "6 of the held-out images are trained on"),
        ({"held_out_captions": OTHERS[:9]}, "9 held-out images are too few: alpha 0.05 needs 19"),
        ({"alpha": 0.01}, "needs 99"),
        ({"significance": 0}, "significance"),
        ({"fraction": 0}, "fraction lies in"),
        ({"most": 0}, "most is 0"),
        ({"pipe": None}, "give a pipeline, or its parts: unet and text_encoder"),
    ],
)
def test_bad_input_is_one_line(options, message):
    toy = Toy()
    given = {"pipe": toy.denoiser(), "captions": TRAINED, "images": latents(6), **toy.held_out()}
    with pytest.raises(InputError, match=message):
        MemorizationMonitor(**{**given, **options})


@pytest.mark.parametrize("epoch", [float("nan"), True, "1", None])
def test_epochs_are_numbers(epoch):
    with pytest.raises(InputError, match="the epoch is a number"):
        toy_monitor()[1](epoch)


# --- the training is left as it was ---


def parts_of(pipe: Any) -> dict[str, Any]:
    return {name: getattr(pipe, name) for name in ("unet", "text_encoder", "tokenizer", "scheduler", "vae")}


def monitor_of(pipe: Any = None, *, images: Any = None, **parts: Any) -> MemorizationMonitor:
    """A monitor of a tiny pipeline or its parts: two images are trained on."""
    given = latents(2, 1, (4, 8, 8)) if images is None else images
    held_out = {"held_out_captions": LETTERS[2:21], "held_out_images": latents(19, 2, (4, 8, 8))}
    return MemorizationMonitor(pipe, LETTERS[:2], given, draws=1, **held_out, **parts)


def errors_of(monitor: MemorizationMonitor) -> list[float]:
    assert monitor._history.before is not None
    return monitor._history.before


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
    pipe.unet.train()
    monitor = monitor_of(**parts_of(pipe))
    random.seed(1)
    np.random.seed(1)
    torch.manual_seed(1)
    for step in range(4):
        with torch.autocast("cpu", torch.bfloat16):
            if monitored:
                before = [p.grad for p in parameters]
                assert monitor(step).share is not None
                assert all(a is b for a, b in zip(before, [p.grad for p in parameters], strict=True))
            x = torch.randn(2, 4, 8, 8) + random.random() + float(np.random.rand())
            text = pipe.text_encoder(torch.zeros(2, 77, dtype=torch.long)).last_hidden_state
            loss = pipe.unet(x, torch.tensor([100, 900]), text).sample.float().square().mean()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
    modes = [layer.training for layer in pipe.unet.modules()]
    assert all(modes) and not pipe.text_encoder.training and torch.is_grad_enabled()
    return [p.detach() for p in parameters]


def test_a_training_goes_the_same_way_with_and_without_it():
    for watched, alone in zip(trained(True), trained(False), strict=True):
        assert torch.equal(watched, alone)


def test_what_trainers_wrap_is_what_is_asked():
    torch.manual_seed(0)
    pipe = pipelines.stable_diffusion()
    peft, accelerate = pytest.importorskip("peft"), pytest.importorskip("accelerate")
    whole = errors_of(monitor_of(pipe))
    parallel = type("DistributedDataParallel", (torch.nn.Module,), {})()
    parallel.module = pipe.unet
    wrapped = {
        "bare": pipe.unet,
        "compiled": torch.compile(pipe.unet),
        "parallel": parallel,
        "accelerated": accelerate.Accelerator(cpu=True).prepare(pipe.unet),
    }
    for name, network in wrapped.items():
        assert errors_of(monitor_of(**{**parts_of(pipe), "unet": network})) == whole, name
    adapted = peft.get_peft_model(pipe.unet, peft.LoraConfig(r=2, target_modules=["to_q"], init_lora_weights=False))
    assert errors_of(monitor_of(**{**parts_of(pipe), "unet": adapted})) != whole
    assert unwrapped(torch.compile(adapted)) is adapted.get_base_model()
    sharded = type("FullyShardedDataParallel", (torch.nn.Module,), {})()
    with pytest.raises(InputError, match="spread over several processes"):
        monitor_of(**{**parts_of(pipe), "unet": sharded})


def test_images_come_in_any_form():
    torch.manual_seed(0)
    pipe = pipelines.stable_diffusion()
    pixels = torch.rand(2, 3, 16, 16).mul(255).round() / 255
    arrays = [(image * 255).round().to(torch.uint8).permute(1, 2, 0).numpy() for image in pixels]
    pictures = [Image.fromarray(array) for array in arrays]
    with torch.no_grad():
        known = pipe.vae.encode(pixels * 2 - 1).latent_dist.mean * pipe.vae.config.scaling_factor
    wide = Image.new("RGB", (48, 16))
    wide.paste(pictures[0], (16, 0))
    expected = errors_of(monitor_of(pipe, images=known))
    for images in (pixels, pictures, arrays, [wide, pictures[1]]):
        assert errors_of(monitor_of(pipe, images=images)) == pytest.approx(expected, rel=1e-4)
    with pytest.raises(InputError, match=r"outside of \[0, 1\]"):
        monitor_of(pipe, images=pixels * 2 - 1)
    with pytest.raises(InputError, match="no autoencoder"):
        monitor_of(**{**parts_of(pipe), "vae": None}, images=pixels)
    with pytest.raises(InputError, match="hold a str"):
        monitor_of(pipe, images=["a.png", "b.png"])


def test_text_encoders_that_are_trained_are_read_again():
    torch.manual_seed(0)
    pipe = pipelines.stable_diffusion()
    monitor = monitor_of(pipe)
    layer = pipe.text_encoder.get_input_embeddings()
    layer.weight.data.mul_(torch.linspace(0.1, 3, len(layer.weight))[:, None])  # as optimizers do, unseen
    second = monitor(1).worst[0].score
    assert second != 0
    pipe.text_encoder.requires_grad_(False)
    pipe.text_encoder.to("meta")  # as where captions are read once, and the encoder makes room
    assert monitor(2).worst[0].score == second


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
    monitor = monitor_of(**parts)
    assert monitor(1).worst[0].score == 0
    with torch.no_grad():
        for parameter in parameters:
            parameter.add_(0.3)
    assert monitor(2).worst[0].score != 0
    with pytest.raises(InputError, match="2 text encoders and 1 tokenizers"):
        monitor_of(**{**parts, "tokenizer": pipe.tokenizer})
