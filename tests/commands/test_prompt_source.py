import io
import json
import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cryptomnesia.commands.prompts import PromptSource
from cryptomnesia.errors import InputError

words = (
    st.text(string.ascii_letters + " ,\"'é猫#[]", min_size=1)
    .map(str.strip)
    .filter(lambda t: t and not t.startswith("# "))
)


def test_arguments_come_before_the_file(tmp_path):
    file = tmp_path / "more.txt"
    file.write_text("# animals\na cat\n\n  #dog  \r\n", encoding="utf-8")
    source = PromptSource(["a fox"], str(file))
    assert list(source) == ["a fox", "a cat", "#dog"]
    assert source.total == 3


@given(st.lists(words, min_size=1, max_size=8))
def test_every_format_gives_the_prompts_back(tmp_path_factory, texts):
    import csv

    folder = tmp_path_factory.mktemp("prompts")
    (folder / "p.txt").write_text("\n".join(texts), encoding="utf-8-sig")
    (folder / "p.jsonl").write_text("\n".join(json.dumps({"prompt": t}) for t in texts), encoding="utf-8")
    for name, delimiter in (("p.csv", ","), ("p.tsv", "\t")):
        with open(folder / name, "w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file, delimiter=delimiter)
            writer.writerows([("number", "prompt"), *enumerate(texts)])
    for name in ("p.txt", "p.jsonl", "p.csv", "p.tsv"):
        assert list(PromptSource(file=str(folder / name))) == texts


def test_column_and_format_can_be_named(tmp_path):
    file = tmp_path / "table.data"
    file.write_text("id,text\n1,a cat\n2,\n")
    assert list(PromptSource(file=str(file), format="csv", column="text")) == ["a cat"]


def test_standard_input_is_read_as_it_comes(monkeypatch):
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO("a cat\nein Hündchen\n".encode())))
    source = PromptSource(file="-")
    assert source.total is None
    assert list(source) == ["a cat", "ein Hündchen"]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("p.txt", b"", "holds no prompt"),
        ("p.txt", b"\n  \n", "holds no prompt"),
        ("p.txt", b"caf\xe9\n", "line 1 is not UTF-8 text: save the file as UTF-8"),
        ("p.jsonl", b'{"prompt": \n', "none of the 1 rows .*; line 1 is not valid JSON"),
        ("p.jsonl", b'\n["b"]\n', "line 2 has no field 'prompt'"),
        ("p.jsonl", b'{"prompt": 3}\n', "line 1 is no text but int"),
        ("p.jsonl", b'{"prompt": "\\udcff"}\n', "line 1 is not valid JSON .it is no UTF-8 text"),
        ("p.csv", b"text,id\na,1\n", r"no column 'prompt' \(its columns: text, id\)"),
        ("p.csv", b"", r"no column 'prompt' \(its columns: none\)"),
        ("p.csv", b"id,prompt\n2\n", "line 2 has no column"),
        ("p.csv", b'id,prompt\n1,"a\n', "line 2 is not valid CSV .a quote is never closed"),
    ],
)
def test_bad_files_are_named_at_once(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=message):
        PromptSource(file=str(tmp_path / name))


def test_bad_arguments(tmp_path):
    with pytest.raises(InputError, match="no prompts"):
        PromptSource()
    with pytest.raises(InputError, match="there is no file"):
        PromptSource(file=str(tmp_path / "missing.txt")).__iter__().__next__()
    with pytest.raises(InputError, match="is a folder"):
        list(PromptSource(file=str(tmp_path)))
    with pytest.raises(InputError, match="unknown format 'xml'"):
        PromptSource(["a"], format="xml")
    for text, why in (
        ("\udcff", "not valid Unicode"),
        ("a\0b", "NUL"),
        ("\u200b\x1b", "can be seen"),
        ("x" * 20_001, "20001"),
    ):
        with pytest.raises(InputError, match=f"prompt 2 of the command line .*{why}"):
            PromptSource(["fine", text])
    assert list(PromptSource([""])) == [""]


def test_rows_that_are_no_prompts_are_left_out_and_told(tmp_path, capsys):
    (tmp_path / "p.csv").write_text("id,Prompt \n1,a\n2,\n3,\x1b\n4,b\n5,\n6,\n")
    source = PromptSource(file=str(tmp_path / "p.csv"))
    assert source.total == 2 and list(source) == ["a", "b"]
    source.tell()
    err = capsys.readouterr().err
    assert "'Prompt ' is taken for the column 'prompt'" in err and "4 of 6 rows could not be used" in err
    assert "line 3 is empty; line 4 has no character that can be seen; line 6 is empty; and 1 more" in err
    source = PromptSource(["a"])
    source.tell()
    assert capsys.readouterr().err == ""
