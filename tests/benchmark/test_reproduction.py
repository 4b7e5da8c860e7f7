"""Near-copies are told from images that only share a ground or a figure, and references belong to prompts."""

import numpy as np
import pytest

from cryptomnesia.benchmark.reproduction import LIMIT, read_references, reproduction, thumbnails, tile_distances
from cryptomnesia.errors import InputError
from cryptomnesia.images import png

GREY = np.full((32, 48, 3), 128, np.uint8)


def with_square(value, at=(8, 8), ground=128):
    image = np.full((32, 48, 3), ground, np.uint8)
    image[at[0] : at[0] + 8, at[1] : at[1] + 12] = value
    return image


def test_the_distance_is_that_of_the_worst_tile():
    other = with_square(128 + 51, at=(8, 12))  # one tile of 8 x 12, a fifth brighter
    assert tile_distances(GREY[None], np.stack([GREY, other])).tolist() == [[0, pytest.approx(0.2, abs=1e-6)]]
    half = GREY.copy()
    half[8:16, 12:18] += 51
    assert tile_distances(GREY[None], half[None]).item() == pytest.approx(0.2 / 2**0.5, abs=1e-6)
    assert tile_distances(GREY[None], GREY[None] + 30).item() == pytest.approx(30 / 255, abs=1e-6)


def test_sides_that_four_does_not_divide_are_compared_whole():
    image = np.zeros((7, 9, 3), np.uint8)
    for row, column in ((0, 0), (6, 8), (3, 4)):
        other = image.copy()
        other[row, column] = 255
        assert tile_distances(image[None], other[None]).item() > 0.3
    with pytest.raises(InputError, match="too small to compare"):
        tile_distances(image[None, :3], image[None, :3])


def test_prompts_are_reproduced_where_half_of_the_seeds_come_to_one_image():
    same, far = with_square(255), [with_square(0), with_square(255, (16, 24)), with_square(0, (0, 0), 20)]
    found = reproduction(np.stack([same, with_square(254), far[0], far[1], same]), None)
    assert found.between == 0.5 and found.reproduced and found.nearest == 0 and found.to_reference is None
    assert not reproduction(np.stack([same, *far]), None).reproduced
    assert reproduction(np.stack([same, same]), None).reproduced
    alone = reproduction(same[None], None)
    assert (alone.between, alone.nearest, alone.reproduced) == (None, None, False)


def test_a_reference_decides_where_there_is_one():
    same, other = with_square(255), with_square(0)
    found = reproduction(np.stack([same, same, other]), other)
    assert found.to_reference is not None and [d < LIMIT for d in found.to_reference] == [False, False, True]
    assert not found.reproduced and found.between == 0.5
    assert reproduction(np.stack([same, same, other]), same).reproduced
    assert reproduction(same[None], same).reproduced


def test_thumbnails_are_small_and_others_stay():
    large = np.full((2, 640, 320, 3), 77, np.uint8)
    assert thumbnails(large).shape == (2, 160, 80, 3) and (thumbnails(large) == 77).all()
    assert thumbnails(large[:, :100, :100]).shape == (2, 100, 100, 3)


@pytest.fixture
def folder(tmp_path):
    place = tmp_path / "references"
    (place / "deep").mkdir(parents=True)
    for name, text in {"a": "a red cat", "deep/b": "A  dog", "c": "a bird", "d": None}.items():
        (place / f"{name}.png").write_bytes(png(np.full((40, 60, 3), len(name) * 40, np.uint8)))
        if text is not None:
            (place / f"{name}.txt").write_text(text, encoding="utf-8")
    return place


def test_references_belong_to_prompts(folder):
    found = read_references(folder, ["A red cat", "a dog", "a fish"])
    assert found.of("a red  cat", (32, 32)).shape == (32, 32, 3)
    assert (found.of("a dog", (64, 96)) == 240).all()
    assert found.of("a fish", (32, 32)) is None
    assert found.notes == [
        f"{folder}: 2 of 4 images belong to no memorized prompt",
        f"{folder}: 1 of 3 memorized prompts have no reference",
    ]


def test_other_folders_cost_one_line(folder, tmp_path):
    with pytest.raises(InputError, match=r"none of the 4 images .* has a memorized prompt .*: put NAME\.txt"):
        read_references(folder, ["a fish"])
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="holds no images"):
        read_references(tmp_path / "empty", ["a fish"])
    with pytest.raises(InputError, match=r"there is no folder .*nowhere of references"):
        read_references(tmp_path / "nowhere", ["a fish"])
    (folder / "a.png").write_bytes(b"broken")
    with pytest.raises(InputError, match=r"a\.png"):
        read_references(folder, ["a red cat"])
