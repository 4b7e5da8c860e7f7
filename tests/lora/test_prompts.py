"""Prompts from a LoRA's metadata, and from files and folders."""

import json
from pathlib import Path

import pytest

from cryptomnesia.errors import InputError
from cryptomnesia.lora import from_metadata, prompts_in
from cryptomnesia.lora.prompts import require


def texts(**metadata: object) -> list[str]:
    values = {name.replace("__", "."): v if isinstance(v, str) else json.dumps(v) for name, v in metadata.items()}
    return [candidate.text for candidate in from_metadata(values)]


def test_tags_come_with_the_trigger_words_and_captions_alone():
    found = texts(ss_tag_frequency={"10_sks dog": {"sks dog": 20, "outdoors": 12, "a dog runs along the beach": 3}})
    assert found == ["sks dog", "sks dog, outdoors", "a dog runs along the beach"]
    assert from_metadata({"ss_tag_frequency": '{"10_x": {"a cat on a red mat": 1}}'})[1].source == (
        "caption, 1 time in training"
    )
    assert texts(ss_tag_frequency={"1_girl": {f"tag{i}": 9 - i for i in range(9)}})[1] == (
        "tag0, tag1, tag2, tag3, tag4, tag5, tag6, tag7"
    )


def test_other_places_are_read():
    assert texts(modelspec__trigger_phrase="sks, woven", modelspec__title="My LoRA") == ["sks", "woven", "My LoRA"]
    assert texts(ss_dataset_dirs={"5_ohwx man": {"n_repeats": 5, "img_count": 9}}) == ["ohwx man"]
    assert texts(ss_datasets=[{"subsets": [{"class_tokens": "zwx cat"}, 3]}, None]) == ["zwx cat"]
    assert texts(ss_output_name="only_a_name") == []  # which says little
    assert texts(instance_prompt="a photo of sks dog", ss_output_name="my_dog") == ["a photo of sks dog", "my dog"]


@pytest.mark.parametrize(
    "value",
    [
        "",
        "not json",
        "[" * 100_000,
        "3",
        '{"1_x": 4}',
        '{"1_x": {"a": "many", "": 1, "b": null}}',
        '{"x": {"\\u001b[31m": 1}}',
    ],
)
def test_odd_metadata_tell_no_prompts_and_stop_nothing(value: str):
    assert [c.text for c in from_metadata({"ss_tag_frequency": value, "ss_datasets": value})] in ([], ["x"])


def test_the_most_frequent_are_taken():
    tags = {f"a caption that has the number {i}": i for i in range(500)}
    found = from_metadata({"ss_tag_frequency": json.dumps({"10_": tags})}, most=7)
    assert [c.text for c in found] == [f"a caption that has the number {i}" for i in range(499, 492, -1)]


def test_without_any_the_mend_is_told():
    with pytest.raises(InputError, match="x tells no prompts in its metadata: give --prompts"):
        require([], "x")


def test_captions_of_a_folder_are_read_the_most_frequent_first(tmp_path: Path):
    for name, caption in {"a/1": "a cat", "a/2": "a dog\n", "b/3": "a dog", "b/4": "", "b/5": "a  dog"}.items():
        file = tmp_path / f"{name}.txt"
        file.parent.mkdir(exist_ok=True)
        file.write_text(caption)
    found, notes = prompts_in(tmp_path)
    assert [(c.text, c.source) for c in found] == [
        ("a dog", f"caption of {tmp_path.name}, 3 times"),
        ("a cat", f"caption of {tmp_path.name}"),
    ]
    assert notes == ["1 of 5 captions cannot be read, or are empty"]
    found, notes = prompts_in(tmp_path, most=1)
    assert len(found) == 1 and "1 of 2 prompts are left out, the rarer ones: raise --most" in notes[1]


def test_a_file_is_read_as_elsewhere(tmp_path: Path):
    (tmp_path / "p.csv").write_text("prompt,x\na cat,1\na dog,2\na cat,3\n")
    assert [c.text for c in prompts_in(tmp_path / "p.csv")[0]] == ["a cat", "a dog"]
    (tmp_path / "none").mkdir()
    with pytest.raises(InputError, match="holds no prompts"):
        prompts_in(tmp_path / "none")
    with pytest.raises(InputError, match="nowhere"):
        prompts_in(tmp_path / "nowhere.txt")
