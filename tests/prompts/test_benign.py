"""Benign prompts as they are typed: each once, and none that is no prompt."""

import pytest

from cryptomnesia.errors import InputError
from cryptomnesia.prompts import BENIGN, benign
from cryptomnesia.prompts.reader import PromptFile, PromptLines
from cryptomnesia.prompts.rows import Reject, Row


def test_each_prompt_counts_once():
    assert benign(["a cat", "  a cat ", "# note", "", "#hashtag"]) == ["a cat", "#hashtag"]


def test_no_prompt_means_the_shipped_list():
    shipped = [row.value for row in PromptFile(BENIGN) if isinstance(row, Row)]
    assert benign() == benign(["", "# none"]) == shipped and len(shipped) == len(set(shipped)) >= 400


def test_a_line_that_is_no_prompt_is_named():
    for line, why in (("a\0b", "NUL"), ("\u200b", "can be seen"), ("x" * 20_001, "20001 characters")):
        with pytest.raises(InputError, match=f"line 2 of the list of prompts .*{why}.*: correct it"):
            benign(["fine", line])


def test_typed_lines_are_rows_or_rejects_as_those_of_files():
    rows = PromptLines(["a", "# b", "\0", " c "], "the box")
    assert [type(row) for row in rows] == [Row, Reject, Row] and (rows.rows, rows.rejected) == (3, 1)
    (note,) = rows.notes()
    assert note == "the box: 1 of 3 rows could not be used (line 3 holds a NUL character)"
    with pytest.raises(InputError, match="the box holds no prompt"):
        list(PromptLines(["", "# b"], "the box"))
