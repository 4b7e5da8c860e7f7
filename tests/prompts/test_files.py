"""The one reader of prompt files: the same prompts whatever wrote the file, and a line for whatever is no prompt."""

import csv
import gzip
import io
import json
import sys

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from cryptomnesia.audit.inputs import Prompts
from cryptomnesia.cli import run
from cryptomnesia.commands.prompts import PromptSource
from cryptomnesia.errors import InputError
from cryptomnesia.prompts import parquet, plain, text
from cryptomnesia.prompts.captions import caption_of
from cryptomnesia.prompts.reader import PromptFile
from cryptomnesia.prompts.rows import LONGEST, Reject, Row, fault, trimmed

ENCODINGS = ("utf-8", "utf-8-sig", "utf-16", "utf-16-le with mark", "utf-16-be with mark")
ENDS = ("\n", "\r\n", "\r")
SUFFIXES = (".txt", ".csv", ".csv;", ".csv\t", ".tsv", ".jsonl", ".json", ".json of objects", ".parquet")

letters = st.characters(exclude_categories=["Cs"], exclude_characters="\0\r\n")
prompts = (
    st.text(letters, min_size=1, max_size=30)
    .map(trimmed)
    .filter(lambda t: fault(t) is None and not t.startswith(("# ", "{", "[")) and "\t" not in t)
)


def encoded(content, encoding):
    if encoding.endswith("with mark"):
        return ("\ufeff" + content).encode(encoding.split()[0])
    return content.encode(encoding)


def write(folder, texts, kind, encoding="utf-8", end="\n", packed=False):
    """A file with these prompts; tables have another column before and after them."""
    suffix = kind[: 1 + len(kind[1:].rstrip(";\t").split(" ")[0])]
    if suffix == ".parquet":
        buffer = io.BytesIO()
        pq.write_table(pa.table({"id": range(len(texts)), "prompt": texts}), buffer)
        data = buffer.getvalue()
    else:
        data = encoded(content(texts, kind, end), encoding)
    file = folder / f"p{suffix}{'.gz' if packed else ''}"
    file.write_bytes(gzip.compress(data) if packed else data)
    return file


def content(texts, kind, end):
    if kind == ".txt":
        return end.join(["# a comment", "", *texts])
    if kind == ".jsonl":
        return end.join(json.dumps({"prompt": text, "n": 1}, ensure_ascii=False) for text in texts)
    if kind == ".json":
        return json.dumps(texts, ensure_ascii=False)
    if kind == ".json of objects":
        return json.dumps([{"prompt": text} for text in texts], indent=2).replace("\n", end)
    delimiter = "\t" if kind == ".tsv" else kind[-1] if kind[-1] in ";\t" else ","
    stream = io.StringIO()
    writer = csv.writer(stream, delimiter=delimiter, lineterminator=end, quoting=csv.QUOTE_ALL)
    writer.writerows([("n", "prompt", "more"), *((i, text, "x;,\ty") for i, text in enumerate(texts))])
    return stream.getvalue()


def read(file, **options):
    return list(PromptFile(file, **options))


@given(
    st.lists(prompts, min_size=1, max_size=6),
    st.sampled_from(SUFFIXES),
    st.sampled_from(ENCODINGS),
    st.sampled_from(ENDS),
    st.booleans(),
)
@example(["a red cat", "a blue dog", "memorized"], ".txt", "utf-8", "\r", False)
@example(["zwei Hündchen", "猫"], ".csv\t", "utf-16", "\r\n", False)
@settings(max_examples=150)
def test_line_ends_encodings_and_formats_change_nothing(tmp_path_factory, texts, kind, encoding, end, packed):
    file = write(tmp_path_factory.mktemp("f"), texts, kind, encoding, end, packed)
    rows = [Row(i, one) for i, one in enumerate(texts)]
    assert read(file) == rows
    assert list(PromptSource(file=str(file))) == texts  # check, calibrate, ...
    assert list(Prompts(file)) == rows  # audit


@given(st.binary(max_size=400), st.sampled_from([".txt", ".csv", ".jsonl", ".json", ".parquet", ".csv.gz"]))
@settings(max_examples=150)
def test_any_bytes_are_rows_or_one_line(tmp_path_factory, data, suffix):
    file = tmp_path_factory.mktemp("any") / f"p{suffix}"
    file.write_bytes(data)
    try:
        rows = read(file)
    except InputError as error:
        assert str(file) in str(error) and "\n" not in str(error)
    else:
        assert [row.row for row in rows] == list(range(len(rows)))
        assert all(fault(row.value) is None for row in rows if isinstance(row, Row))


# --- files that are refused, with the mend ---


@pytest.mark.parametrize(
    ("name", "data", "words"),
    [
        ("p.txt", "ein Hündchen\nzwei".encode("utf-16-le"), "line 1 holds NUL .* without a byte order mark: save it"),
        ("p.txt", "a cat".encode("utf-32"), "UTF-32"),
        ("p.csv", b"prompt\na\0b\n", "line 2 holds NUL"),
        ("p.json", b'["a",\n"caf\xe9"]', "line 2 is not UTF-8"),
        ("p.txt", "fine\n\U0001f600".encode("utf-16")[:-2], "line 2 is not UTF-16"),
        ("p.txt", "fine".encode("utf-16")[:-1], "cut off in its last character"),
        ("p.txt.gz", gzip.compress(b"a cat\n" * 99, mtime=0)[:-9], "no whole gzip file"),
        ("p.txt.gz", gzip.compress(b"a cat", mtime=0)[:-8] + bytes(8), "no whole gzip file"),
        ("p.json", b'["a" "b"]', "line 1 is not valid JSON .a comma"),
        ("p.json", b'["a",\r"b"', "line 2 is not valid JSON"),
        ("p.json", b'["a"] x', "goes on after its array"),
        ("p.json", b'["a",]', "line 1 is not valid JSON"),
        ("p.json", b"[" * 100_000, "nested too deeply"),
        ("p.json", b"[]", "holds no prompt"),
        ("p.json", b'{"prompts": ["a"]}', "has no field 'prompt'"),
        (
            "p.csv",
            b"prompt,id,prompt\na,1,b\n",
            r"several columns 'prompt': 'prompt' \(number 1\), 'prompt' \(number 3\)",
        ),
        ("p.csv", b"Prompt,PROMPT \na,b\n", "several columns 'prompt'"),
        ("p.csv", b'prompt,"x\na,b\n', "line 1, which names the columns, is not valid CSV"),
        ("p.txt", b'{"prompt": "a"}\n', "looks like JSON lines: add --format jsonl"),
        ("p.txt", b'["a", "b"]\n', "looks like a JSON array: add --format json"),
        ("p.txt", b'[\n"a"\n]', "looks like JSON: add --format json"),
        ("p.txt", b"id\tPrompt\n1\ta\n", "looks like a table: add --format tsv"),
        ("p.parquet", b"PAR1", "cut off, damaged or no Parquet"),
        ("p.xlsx", b"PK", "no known format"),
        ("p.yaml", b"- a", "no known format"),
    ],
)
def test_files_that_are_no_list_of_prompts(tmp_path, name, data, words):
    (tmp_path / name).write_bytes(data)
    for reader in (PromptFile, Prompts, lambda file: PromptSource(file=str(file))):
        with pytest.raises(InputError, match=words) as caught:
            list(reader(tmp_path / name))
        assert "\n" not in str(caught.value) and name in str(caught.value)


def test_a_format_that_is_named_is_believed(tmp_path):
    file = tmp_path / "p.txt"
    file.write_text('{"prompt": "a"}\n')
    assert read(file, format="jsonl") == [Row(0, "a")]
    assert read(file, format="txt") == [Row(0, '{"prompt": "a"}')]
    (tmp_path / "p.xyz").write_text("a\n")
    assert read(tmp_path / "p.xyz", format="txt") == [Row(0, "a")]
    (tmp_path / "list").write_text("a\n")
    assert read(tmp_path / "list") == [Row(0, "a")]


def test_a_packed_file_unpacks_to_a_bounded_size(tmp_path, monkeypatch):
    monkeypatch.setattr(text, "MOST_UNPACKED", 1 << 20)
    (tmp_path / "p.txt.gz").write_bytes(gzip.compress(b"a cat\n" * 300_000))
    with pytest.raises(InputError, match=r"unpacks to over .*: unpack it first"):
        read(tmp_path / "p.txt.gz")


def test_an_array_of_bounded_size(tmp_path, monkeypatch):
    monkeypatch.setattr(plain, "MOST_ARRAY", 1000)
    (tmp_path / "p.json").write_text(json.dumps(["a cat"] * 200))
    with pytest.raises(InputError, match=r"longer than .*write one object per line, as \.jsonl"):
        read(tmp_path / "p.json")


# --- rows that are rejected, with their line ---


def rejects(rows):
    return [(row.line, row.reason) for row in rows if isinstance(row, Reject)]


def test_one_unclosed_quote_costs_one_row(tmp_path):
    lines = [f"{i},a cat {i}" for i in range(300)]
    lines[100] = '100,"a cat'
    for last in (["300,end"], ['300,"in quotes"'], ['300,"x""y"', "301,end"]):
        (tmp_path / "p.csv").write_text("\n".join(["id,prompt", *lines, *last]))
        rows = read(tmp_path / "p.csv")
        assert len(rows) == 300 + len(last)
        ((line, reason),) = rejects(rows)
        assert line == 102 and "a quote in it is not closed" in reason
        assert rows[101] == Row(101, "a cat 101") and rows[299] == Row(299, "a cat 299")


def test_quotes_that_are_never_closed_cost_their_lines_only(tmp_path):
    lines = ["id,prompt"] + [f'{i},"x' if i % 3 == 0 else f"{i},x" for i in range(6000)]
    (tmp_path / "p.csv").write_text("\r".join(lines))
    rows = read(tmp_path / "p.csv")
    assert len(rows) == 6000 and len(rejects(rows)) == 2000


def test_text_with_line_ends_in_quotes_is_one_prompt(tmp_path):
    (tmp_path / "p.csv").write_bytes(b'prompt,id\r\n"a cat,\r\nred",1\r\n\r\nb,2\r\n"c""d",3\r\n,,\r\n')
    assert read(tmp_path / "p.csv") == [Row(0, "a cat,\r\nred"), Row(1, "b"), Row(2, 'c"d')]


def test_cells_without_a_name_are_no_part_of_the_table(tmp_path):
    (tmp_path / "p.csv").write_text("prompt\na red, fat cat\na dog\nb,,\n")
    rows = read(tmp_path / "p.csv")
    assert rows[1:] == [Row(1, "a dog"), Row(2, "b")]  # empty ones are what spreadsheets add
    assert "2 cells, and only 1 have a name: put text with a delimiter into quotes" in rows[0].reason
    assert rows[0].excerpt == "a red, fat cat" and rows[0].line == 2


@pytest.mark.parametrize("head", ["id;prompt", "sep=;\nid;prompt", '\n"id";"prompt"'])
def test_delimiters_are_found_or_given(tmp_path, head):
    (tmp_path / "p.csv").write_text(head + "\n1;a, b\tc\n")
    assert read(tmp_path / "p.csv") == [Row(0, "a, b\tc")]
    with pytest.raises(InputError, match=r"no column 'prompt'|names the columns"):
        read(tmp_path / "p.csv", delimiter="|")
    for wrong in ("", "ab", "\n", "é€"):
        with pytest.raises(InputError, match="--delimiter is one character"):
            read(tmp_path / "p.csv", delimiter=wrong)
    (tmp_path / "q.csv").write_text("id|prompt\n1|a;b\n")
    assert read(tmp_path / "q.csv", delimiter="|") == [Row(0, "a;b")]
    (tmp_path / "t.csv").write_text("id\tprompt\n1\ta;b\n")
    assert read(tmp_path / "t.csv", delimiter="tab") == read(tmp_path / "t.csv") == [Row(0, "a;b")]


def test_odd_json_lines_cost_no_others(tmp_path):
    lines = ['"a text"', "[" * 100_000, '{"prompt": "x", "prompt": "y"}', '{"prompt": "\\ud800"}', '{"prompt": NaN}']
    lines += ['{"PROMPT ": "z"}', '{"Prompt": "x", "PROMPT": "y"}', "9" * 5000]
    (tmp_path / "p.jsonl").write_text("\n".join(lines))
    rows = read(tmp_path / "p.jsonl")
    assert [row.value for row in rows if isinstance(row, Row)] == ["a text", "z"]
    expected = ["nested", "twice", "UTF-8", "NaN", "several fields"]
    assert all(word in reason for word, (_, reason) in zip(expected, rejects(rows), strict=False))
    assert [line for line, _ in rejects(rows)] == [2, 3, 4, 5, 7, 8]


@pytest.mark.parametrize("kind", [".txt", ".csv", ".jsonl", ".json", ".parquet"])
def test_what_is_no_prompt_is_rejected_everywhere_alike(tmp_path, kind):
    odd = ["x" * (LONGEST + 1), "\u200b\u2060", "\x1b\x07 \x85", "\u202e"]
    rows = read(write(tmp_path, ["fine", *odd, "fine, too"], kind))
    assert [type(row) for row in rows] == [Row, Reject, Reject, Reject, Reject, Row]
    assert "20001 characters" in rows[1].reason and all("can be seen" in row.reason for row in rows[2:5])


def test_a_mark_of_a_file_that_was_appended_is_no_letter(tmp_path):
    (tmp_path / "p.txt").write_bytes("a\n".encode("utf-8-sig") + "b\n".encode("utf-8-sig"))
    assert read(tmp_path / "p.txt") == [Row(0, "a"), Row(1, "b")]


# --- Parquet ---


def test_two_columns_of_a_parquet_are_refused(tmp_path):
    pq.write_table(pa.table([pa.array(["a"]), pa.array(["b"])], names=["prompt", "prompt"]), tmp_path / "p.parquet")
    with pytest.raises(InputError, match=r"several columns 'prompt': .*number 1.*number 2"):
        read(tmp_path / "p.parquet")
    pq.write_table(pa.table([pa.array(["a"]), pa.array(["b"])], names=["Prompt ", "id"]), tmp_path / "p.parquet")
    assert read(tmp_path / "p.parquet") == [Row(0, "a")]


@pytest.mark.parametrize("dictionary", [True, False])
def test_a_badly_encoded_cell_is_rejected(tmp_path, dictionary):
    data = [b"fine", b"caf\xe9", None, b"\xf0\x9f", b"fine"]
    odd = pa.Array.from_buffers(pa.string(), 5, pa.array(data, pa.binary()).buffers())
    pq.write_table(pa.table({"prompt": odd}), tmp_path / "p.parquet", use_dictionary=dictionary)
    rows = read(tmp_path / "p.parquet")
    assert [type(row) for row in rows] == [Row, Reject, Reject, Reject, Row]
    assert [row.reason for row in rows[1:4]] == ["is not UTF-8 text", "is no text but nothing", "is not UTF-8 text"]
    notes = PromptFile(tmp_path / "p.parquet")
    list(notes)
    assert "row 1 (counted from 0) is not UTF-8 text" in notes.notes()[0]


@pytest.mark.parametrize("kind", [pa.string(), pa.large_string(), pa.binary(), pa.dictionary(pa.int32(), pa.string())])
def test_texts_of_any_type(tmp_path, kind):
    texts = ["a", "b", "a", None] * 1000
    pq.write_table(pa.table({"prompt": pa.array(texts).cast(kind)}), tmp_path / "p.parquet", row_group_size=1500)
    rows = read(tmp_path / "p.parquet")
    assert [getattr(row, "value", None) for row in rows] == texts


@pytest.mark.parametrize("kind", [pa.list_(pa.string()), pa.struct([("a", pa.string())]), pa.timestamp("s")])
def test_columns_of_no_text(tmp_path, kind):
    pq.write_table(pa.table({"prompt": pa.array([None], kind)}), tmp_path / "p.parquet")
    with pytest.raises(InputError, match=r"none of the 1 rows .* is no text but"):
        read(tmp_path / "p.parquet")


@pytest.mark.parametrize("shape", [[2 << 20], [2 << 20, 1, 1]])
def test_a_small_parquet_that_unpacks_to_much_is_refused(tmp_path, monkeypatch, shape):
    monkeypatch.setattr(parquet, "SURE_CHUNK", 1 << 20)
    cells = [pa.array([b"x" * size], pa.binary()).cast(pa.string()) for size in shape]
    with pq.ParquetWriter(tmp_path / "p.parquet", pa.schema([("prompt", pa.string())]), compression="zstd") as writer:
        writer.write_table(pa.table({"prompt": pa.chunked_array(cells)}))
    assert (tmp_path / "p.parquet").stat().st_size < 10_000
    with pytest.raises(InputError, match=r"would unpack to .* MB in row group 0"):
        read(tmp_path / "p.parquet")


def test_a_long_text_in_many_rows_is_held_once(tmp_path, monkeypatch):
    import tracemalloc

    pq.write_table(pa.table({"prompt": ["x" * 500_000] * 400 + ["fine"]}), tmp_path / "p.parquet", compression="zstd")
    before = pa.default_memory_pool().max_memory()
    tracemalloc.start()
    rows = read(tmp_path / "p.parquet")
    assert tracemalloc.get_traced_memory()[1] < 20 << 20
    tracemalloc.stop()
    assert pa.default_memory_pool().max_memory() - before < 60 << 20
    assert rows[-1] == Row(400, "fine") and rows[0].reason.startswith("has 500000 bytes")
    assert parquet.MOST_BYTES == 4 * LONGEST


def test_parquet_from_standard_input(tmp_path, monkeypatch):
    data = write(tmp_path, ["a", "b"], ".parquet").read_bytes()
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(data)))
    assert list(PromptSource(file="-", format="parquet")) == ["a", "b"]


# --- beside the reader ---


def test_standard_input_is_the_users_own(monkeypatch):
    """It is neither closed nor read farther than needed to know what it is."""
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b'{"prompt": "a"}\n')))
    with pytest.raises(InputError, match="standard input looks like JSON lines"):
        list(PromptSource(file="-"))
    assert not sys.stdin.closed
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(gzip.compress("a\r\né\r".encode("utf-16")))))
    assert list(PromptSource(file="-")) == ["a", "é"]


def test_without_pyarrow_other_files_are_read(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    assert read(write(tmp_path, ["a"], ".csv")) == [Row(0, "a")]


def test_captions_are_read_like_prompts(tmp_path):
    image = tmp_path / "a.png"
    for data in (b" a cat\r\n", "a cat".encode("utf-16"), "a cat".encode("utf-8-sig")):
        (tmp_path / "a.txt").write_bytes(data)
        assert caption_of(image) == "a cat"
    for data in (b"caf\xe9", b"a\0b", b"", b"x" * 50_000, None):
        (tmp_path / "a.txt").unlink()
        if data is not None:
            (tmp_path / "a.txt").write_bytes(data)
        else:
            (tmp_path / "a.txt").mkdir()
        with pytest.raises(InputError, match=r"the prompt of .*a\.png is not known .*put it in a\.txt beside it"):
            caption_of(image)


def test_check_tells_of_rejected_rows(tmp_path, capsys):
    from ..helpers import pipelines

    pipelines.build("sd1").save_pretrained(tmp_path / "model")
    (tmp_path / "p.csv").write_text("id;Prompt\n1;a cat\n2;\n3;a dog\n")
    run(["check", "-m", str(tmp_path / "model"), "-f", str(tmp_path / "p.csv"), "--draws", "1", "--json"])
    out, err = capsys.readouterr()
    assert out.count("a cat") == out.count("a dog") == 1
    assert "1 of 3 rows could not be used (line 3 is empty)" in err and "'Prompt' is taken for" in err
