"""Words that differ between two prompts are marked, and nothing of either is lost."""

from hypothesis import given
from hypothesis import strategies as st

from cryptomnesia.pages.marks import marked

prompts = st.lists(st.sampled_from(["a", "red", "cat,", "<b>", "&", "猫", "(x:1.2)", "🎉"]), max_size=6).map(" ".join)


@given(prompts, prompts)
def test_marks_join_up_to_the_prompts(before, after):
    for text, pieces in zip((before, after), marked(before, after), strict=True):
        assert "".join(piece.text for piece in pieces) == text and all(piece.text for piece in pieces)


@given(prompts)
def test_equal_prompts_have_no_marks(prompt):
    assert not any(piece.changed for pieces in marked(prompt, prompt) for piece in pieces)


def test_marks_show_what_was_put_in_left_out_and_swapped():
    old, new = marked("the old red cat", "the red dog now")
    assert [piece.text for piece in old if piece.changed] == ["old", "cat"]
    assert [piece.text for piece in new if piece.changed] == ["dog", "now"]
