"""Inputs of audits: every row once and in its place, bad ones as rejects, hopeless files as one line."""

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cryptomnesia.audit.inputs import ENDS, Images, Prompts
from cryptomnesia.audit.rows import EXCERPT, Reject, Row
from cryptomnesia.errors import InputError
from cryptomnesia.prompts.rows import LONGEST
from cryptomnesia.prompts.text import MOST_LINE

TEXTS = ["a red cat", 'she said "no"', "zwei\u00e4", "#hashtag, with comma"]


def write(path, texts=TEXTS, column="prompt"):
    """A file of the kind that its name tells."""
    if path.suffix == ".txt":
        path.write_text("\n".join(["# a comment", "", *texts]), "utf-8")
    elif path.suffix == ".jsonl":
        path.write_text("\n\n".join(json.dumps({"id": 1, column: text}) for text in texts), "utf-8")
    elif path.suffix in (".csv", ".tsv"):
        comma = "," if path.suffix == ".csv" else "\t"
        lines = ['"' + text.replace('"', '""') + '"' for text in texts]
        path.write_text("\r\n".join([f"id{comma}{column}", *(f"7{comma}{line}" for line in lines)]), "utf-8")
    else:
        pq.write_table(pa.table({"id": [1] * len(texts), column: list(texts)}), path, row_group_size=3)
    return path


def read(path, **options):
    source = Prompts(path, **options)
    rows = list(source)
    assert source.total == len(rows)
    assert [row.row for row in rows] == list(range(len(rows)))
    return rows


@pytest.mark.parametrize("suffix", ["txt", "jsonl", "csv", "tsv", "parquet"])
def test_every_format_gives_the_same_rows(tmp_path, suffix):
    rows = read(write(tmp_path / f"log.{suffix}"))
    assert rows == [Row(i, text) for i, text in enumerate(TEXTS)]


@pytest.mark.parametrize("suffix", ["jsonl", "csv", "parquet"])
def test_the_column_is_named(tmp_path, suffix):
    path = write(tmp_path / f"log.{suffix}", column="text")
    assert read(path, column="text")[0] == Row(0, TEXTS[0])
    with pytest.raises(InputError, match=r"prompt.*--column"):
        Prompts(path)


@given(
    st.lists(
        st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1), min_size=1, max_size=8
    )
)
@settings(max_examples=60)
def test_tables_bring_any_text(tmp_path_factory, texts):
    texts = [f"x{text}x" for text in texts]
    folder = tmp_path_factory.mktemp("any")
    for suffix in ("jsonl", "parquet"):
        assert [row.value for row in read(write(folder / f"log.{suffix}", texts))] == texts


def test_rows_that_are_no_text_are_rejected_in_their_place(tmp_path):
    path = tmp_path / "log.jsonl"
    lines = ['{"prompt": "fine"}', '{"prompt": 7}', '{"prompt": null}', '{"other": "x"}', "{broken", "[1]"]
    lines += ['{"prompt": "  "}', '{"prompt": "\\ud800"}', "[" * 100_000, '{"prompt": "fine, too"}']
    lines += ['{"prompt": "nul \\u0000"}', '{"prompt": "\\u200b\\u0007"}', '{"prompt": "a", "prompt": "b"}']
    path.write_bytes("\n".join(lines).encode())
    rows = read(path)
    assert [row.row for row in rows if isinstance(row, Row)] == [0, 9]
    reasons = [row.reason for row in rows if isinstance(row, Reject)]
    expected = ["int", "nothing", "no field", "JSON", "no field", "empty", "UTF-8", "nested too deeply"]
    expected += ["NUL", "can be seen", "appears twice"]
    for words, reason in zip(expected, reasons, strict=True):
        assert words in reason
    assert [row.line for row in rows if isinstance(row, Reject)] == [2, 3, 4, 5, 6, 7, 8, 9, 11, 12, 13]
    assert all(len(row.excerpt) <= EXCERPT for row in rows if isinstance(row, Reject))


@pytest.mark.parametrize("suffix", ["txt", "csv", "jsonl"])
def test_a_text_in_another_encoding_is_refused(tmp_path, suffix):
    start = {"txt": b"\xef\xbb\xbffine", "csv": b"prompt", "jsonl": b'{"prompt": "fine"}'}[suffix]
    (tmp_path / f"log.{suffix}").write_bytes(start + b"\ncaf\xe9\nfine")
    with pytest.raises(InputError, match="line 2 is not UTF-8 text: save the file as UTF-8"):
        Prompts(tmp_path / f"log.{suffix}")


@pytest.mark.parametrize("suffix", ["txt", "jsonl", "csv", "parquet"])
def test_a_prompt_of_a_megabyte_is_rejected(tmp_path, suffix):
    rows = read(write(tmp_path / f"log.{suffix}", ["before", "x" * 2**20, "after"]))
    assert [type(row) for row in rows] == [Row, Reject, Row] and rows[2].value == "after"
    assert len(rows[1].excerpt) <= EXCERPT


def test_prompts_up_to_the_limit_are_read(tmp_path):
    assert isinstance(read(write(tmp_path / "log.txt", ["x" * LONGEST]))[0], Row)


def test_a_line_that_never_ends_is_not_kept(tmp_path):
    (tmp_path / "log.txt").write_bytes(b"before\n" + b"x" * (3 * MOST_LINE) + b"\nafter")
    rows = read(tmp_path / "log.txt")
    assert [type(row) for row in rows] == [Row, Reject, Row] and rows[2].value == "after"


def test_bad_lines_of_a_table_cost_no_others(tmp_path):
    path = tmp_path / "log.csv"
    path.write_text('id,prompt\n1,one\n2\n3,"a"b\n\n4,four\n5,"' + "x" * 200_000 + '"\n6,six\n')
    rows = read(path)
    assert [row.value for row in rows if isinstance(row, Row)] == ["one", "four", "six"]
    assert [(row.row, row.line) for row in rows if isinstance(row, Reject)] == [(1, 3), (2, 4), (4, 7)]


def test_a_parquet_of_numbers_or_nulls(tmp_path):
    pq.write_table(pa.table({"prompt": ["a", None]}), tmp_path / "nulls.parquet")
    assert [type(row) for row in read(tmp_path / "nulls.parquet")] == [Row, Reject]
    pq.write_table(pa.table({"prompt": [1, 2]}), tmp_path / "numbers.parquet")
    with pytest.raises(InputError, match="none of the 2 rows"):
        Prompts(tmp_path / "numbers.parquet")


@pytest.mark.parametrize("share", [0.5, 0.99])
def test_a_truncated_parquet_is_refused(tmp_path, share):
    path = write(tmp_path / "log.parquet", ["a prompt"] * 1000)
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    with pytest.raises(InputError, match="cut off"):
        Prompts(path)


def test_a_damaged_parquet_is_refused(tmp_path):
    path = write(tmp_path / "log.parquet", [f"prompt {i}" for i in range(3000)])
    data = bytearray(path.read_bytes())
    data[100:3000] = bytes(2900)
    path.write_bytes(data)
    with pytest.raises(InputError, match="cannot be read"):
        Prompts(path)


@pytest.mark.parametrize("suffix", ["txt", "jsonl", "csv", "parquet"])
def test_an_empty_file_is_refused(tmp_path, suffix):
    path = tmp_path / f"log.{suffix}"
    path.touch()
    with pytest.raises(InputError) as caught:
        Prompts(path)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


def test_files_that_cannot_be_used(tmp_path):
    for name in ("log.txt", "log.doc"):
        with pytest.raises(InputError):
            Prompts(tmp_path / name)
    (tmp_path / "folder.txt").mkdir()
    with pytest.raises(InputError):
        Prompts(tmp_path / "folder.txt")


def test_a_digest_tells_of_every_change(tmp_path):
    before = Prompts(write(tmp_path / "log.txt")).digest()
    assert Prompts(write(tmp_path / "log.csv")).digest() == before  # however it is written
    assert Prompts(write(tmp_path / "log.txt")).digest() == before
    assert Prompts(write(tmp_path / "log.txt", [*TEXTS, "more"])).digest() != before


def test_images_of_a_folder_by_name(tmp_path):
    (tmp_path / "sub").mkdir()
    for name in ("b.png", "a.JPG", "sub/c.webp", "notes.txt"):
        (tmp_path / name).write_bytes(b"x")
    source = Images(tmp_path)
    assert list(source) == [Row(0, "a.JPG"), Row(1, "b.png"), Row(2, "sub/c.webp")] and source.total == 3
    before = source.digest()
    (tmp_path / "b.png").write_bytes(b"xx")
    assert Images(tmp_path).digest() != before
    (tmp_path / "b.png").write_bytes(b"xy")
    again = source.digest()
    (tmp_path / "b.png").write_bytes(b"x" + bytes(3 * ENDS) + b"1")
    last = source.digest()
    (tmp_path / "b.png").write_bytes(b"x" + bytes(3 * ENDS) + b"2")
    assert len({before, again, last, source.digest()}) == 4
    (tmp_path / "b.png").unlink()
    assert source.digest() != last
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts" / "notes.txt").touch()
    for folder in (tmp_path / "none", tmp_path / "texts"):
        with pytest.raises(InputError):
            Images(folder)
