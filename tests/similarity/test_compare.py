"""Copies are found however they were changed, strangers are not, and the p-value promises what it says."""

import io
import json
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageEnhance, ImageOps

from cryptomnesia.errors import InputError
from cryptomnesia.similarity import NONE, PART, SAME, ReferenceIndex, compare, local
from cryptomnesia.similarity.null import TESTS, Null

from ..helpers.drawn import SIDE, drawn, mine

COUNT = 105
STRANGER = 5000  # seeds of pictures that are no references


@pytest.fixture(scope="module")
def index():
    return ReferenceIndex.build(mine(COUNT))


def jpeg(image, quality):
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality)
    return Image.open(buffer).convert("RGB")


def pasted(image):
    ground = drawn(STRANGER + 1, (320, 320)).copy()
    ground.paste(image, (90, 130))
    return ground


CHANGES = {
    "jpeg": (lambda image: jpeg(image, 40), SAME, False),
    "half": (lambda image: image.resize((SIDE // 2, SIDE // 2)), SAME, False),
    "grey": (lambda image: image.convert("L"), SAME, False),
    "darker": (lambda image: ImageEnhance.Brightness(image).enhance(0.7), SAME, False),
    "flipped": (ImageOps.mirror, SAME, True),
    "turned": (lambda image: image.rotate(12, Image.Resampling.BICUBIC), SAME, False),
    "middle": (lambda image: image.crop((30, 30, 130, 130)), PART, False),
    "flipped middle": (lambda image: ImageOps.mirror(image.crop((30, 30, 130, 130))), PART, True),
    "pasted": (pasted, PART, False),
}


def test_copies_are_found_however_they_were_changed(index):
    numbers = list(range(3, 3 + 5 * len(CHANGES), 5))
    changed = [change(drawn(number)) for number, (change, _, _) in zip(numbers, CHANGES.values(), strict=True)]
    answer = compare(changed, index)
    found = [(image.kind, image.nearest[0].reference, image.nearest[0].flipped) for image in answer.images]
    expected = [(kind, f"image {n + 1}", flip) for n, (_, kind, flip) in zip(numbers, CHANGES.values(), strict=True)]
    assert found == expected
    assert answer.verdict == "copies" and len(answer.copies) == len(CHANGES)
    assert all(1 / (COUNT + 1) <= image.p_value < 0.1 for image in answer.images)


def test_the_region_is_where_the_part_lies(index):
    (image,) = compare(pasted(drawn(40)), index).images
    truth = np.zeros((320, 320), bool)
    truth[130 : 130 + SIDE, 90 : 90 + SIDE] = True
    region = image.nearest[0].region
    assert region.shape == (320, 320) and region.dtype == bool
    assert (region & truth).sum() / (region | truth).sum() > 0.8
    assert image.nearest[0].share == pytest.approx(0.25, abs=0.05) and image.nearest[0].similarity > 0.95


def test_a_flipped_parts_region_lies_in_the_image_as_it_is(index):
    (image,) = compare(ImageOps.mirror(pasted(drawn(41))), index).images
    region = image.nearest[0].region
    assert image.nearest[0].flipped and image.kind == PART
    left, right = 320 - 90 - SIDE, 320 - 90
    assert region[130 : 130 + SIDE, left:right].mean() > 0.85 and region[:, right + 12 :].mean() < 0.05


def test_strangers_are_no_copies(index):
    answer = compare(mine(40, STRANGER + 10), index)
    assert answer.verdict == "none" and {image.kind for image in answer.images} == {NONE}
    p_values = np.array([image.p_value for image in answer.images])
    assert 0.3 < p_values.mean() < 0.7 and (p_values <= 0.1).mean() <= 0.2  # about uniform, as it promises
    assert all(image.nearest[0].region is None for image in answer.images)


def test_a_p_value_counts_the_picture_itself_and_every_test():
    scores = np.full((99, len(TESTS)), -np.inf)
    scores[:, 0] = -np.arange(1, 100)
    scores[:, 2] = np.arange(99)
    null = Null(scores)

    def p(**given):
        return null.p_value(dict.fromkeys(TESTS, -np.inf) | given)

    assert p(picture=0.0) == 1 / 100 == null.smallest
    assert p(picture=-1.0) == 2 / 100 and p() == 1.0
    # its rank of 1 among parts weighs as much as 3.3 among pictures, whose first three are as good
    assert p(part=200.0) == 4 / 100
    assert null.ahead(dict.fromkeys(TESTS, -np.inf) | {"part": 99.0}, "part")
    assert Null(np.zeros((0, len(TESTS)))).p_value({}) is None


def test_an_equal_picture_is_told_and_needs_nothing_but_one_reference():
    answer = compare(drawn(0).copy(), drawn(0))
    (image,) = answer.images
    assert image.kind == SAME and image.p_value is None and image.nearest[0].identical and image.nearest[0].region.all()
    assert "no p-value" in answer.notes()[0]
    assert compare(jpeg(drawn(0), 60), drawn(0)).images[0].kind == SAME
    nothing = compare(drawn(STRANGER), drawn(0))
    assert nothing.verdict == "no verdict" and "one reference" in nothing.images[0].reason


def test_few_references_find_plain_copies_and_say_nothing_of_others():
    answer = compare([pasted(drawn(2)), drawn(STRANGER)], mine(5))
    part, other = answer.images
    assert part.kind == PART and part.p_value >= 1 / 6 and any("fixed limits" in note for note in part.notes())
    assert other.kind == NONE and "5 references" in other.reason and "takes 99" in answer.notes()[0]


def test_the_same_files_on_both_sides_are_told_of(tmp_path):
    for number in range(3):
        drawn(number).save(tmp_path / f"{number}.png")
    answer = compare(tmp_path, tmp_path)
    assert [image.itself for image in answer.images] == [True] * 3
    assert any("All 3 images are files of the references themselves" in note for note in answer.notes())
    assert not any("nothing" in note for note in answer.images[0].notes())


def test_repeats_and_duplicates_are_named(tmp_path):
    drawn(0).save(tmp_path / "a.png")
    drawn(0).save(tmp_path / "b.bmp")
    drawn(1).save(tmp_path / "c.png")
    answer = compare([drawn(0).copy(), drawn(0).copy()], tmp_path)
    assert answer.images[1].repeats == "image 1" and answer.images[0].repeats is None
    assert [[name[-5:] for name in group] for group in answer.duplicates] == [["a.png", "b.bmp"]]
    assert {match.identical for match in answer.images[0].nearest[:2]} == {True}
    assert "several times, e.g. a.png and b.bmp" in " ".join(answer.notes())


def test_without_opencv_whole_copies_are_found_and_the_rest_is_told(monkeypatch):
    monkeypatch.setattr(local, "available", lambda: False)
    answer = compare([ImageOps.mirror(drawn(0)), pasted(drawn(1))], mine(COUNT))
    assert [image.kind for image in answer.images] == [SAME, NONE] and not answer.parts
    assert any("pip install opencv-python-headless" in note and "compare" in note for note in answer.notes())
    monkeypatch.undo()
    whole = compare(ImageOps.mirror(drawn(0)), mine(2), parts=False)
    assert whole.images[0].kind == SAME and "as asked" in " ".join(whole.notes())


def test_results_are_plain_data_and_pictures(index):
    answer = compare([pasted(drawn(7)), drawn(STRANGER)], index)
    document = json.loads(json.dumps(answer.to_dict()))
    assert document["verdict"] == "copies" and document["references"] == COUNT
    first = document["images"][0]
    assert first["kind"] == "comparison" and first["nearest"] == "image 8" and len(first["matches"]) >= 1
    for picture in (answer.plot(), *(image.plot() for image in answer.images)):
        assert picture.mode == "RGB" and picture.width == 760 and np.asarray(picture).std() > 20


def test_what_cannot_be_compared_costs_one_line(index, tmp_path):
    cases: tuple[tuple[str, Any, Any, dict[str, Any]], ...] = (
        ("alpha is a false-alarm rate", drawn(0), index, {"alpha": 0}),
        ("built without this encoder", drawn(0), index, {"encoder": "x.onnx"}),
        ("there is no image or folder", tmp_path / "none", index, {}),
        ("holds no images", tmp_path, index, {}),
        ("no image was given as references", drawn(0), [], {}),
    )
    for words, images, references, options in cases:
        with pytest.raises(InputError, match=words) as error:
            compare(images, references, **options)
        assert "\n" not in str(error.value)
