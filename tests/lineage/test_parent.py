"""From images to a parent: folders, prompts and their majority, and images that are missing, broken or all alike."""

import sys

import numpy as np
import pytest
from PIL import Image

from cryptomnesia.attribution import NONE
from cryptomnesia.errors import InputError, MissingPackage, NonFiniteError
from cryptomnesia.lineage import OnnxEncoder, find_parent, images_in
from cryptomnesia.lineage.parentage import UNDECIDED, UNTESTED, combined, decide
from cryptomnesia.signals.lineage import judged

from ..helpers.lineages import COLOURS, encoder_file, folder, pictures

DIMENSION = 3
NAMES = tuple(COLOURS)


@pytest.fixture(scope="module")
def means(tmp_path_factory):
    """An encoder that sees mean colours only."""
    place = tmp_path_factory.mktemp("encoder") / "means.onnx"
    return OnnxEncoder(encoder_file(place, metadata={"mean": "0 0 0", "std": "1 1 1"}))


@pytest.fixture(scope="module")
def pool():
    """Images by four models, each with a colour of its own."""
    return {name: pictures(colour, seed=i) for i, (name, colour) in enumerate(COLOURS.items())}


def child(seed: int = 9, count: int = 30, **options) -> list:
    """Of ada, a little more yellow."""
    return pictures((200, 60, 40), count, seed, **options)


# --- the answer ---


def test_the_parent_is_found_by_the_encoder_that_ships(pool):
    seen = []
    found = find_parent(child(), pool, draws=20, progress=lambda *told: seen.append(told))
    assert found.decision == found.parent == "ada" and found.encoder == "the built-in encoder"
    assert found.votes == {"ada": 1} and found.confidence >= 0.9
    assert seen[-1] == (150, 150) and seen == sorted(set(seen))
    assert not found.prompts_known and found.headline() == "If all show the same prompts: likely a child of ada"


def test_none_of_these(pool, means):
    three = {name: pool[name] for name in ("ada", "bo", "cy")}
    found = find_parent(pictures((200, 200, 200), seed=9), three, encoder=means, dimension=DIMENSION, draws=50)
    assert (found.decision, found.parent) == (NONE, None)
    assert "none of these" in found.headline()
    assert any("Three models have three distances" in note for note in found.notes())


def test_a_missing_package_is_told_before_images_are_looked_at(pool, monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn", None)
    seen = []
    with pytest.raises(MissingPackage, match="scikit-learn"):
        find_parent(child(), pool, progress=lambda *told: seen.append(told))
    assert not seen


def test_folders_prompts_and_scales(pool, means, tmp_path):
    for name in ("ada", "bo", "cy"):
        for number, prompt in enumerate(("a", "b")):
            folder(tmp_path / name / prompt, pictures(COLOURS[name], 12, seed=number))
    for number, prompt in enumerate(("a", "b")):
        folder(tmp_path / "target" / prompt, child(seed=9 + number, count=12))
    (tmp_path / "ada" / "notes").mkdir()  # holds no images, so it is no prompt
    (tmp_path / "ada" / "a" / "notes.txt").write_text("no image")
    places = {name: tmp_path / name for name in ("ada", "bo", "cy")}
    found = find_parent(tmp_path / "target", places, encoder=means, scales=(1, 2), dimension=DIMENSION, draws=20)
    assert list(found.prompts) == ["a", "b"] and found.parent == "ada" and found.votes == {"ada": 2}
    assert found.encoder.endswith("at scales 1, 2") and found.prompts_known and found.prompts_told
    again = find_parent(tmp_path / "target", places, encoder=means, scales=(1, 2), dimension=DIMENSION, draws=20)
    assert again.to_dict() == found.to_dict()


def test_mixed_sizes_are_fine(pool, means):
    mixed = [*child(count=15, size=(64, 64)), *child(count=15, size=(120, 80))]
    assert find_parent(mixed, pool, encoder=means, dimension=DIMENSION, draws=10).parent == "ada"


def test_few_images_cost_confidence(pool, means):
    few = {name: images[:12] for name, images in pool.items()}
    found = find_parent(child(count=12), few, encoder=means, dimension=DIMENSION, draws=10)
    assert found.fewest == 12
    assert any(note.startswith("Only 12 images of a model and prompt: unsure") for note in found.notes())
    with pytest.raises(InputError, match="the target has 10 images, too few for 10 dimensions: give at least 11"):
        find_parent(child(count=10), pool)


def test_a_pool_of_one_or_two_says_so(pool, means):
    for count in (1, 2):
        some = dict(list(pool.items())[:count])
        found = find_parent(child(), some, encoder=means, dimension=DIMENSION, draws=10)
        assert (found.decision, found.parent, found.null_threshold, found.confidence) == (UNTESTED, None, None, None)
        assert found.headline() == "Not tested; nearest is ada"
        assert any(note.startswith(f"A pool of {count} does not tell") for note in found.notes())
        assert found.plot().size[0] == 620


def test_a_model_that_makes_one_image_over_and_over(pool, means):
    same = {**pool, "dot": pool["dot"][:1] * 30}
    assert find_parent(child(), same, encoder=means, dimension=DIMENSION, draws=10).parent == "ada"
    with pytest.raises(InputError, match="the target and ada have 30 of 30 images in common"):
        find_parent(child()[:1] * 30, {"ada": child()[:1] * 30, "bo": pool["bo"]}, encoder=means)


def test_models_that_are_one_are_reported(pool, means):
    twice = {**pool, "ada again": pictures(COLOURS["ada"], seed=77)}
    found = find_parent(child(), twice, encoder=means, dimension=DIMENSION, draws=10)
    assert found.parent == "ada"
    assert "ada again was left out: it is too close to ada to tell them apart." in found.notes()


# --- several prompts ---


def tables(near: int, far: int) -> dict:
    """Distances of prompts that show the target close to ada, and of prompts that show it as far as all others."""
    close, none = 1 - np.eye(5), 1 - np.eye(5)
    close[0, 1] = close[1, 0] = 0.1
    none[0, 2] = none[2, 0] = 0.99
    return {**{f"near {i}": close for i in range(near)}, **{f"far {i}": none for i in range(far)}}


def confidence_of(found: dict, names=NAMES, seed: int = 0):
    images = {prompt: [40] * (len(names) + 1) for prompt in found}
    again = [[table] * 400 for table in found.values()]
    return combined(found, again, names, images, "e", np.random.default_rng(seed))


def together(near: int, far: int, names=NAMES):
    size = len(names) + 1
    return confidence_of({prompt: table[:size, :size] for prompt, table in tables(near, far).items()}, names)


def test_all_prompts_are_tested_together():
    for near, far, decision in ((3, 0, "ada"), (2, 1, "ada"), (0, 3, NONE), (1, 6, NONE)):
        found = together(near, far)
        assert found.decision == decision and found.votes.get("ada", 0) == near
        assert found.distances == found.whole.distances and found.null_threshold == found.whole.null_threshold
    mean = np.mean(list(tables(2, 1).values()), axis=0)
    assert together(2, 1).distances == pytest.approx(judged(mean, NAMES, [40] * 5).distances)
    near, second = sorted(together(3, 0).distances.values())[:2]
    assert together(3, 0).margin == pytest.approx(second / near) and second / near >= 10


def test_the_parent_needs_a_majority_of_prompts():
    near, far = (judged(table, NAMES, [40] * 5) for table in tables(1, 1).values())
    assert (near.nearest, far.nearest) == ("ada", "bo")
    assert decide(near, [near, near, far]) == "ada"
    assert decide(near, [near, far]) == decide(near, [near, far, far]) == UNDECIDED
    assert decide(far, [near, near]) == NONE
    near, torn = tables(1, 0)["near 0"], tables(0, 1)["far 0"].copy()
    torn[0, 1] = torn[1, 0] = 0.4
    torn[0, 2] = torn[2, 0] = 0.35
    found = confidence_of({"near": near, "torn": torn})
    assert found.whole.parent == "ada" and found.votes == {"ada": 1, "bo": 1}
    assert found.decision == UNDECIDED and found.parent is None and "No majority" in found.headline()


def test_a_child_that_chance_alone_tells_from_its_parent_has_a_margin_of_a_sane_size():
    same = tables(1, 0)["near 0"].copy()
    same[0, 1] = same[1, 0] = 0
    found = confidence_of({"same": same})
    assert found.parent == "ada" and found.distances["ada"] == 0
    assert found.margin == pytest.approx(sorted(found.distances.values())[1] / 0.01)


def test_prompts_are_drawn_again():
    found = together(2, 1)
    # two or three of three draws are of the first two prompts
    assert found.confidence == pytest.approx(20 / 27, abs=0.06)
    assert found.headline() == "Perhaps a child of ada"
    assert any(note.startswith("A single prompt is often wrong") for note in found.notes())
    assert together(3, 0).confidence == 1
    assert together(2, 0, NAMES[:2]).confidence is None


def test_how_often_unrelated_models_are_as_near_is_told():
    near, torn, far = (together(*some) for some in ((3, 0), (1, 1), (0, 3)))
    assert near.p_value == near.to_dict()["p_value"] == near.whole.p_value < 0.01
    assert "ada: the nearest of 4 unrelated models is as near in under 1 % of all cases." in near.notes()
    # not near enough for a parent, and no sign of none either
    assert torn.decision == NONE and 0.05 < torn.p_value < 0.25 and torn.headline() == "Perhaps none of these"
    assert far.p_value > 0.9 and far.headline() == "Likely none of these"
    assert together(2, 0, NAMES[:2]).p_value is None


def test_the_picture_shows_the_parent_and_the_line(pool, means):
    picture = find_parent(child(), pool, encoder=means, dimension=DIMENSION, draws=10).plot()
    pixels = np.asarray(picture).reshape(-1, 3)
    assert isinstance(picture, Image.Image) and picture.width == 620
    assert (pixels == (33, 104, 109)).all(1).sum() > 10 and (pixels == (179, 38, 30)).all(1).sum() > 100


# --- bad input ---


def test_images_that_cannot_be_used(pool, means, tmp_path):
    place = folder(tmp_path / "target", child(count=12))
    torn = place / "torn.png"
    torn.write_bytes((place / "000.png").read_bytes()[:80])
    with pytest.raises(InputError, match=r"torn\.png is no image that can be read"):
        find_parent(place, pool, encoder=means, dimension=DIMENSION)
    torn.write_text("no image at all")
    with pytest.raises(InputError, match=r"torn\.png is no image that can be read"):
        find_parent(place, pool, encoder=means, dimension=DIMENSION)
    Image.new("RGB", (12, 12)).save(torn)
    with pytest.raises(InputError, match=r"torn\.png has 12x12 pixels"):
        find_parent(place, pool, encoder=means, dimension=DIMENSION)


def test_folders_that_cannot_be_used(tmp_path):
    with pytest.raises(InputError, match="there is no folder"):
        images_in(tmp_path / "none")
    (tmp_path / "list.txt").write_text("no image")
    with pytest.raises(InputError, match="holds no images"):
        images_in(tmp_path)
    folder(tmp_path, child(count=1))
    folder(tmp_path / "inner", child(count=1))
    with pytest.raises(InputError, match="holds images and folders of images"):
        images_in(tmp_path)
    (tmp_path / "000.png").unlink()
    (tmp_path / "inner" / "images.json").write_text("{}")
    with pytest.raises(InputError, match=r"images\.json does not name the prompt"):
        images_in(tmp_path)


def test_other_bad_input(pool, means, tmp_path):
    three = dict(list(pool.items())[:3])
    for target, models, words in (
        (child(), {}, "the pool is empty"),
        (child(), {NONE: pool["ada"]}, "cannot be called 'none of these'"),
        (child(), {" ": pool["ada"]}, "cannot be called ' '"),
        (child(), {"the target": pool["ada"]}, "cannot be called 'the target'"),
        ([], three, "no image was given"),
        ({}, three, "no image was given"),
        ({"a": child()}, three, "ada has images of one unnamed prompt, the target of 'a'"),
        ({"a": child(), "b": child(count=3)}, {"bo": {"a": child(), "b": child()}}, "target has 3 images of 'b'"),
    ):
        with pytest.raises(InputError, match=words) as error:
            find_parent(target, models, encoder=means, dimension=DIMENSION)
        assert "\n" not in str(error.value)
    with pytest.raises(InputError, match="at least one draw, not 0"):
        find_parent(child(), three, encoder=means, draws=0)
    odd = OnnxEncoder(encoder_file(tmp_path / "odd.onnx", factor=float("nan")))
    with pytest.raises(NonFiniteError, match="NaN or infinity"):
        find_parent(child(), three, encoder=odd)
    flat = OnnxEncoder(encoder_file(tmp_path / "flat.onnx", factor=0.0))
    with pytest.raises(InputError, match="all images have the same embedding"):
        find_parent(child(), three, encoder=flat)
