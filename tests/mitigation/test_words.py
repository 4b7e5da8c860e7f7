import pytest
from hypothesis import given
from hypothesis import strategies as st

from cryptomnesia.errors import InputError
from cryptomnesia.mitigation.rewrite import changes
from cryptomnesia.mitigation.words import Words, word_list


@given(st.text(max_size=60))
def test_words_and_gaps_make_up_the_prompt(prompt):
    cut = Words.of(prompt)
    assert [prompt[a:b] for a, b in cut.spans] == list(cut.words)
    assert str(cut) == " ".join(prompt.split())
    assert len(cut.gaps) == len(cut) + 1


@pytest.mark.parametrize(
    ("prompt", "words"),
    [
        ("the solemn baker, of Ravenna!", ["the", "solemn", "baker", "of", "Ravenna"]),
        ("a cat's well-kept hat", ["a", "cat's", "well-kept", "hat"]),
        ("雪の夜", ["雪", "の", "夜"]),
        ("Кот на окне", ["Кот", "на", "окне"]),
        ("a 🐵 on 👩\u200d🚀 blue", ["a", "🐵", "on", "👩\u200d🚀", "blue"]),
        ("... !?", []),
        ("", []),
    ],
)
def test_words_of_many_scripts(prompt, words):
    assert list(Words.of(prompt).words) == words


def test_edits():
    cut = Words.of("a red, red rose")
    assert str(cut.drop(1)) == "a red rose"
    assert str(cut.drop(3)) == "a red, red"
    assert str(cut.swap(3, "cat")) == "a red, red cat"
    assert str(cut.insert(0, "still")) == "still a red, red rose"
    assert str(cut.move(2, 3)) == "a red, rose red"
    assert str(cut) == "a red, red rose"


def test_changes_are_named_with_their_significance():
    found = changes(Words.of("the solemn baker of ravenna"), "the baker of small town", {"solemn": 2.0, "ravenna": 1.0})
    assert [(c.kind, c.word, c.became, c.significance) for c in found] == [
        ("drop", "solemn", "", 2.0),
        ("swap", "ravenna", "small", 1.0),
        ("insert", "", "town", 0.0),
    ]


def test_the_shipped_words_and_a_list_of_ones_own(tmp_path):
    assert len(word_list()) > 100 and "#" not in "".join(word_list())
    own = tmp_path / "words.txt"
    own.write_text("# mine\nred\n\nred\nblue # a colour\n")
    assert word_list(own) == ("red", "blue")


def test_word_lists_that_cannot_be_used(tmp_path):
    empty, binary = tmp_path / "empty.txt", tmp_path / "binary.txt"
    empty.write_text("# nothing\n")
    binary.write_bytes(b"\xff\xfe\x00")
    for path, why in ((empty, "no word"), (binary, "UTF-8"), (tmp_path / "missing.txt", "cannot be read")):
        with pytest.raises(InputError, match=why):
            word_list(path)
