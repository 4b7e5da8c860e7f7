"""Which words are tried for which pictures."""

import json

import numpy as np
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from cryptomnesia.errors import InputError
from cryptomnesia.extraction import read_captions


@pytest.fixture
def pictures(tmp_path):
    """Three pictures, one of them in a folder below."""
    folder = tmp_path / "mine"
    (folder / "below").mkdir(parents=True)
    for number, name in enumerate(("a_quiet-harbour.png", "b.jpg", "below/c.png")):
        Image.fromarray(np.full((8, 8, 3), 80 * number, np.uint8)).save(folder / name)
    return folder


def asked(captions):
    return {one.prompt: ([captions.name(place) for place in one.pictures], one.source) for one in captions.asked}


def test_words_lie_beside_a_picture_in_it_and_in_a_list(pictures, tmp_path):
    (pictures / "b.txt").write_text("a red barn\n")
    info = PngInfo()
    info.add_text("parameters", "a lake at dawn\nSteps: 20")
    Image.open(pictures / "below/c.png").save(pictures / "below/c.png", pnginfo=info)
    table = tmp_path / "captions.csv"
    table.write_text("file_name,caption\nb.jpg,a barn\nc.png,a lake\nbelow/c.png,a lake at dawn\ngone.png,nothing\n")
    captions = read_captions(pictures, table, ["Ada Painter"])
    assert asked(captions) == {
        "a red barn": (["b.jpg"], "with the picture"),
        "a lake at dawn": (["below/c.png"], "with the picture"),
        "a barn": (["b.jpg"], "list"),
        "a lake": (["below/c.png"], "list"),
        "Ada Painter": ([], "given"),
    }
    assert [captions.name(place) for place in captions.uncaptioned] == ["a_quiet-harbour.png"]
    assert captions.notes == (f"{table}: 1 of 4 captions are of no picture in the folder (gone.png)",)


def test_titles_are_words_where_they_are_asked_for(pictures):
    assert not read_captions(pictures).asked
    titled = read_captions(pictures, titles=True)
    assert asked(titled)["a quiet harbour"] == (["a_quiet-harbour.png"], "title") and not titled.uncaptioned


def test_one_caption_of_two_pictures_is_asked_once(pictures, tmp_path):
    lines = [{"file_name": "b.jpg", "text": "the same"}, {"file_name": "./below\\c.png", "text": "the same"}]
    listed = tmp_path / "metadata.jsonl"
    listed.write_text("\n".join(map(json.dumps, lines)))
    assert asked(read_captions(pictures, listed)) == {"the same": (["b.jpg", "below/c.png"], "list")}


@pytest.mark.parametrize(
    ("name", "text", "complaint"),
    [
        ("a.csv", "file_name,prompt\nx.png,y\n", "names no picture"),
        ("a.csv", "name,prompt\nb.jpg,y\n", "no column with the names of pictures"),
        ("a.csv", "file,words\nb.jpg,y\n", "no column 'prompt'"),
        ("a.txt", "b.jpg a barn\n", "no column with the names of pictures"),
        ("a.csv", "", "no column"),
    ],
)
def test_a_list_that_says_nothing_of_the_pictures_is_told_in_a_line(pictures, tmp_path, name, text, complaint):
    (tmp_path / name).write_text(text)
    with pytest.raises(InputError, match=complaint) as error:
        read_captions(pictures, tmp_path / name)
    assert "\n" not in str(error.value)


def test_no_folder_no_pictures_and_odd_words_are_told(pictures, tmp_path):
    (tmp_path / "empty").mkdir()
    for folder, prompts in ((tmp_path / "gone", ()), (tmp_path / "empty", ()), (pictures, ["\u200b"])):
        with pytest.raises(InputError):
            read_captions(folder, None, prompts)


def test_a_folder_that_leads_into_itself_is_read_once(pictures):
    (pictures / "again").symlink_to(pictures, target_is_directory=True)
    assert len(read_captions(pictures).pictures) == 3
