"""Was it trained on these? Toy models with a memory, folders of all sorts, and what a result says."""

import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, cast

import numpy as np
import pytest
import torch
from PIL import Image

from cryptomnesia.adapters import to_denoiser
from cryptomnesia.comparability import IMAGE_FEATURES
from cryptomnesia.denoiser import CallableDenoiser, Condition
from cryptomnesia.errors import InputError, NotApplicable
from cryptomnesia.membership import (
    CONFOUNDED,
    GENERATED,
    LIKELY,
    NO_EVIDENCE,
    Measured,
    Settings,
    Store,
    compare,
    image_evidence,
    measure,
    membership_test,
)
from cryptomnesia.membership.settings import default_timestep
from cryptomnesia.membership.single import judge
from cryptomnesia.signals.gradient_norms import gradient_norms
from cryptomnesia.signals.membership import sima_mc

from ..helpers import gaussian, toy
from ..helpers.pipelines import build

SIZE, FOLD = 32, 8
SHAPE = (3 * FOLD**2, SIZE // FOLD, SIZE // FOLD)


def pictures(count: int, seed: int = 0, light: float = 0.0) -> list[torch.Tensor]:
    """(3, SIZE, SIZE) each: random blobs around grey."""
    coarse = torch.rand(count, 3, 8, 8, generator=torch.Generator().manual_seed(seed))
    fine = torch.nn.functional.interpolate(coarse, (SIZE, SIZE), mode="bilinear")
    return list((0.3 + 0.4 * fine + light).clamp(0, 1))


class Trained(CallableDenoiser):
    """The exact denoiser of the images that it was trained on, behind an exact autoencoder; counts what it is asked."""

    def __init__(self, images: list[torch.Tensor]):
        self.rows = 0
        known = self.encode_image(torch.stack(images)).double()

        def fn(x: torch.Tensor, t: torch.Tensor, condition: torch.Tensor) -> torch.Tensor:
            self.rows += len(x)
            alpha, sigma = gaussian.levels(t, "epsilon")
            spread = sigma.flatten()[:, None].square() + 0.02
            apart = (x.double()[:, None] - alpha[:, None] * known).square().sum((2, 3, 4))
            x0 = torch.einsum("bn,nchw->bchw", torch.softmax(-apart / (2 * spread), 1), known)
            return ((x.double() - alpha * x0) / sigma).to(x.dtype)

        super().__init__(fn, gaussian.ABAR, empty=torch.zeros(1, 1, 1), latent_shape=SHAPE, fingerprint="trained")

    def encode_image(self, image: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.pixel_unshuffle(image * 2 - 1, FOLD)

    def decode(self, latent: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.pixel_shuffle(latent, FOLD) / 2 + 0.5

    def encode(self, prompt: str | Sequence[str]) -> Condition:
        return Condition(text=torch.zeros(len(prompt), 1, 1))


WHERE: dict[str, Any] = {"size": (SIZE, SIZE), "settings": Settings(draws=2)}


@pytest.fixture(scope="module")
def model():
    return Trained(pictures(30))


def save(folder, images, name="{:02d}.png"):
    folder.mkdir(exist_ok=True)
    for number, image in enumerate(images):
        array = (image.permute(1, 2, 0).numpy() * 255).round().astype(np.uint8)
        Image.fromarray(array).save(folder / name.format(number))
    return folder


def test_images_that_were_trained_on(model):
    found = membership_test(model, pictures(30)[:15], pictures(15, seed=1), **WHERE)
    assert found.verdict == LIKELY and found.auc == 1 and found.cliffs_delta == 1
    assert found.p_value == max(found.permutation_p, found.rank_sum_p) == pytest.approx(1e-4)
    assert found.headline() == "Likely trained on some of these images"
    assert 0.8 < found.interval[0] < found.interval[1] == 1
    assert found.images_needed == 10  # less is refused, whatever the effect
    assert any("Fewer than 70" in note for note in found.notes())


def test_images_that_were_not(model):
    found = membership_test(model, pictures(15, seed=2), pictures(15, seed=1), **WHERE)
    assert found.verdict == NO_EVIDENCE and found.p_value > 0.05
    assert found.headline().startswith("No evidence")
    assert any("smaller ones may be there" in note for note in found.notes())


def test_images_of_another_kind_are_confounded(model):
    found = membership_test(model, pictures(30)[:15], pictures(15, seed=1, light=0.15), **WHERE)
    assert found.verdict == CONFOUNDED and not found.comparability.comparable
    assert found.headline().startswith("Confounded")
    assert any("brightness" in note or "mean" in note for note in found.notes())


@pytest.mark.parametrize("method", ["sima", "loss", "secmi", "pia", "pfami"])
def test_other_methods_can_be_asked(model, method):
    some = Settings(method, (100,), draws=2)
    found = membership_test(model, pictures(12), pictures(12, seed=1), settings=some, size=(SIZE, SIZE))
    assert found.settings.method == method and np.isfinite(found.auc)


def test_a_result_as_data_and_as_a_picture(model):
    found = membership_test(model, pictures(12), pictures(12, seed=1), **WHERE)
    data = json.loads(json.dumps(found.to_dict()))
    assert data["kind"] == "membership" and data["verdict"] == LIKELY and data["fingerprint"] == "trained"
    assert data["suspects"]["images"] == 12 and len(data["suspects"]["statistics"]) == 12
    assert data["settings"] == {"method": "sima_mc", "timesteps": [138], "draws": 2, "seed": "0"}
    picture = found.plot()
    assert picture.width == 680 and len(picture.getcolors(1 << 20)) > 10
    words = " ".join([found.headline(), *found.notes()]).lower()
    assert "likelihood" in words and "no proof" in words
    assert not any(word in words for word in ("is a member", "stolen", "copied"))


def test_folders_of_all_sorts(model, tmp_path):
    good = save(tmp_path / "good", pictures(12, seed=1))
    odd = save(tmp_path / "odd", pictures(12))
    (odd / "notes.md").write_text("hello")
    (odd / "broken.png").write_bytes((odd / "00.png").read_bytes()[:60])
    (odd / "empty.jpg").write_bytes(b"")
    Image.new("RGB", (8, 8)).save(odd / "tiny.png")
    Image.new("RGBA", (40, 40)).save(odd / "clear.png")
    (odd / "again.png").write_bytes((odd / "00.png").read_bytes())
    (odd / "loop.png").symlink_to("loop.png")
    (odd / "self").symlink_to(odd)
    big = torch.nn.functional.interpolate(pictures(1, seed=7)[0][None], (48, 64))[0]
    save(odd, [big], "big.png")
    steps = []
    found = membership_test(model, odd, good, progress=lambda *step: steps.append(step), **WHERE)
    once = [(i + 1, 18) for i in range(18)] + [(i + 1, 12) for i in range(12)]
    assert steps == once * 2  # once more before anybody is accused
    assert len(found.suspects) == 13 and found.suspects.sizes == 2
    reasons = {name.rsplit("/", 1)[-1]: reason for name, reason in found.suspects.skipped.items()}
    files = ["again.png", "broken.png", "clear.png", "empty.jpg", "loop.png", "notes.md", "tiny.png"]
    assert sorted(reasons) == files and "leads nowhere" in reasons["loop.png"]
    assert "counted once" in reasons["again.png"] and "8x8" in reasons["tiny.png"] and "no image" in reasons["notes.md"]
    assert any("7 files were left out" in note for note in found.notes())
    assert any("2 different sizes" in note for note in found.notes())
    assert not found.references.skipped


def test_the_same_folder_in_either_form(model, tmp_path):
    folder = save(tmp_path / "a", pictures(12))
    from_files = measure(model, folder, settings=WHERE["settings"], size=(SIZE, SIZE))
    listed = measure(model, sorted(folder.iterdir()), settings=WHERE["settings"], size=(SIZE, SIZE))
    assert from_files.names == listed.names and np.array_equal(from_files.statistic, listed.statistic)


@pytest.mark.parametrize(
    ("suspects", "more", "words"),
    [
        (lambda: pictures(9), {}, "the suspects are 9 images, and less than 10"),
        (lambda: pictures(1) * 30, {}, "1 image \\(29 left out, e.g. image 2: the same picture as image 1"),
        (lambda: [], {}, "the suspects are 0 images"),
        (lambda: pictures(12, seed=1), {}, "12 pictures are in both sets, e.g. image \\d+, which is image \\d+"),
        (lambda: "nowhere", {}, "there is no folder nowhere"),
        (lambda: pictures(12), {"alpha": 1.0}, "alpha is a false-alarm rate"),
        (lambda: pictures(12), {"suspect_prompts": ["a"] * 12}, "for one of the two sets only"),
        (
            lambda: pictures(12),
            {"suspect_prompts": ["a"] * 3, "reference_prompts": ["a"] * 12},
            "3 prompts do not fit 12 images",
        ),
        (lambda: pictures(12), {"suspect_prompts": True, "reference_prompts": True}, "for files only"),
        (lambda: pictures(12), {"settings": Settings("magic")}, "unknown method 'magic'"),
        (lambda: pictures(12), {"settings": Settings(timesteps=(5000,))}, "timesteps lie in"),
        (lambda: pictures(12), {"settings": Settings(draws=0)}, "at least 1"),
        (lambda: pictures(12), {"settings": Settings(features=cast(Any, "magic"))}, "unknown features 'magic'"),
        (lambda: pictures(12), {"settings": Settings(draws=3, features="gradients")}, "even number of noise draws"),
    ],
)
def test_bad_input(model, suspects, more, words):
    with pytest.raises(InputError, match=words):
        membership_test(model, suspects(), pictures(12, seed=1), **(WHERE | more))


def test_prompts_beside_images(model, tmp_path):
    folders = [save(tmp_path / name, pictures(10, seed=seed)) for seed, name in enumerate(("a", "b"))]
    both = {"suspect_prompts": True, "reference_prompts": True}
    with pytest.raises(InputError, match=r"put it in 00\.txt beside it"):
        membership_test(model, *folders, **both, **WHERE)
    for folder in folders:
        for file in list(folder.iterdir()):
            file.with_suffix(".txt").write_text("a blob\n")
    found = membership_test(model, *folders, **both, **WHERE)
    assert found.settings.method == "sima_relative"  # by default, where there are prompts
    assert found.suspects.features.shape[1] == found.references.features.shape[1] and not found.suspects.skipped


def test_prompts_of_another_kind_are_confounded(model):
    prompts = {"suspect_prompts": ["a blob"] * 15, "reference_prompts": ["a photograph, 8k, by somebody"] * 15}
    found = membership_test(model, pictures(15), pictures(15, seed=1), **prompts, **WHERE)
    assert found.verdict == CONFOUNDED and "prompt" in found.comparability.differs_most


def test_an_autoencoder_that_answers_nan(model, monkeypatch):
    monkeypatch.setattr(model, "encode_image", lambda image: torch.full((len(image), *SHAPE), float("nan")))
    with pytest.raises(InputError, match="latents hold NaN"):
        membership_test(model, pictures(12), pictures(12, seed=1), **WHERE)


def test_a_model_that_reads_no_images():
    with pytest.raises(NotApplicable, match="no autoencoder"):
        membership_test(toy.linear(), pictures(12), pictures(12, seed=1), size=(32, 32))


def test_what_was_measured_is_not_measured_again(model, tmp_path):
    store = Store(tmp_path / "statistics.json")
    first = measure(model, pictures(12), settings=Settings(draws=2), size=(SIZE, SIZE), store=store)
    before = model.rows
    again = measure(
        model, pictures(14), settings=Settings(draws=2), size=(SIZE, SIZE), store=Store(tmp_path / "statistics.json")
    )
    assert model.rows - before == 2 * 2
    assert np.array_equal(again.statistic[:12], first.statistic)
    measure(model, pictures(12), settings=Settings(draws=2, seed=1), size=(SIZE, SIZE), store=store)
    assert model.rows - before == 2 * 2 + 12 * 2  # other settings, other numbers


def test_another_autoencoder_is_measured_anew():
    store, pipe = Store(), build("sd1")

    def asked(of):
        found = measure(to_denoiser(of), pictures(3), settings=Settings(draws=1), size=(SIZE, SIZE), store=store)
        return found.statistic, len(store.numbers)

    first, kept = asked(pipe)
    again, still = asked(build("sd1"))
    assert kept == still == 3 and np.array_equal(first, again)
    with torch.no_grad():
        pipe.vae.encoder.conv_in.weight.mul_(0.5)
    changed, now = asked(pipe)
    assert now == 6 and not np.array_equal(first, changed)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{", "no file of statistics"),
        ("[1]", "no JSON object"),
        ('{"schema": "cryptomnesia/membership-statistics/0", "statistics": {}}', "of this version"),
        ('{"schema": "cryptomnesia/membership-statistics/1", "statistics": {"a": NaN}}', "NaN is no number"),
        ('{"schema": "cryptomnesia/membership-statistics/1", "statistics": {"a": 1, "a": 2}}', "appears twice"),
        ('{"schema": "cryptomnesia/membership-statistics/1", "statistics": {"a": true}}', "of this version"),
        (
            '{"schema": "cryptomnesia/membership-statistics/1", "statistics": {}, "vectors": {"a": []}}',
            "of this version",
        ),
        ('{"schema": "cryptomnesia/membership-statistics/1", "statistics": {}, "vectors": []}', "of this version"),
    ],
)
def test_broken_stores_cost_one_line(text, words, tmp_path):
    path = tmp_path / "statistics.json"
    path.write_text(text)
    with pytest.raises(InputError, match=words):
        Store(path)


def test_a_single_image_is_weak_evidence(model):
    known, others = pictures(30), pictures(20, seed=1)
    seen = image_evidence(model, known[0], others, known[1:], **WHERE)
    unseen = image_evidence(model, pictures(1, seed=9)[0], others, known[1:], **WHERE)
    assert seen.p_value == pytest.approx(1 / 21) and unseen.p_value > 1 / 21
    assert (
        seen.likelihood_ratio == pytest.approx(20) and (unseen.likelihood_ratio or 2) < 1
    )  # no more than 20 images support
    for one in (seen, unseen):
        assert one.strength == "weak evidence" and one.headline().startswith("Weak evidence")
        assert json.loads(json.dumps(one.to_dict()))["strength"] == "weak evidence"
    alone = image_evidence(model, known[0], others, **WHERE)
    assert alone.likelihood_ratio is None and "p = " in alone.headline()
    assert any("no likelihood ratio" in note for note in alone.notes())


def test_the_likelihood_ratio_of_two_gaussians(model):
    from scipy.stats import norm

    some = measure(model, pictures(11, seed=3), settings=WHERE["settings"], size=(SIZE, SIZE))
    rng = np.random.default_rng(0)

    def like(numbers):
        return replace(some.subset(np.arange(len(numbers)) % 11), statistic=numbers)

    low, high = rng.normal(0, 1, 40), rng.normal(0.7, 1, 60)
    spread = np.sqrt((40 * low.var() + 60 * high.var()) / 98)
    wanted = norm.pdf(0.1, low.mean(), spread) / norm.pdf(0.1, high.mean(), spread)
    one = replace(like(np.array([0.1])), digests=("another",))
    found = judge(one, like(high), like(low))
    assert found.likelihood_ratio == pytest.approx(wanted)
    assert judge(one, like(low), like(high)).likelihood_ratio == 1
    with pytest.raises(InputError, match="there are 9 references"):
        judge(one, like(high[:9]))


def test_bad_single_images(model):
    with pytest.raises(InputError, match="8x8 pixels"):
        image_evidence(model, torch.zeros(3, 8, 8), pictures(12), **WHERE)
    with pytest.raises(InputError, match="image 1 is among the references"):
        image_evidence(model, pictures(1)[0], [*pictures(1), *pictures(12, seed=1)], **WHERE)
    with pytest.raises(InputError, match="for some of the images only"):
        image_evidence(model, pictures(1)[0], pictures(12), prompt="a", **WHERE)


def test_compare_needs_no_model(model):
    some = {"settings": WHERE["settings"], "size": (SIZE, SIZE)}
    low, high = measure(model, pictures(12), **some), measure(model, pictures(12, seed=1), **some)
    found = compare(low, high, settings=WHERE["settings"], fingerprint="x")
    assert (found.verdict, found.fingerprint) == (LIKELY, "x")
    assert compare(high, low, settings=WHERE["settings"], fingerprint="x").verdict == NO_EVIDENCE  # one-sided


def test_the_default_timestep_has_the_stated_noise():
    discrete = Trained(pictures(2))
    alpha, sigma = (float(v) for v in (discrete.level(138).alpha, discrete.level(138).sigma))
    assert default_timestep(discrete) == 138 and sigma / alpha == pytest.approx(0.43, abs=0.002)
    flow = CallableDenoiser(lambda x, t, c: x, None, "flow", empty=torch.zeros(1, 1, 1), latent_shape=SHAPE)
    s = default_timestep(flow)
    assert s / (1 - s) == pytest.approx(0.43)


class Flowing(Trained):
    """The same as rectified flow."""

    def __init__(self, images: list[torch.Tensor]):
        super().__init__(images)
        known = self.encode_image(torch.stack(images)).double()

        def fn(x: torch.Tensor, s: torch.Tensor, condition: torch.Tensor) -> torch.Tensor:
            sigma = s.double().view(-1, 1, 1, 1)
            apart = (x.double()[:, None] - (1 - sigma)[:, None] * known).square().sum((2, 3, 4))
            x0 = torch.einsum("bn,nchw->bchw", torch.softmax(-apart / (2 * s.double()[:, None] ** 2), 1), known)
            return ((x.double() - x0) / sigma).to(x.dtype)

        CallableDenoiser.__init__(
            self, fn, None, "flow", empty=torch.zeros(1, 1, 1), latent_shape=SHAPE, fingerprint="flow"
        )


def test_rectified_flow_divided_by_complexity():
    denoiser, some = Flowing(pictures(4)), pictures(5)
    settings = Settings(draws=2).complete(denoiser, False)
    assert settings.timesteps == (pytest.approx(0.3007, abs=1e-4),) and "by_complexity" not in settings.to_dict()
    settings, store = replace(settings, timesteps=(0.5,), by_complexity=True), Store()
    assert settings.to_dict()["by_complexity"] is True
    whole = measure(denoiser, some, settings=settings, size=(SIZE, SIZE), store=store)
    plain = measure(denoiser, some, settings=replace(settings, by_complexity=False), size=(SIZE, SIZE), store=store)
    z = denoiser.encode_image(torch.stack(some))
    assert np.allclose(plain.statistic, sima_mc(denoiser, z, [0.5], draws=2)[0].double().log(), atol=1e-5)
    sizes = plain.features[:, IMAGE_FEATURES.index("compressed size")]
    assert np.allclose(whole.statistic, plain.statistic - sizes) and len(store.numbers) == 5
    for fraction, prompted in (("pfami", False), (None, True)):
        with pytest.raises(InputError, match="fraction already"):
            Settings(fraction, by_complexity=True).complete(denoiser, prompted)


def test_gradients_of_images(tmp_path):
    network = torch.nn.Conv2d(SHAPE[0], SHAPE[0], 1)

    class Learnt(Trained):
        def __init__(self) -> None:
            super().__init__(pictures(2))
            self.fn = lambda x, t, c: network(x)

        @property
        def network(self):
            return network

    learnt = Learnt()
    settings = Settings("sima_mc", (100,), 2, features="gradients")
    store = Store(tmp_path / "statistics.json")
    found: Any = measure(learnt, pictures(3), settings=settings, store=store, size=(SIZE, SIZE))
    z = learnt.encode_image(torch.stack(pictures(3)))
    wanted = gradient_norms(learnt, z, [100], draws=2)
    assert found.gradients.shape == (3, 1) and np.allclose(found.gradients, wanted.numpy(), rtol=1e-6)
    kept = Store(tmp_path / "statistics.json")
    again: Any = measure(learnt, pictures(3), settings=settings, store=kept, size=(SIZE, SIZE))
    assert np.array_equal(again.gradients, found.gradients) and kept.vectors == store.vectors
    assert again.subset([2]).gradients.shape == (1, 1)
    alone = measure(
        learnt, pictures(3), settings=replace(settings, features="statistic"), store=kept, size=(SIZE, SIZE)
    )
    assert alone.gradients is None and np.array_equal(alone.statistic, found.statistic)
    with pytest.raises(NotApplicable, match="not at hand"):
        measure(Trained(pictures(2)), pictures(3), settings=settings, size=(SIZE, SIZE))


class Lossy(Trained):
    """Behind an autoencoder that keeps every second pixel's neighbourhood only."""

    def encode_image(self, image: torch.Tensor) -> torch.Tensor:
        coarse = torch.nn.functional.avg_pool2d(image, 2)
        return super().encode_image(torch.nn.functional.interpolate(coarse, scale_factor=2))


def test_a_models_own_images_are_not_taken_for_training_images():
    grain = torch.randn(40, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(4)) * 0.05
    sharp = [(image + noise).clamp(0, 1) for image, noise in zip(pictures(40), grain, strict=True)]
    model = Lossy(sharp[:15])
    made = list(model.decode(model.encode_image(torch.stack(sharp[:15]))))
    steps: list[tuple[int, int | None]] = []
    found = membership_test(model, made, sharp[25:], progress=lambda *step: steps.append(step), **WHERE)
    assert found.verdict == GENERATED and len(found.generated.rows) == 15 and len(steps) == 60
    assert any("all 15 have been through this autoencoder" in note for note in found.notes())
    trained = membership_test(model, sharp[:15], sharp[25:], **WHERE)
    assert trained.verdict == LIKELY and not trained.generated.rows
    steps.clear()
    others = membership_test(model, sharp[15:25], sharp[25:], progress=lambda *step: steps.append(step), **WHERE)
    assert others.verdict == NO_EVIDENCE and others.generated is None and len(steps) == 25  # nobody to be accused


def test_the_old_name_of_a_subset_stays():
    assert Measured.some is Measured.subset
