"""Lists are read in the forms in which public ones are written; what is odd in them costs one line, or is told."""

import gzip

import pytest

from cryptomnesia.benchmark.lists import Reading, read_benign, read_lists, without
from cryptomnesia.calibration_run import prompts_digest
from cryptomnesia.errors import InputError

# in the forms of nemo's and fbmem's tables, and of memattn's and anisotropy's lists
NUMBERED = ";Caption;URL;type;mean_sscd;max_sscd;Index\n0;A <i>title</i>, it's;https://a/b?c=1;VM;0.8;0.9;10\n"
NUMBERED += '1;"Watch: ""Lifted; Up"" (1985)";https://d;TM;0.1;0.2;11\n2;Été à 京都;https://e;VM;0.7;0.8;12\n'
CLUSTERS = (
    "Caption;cluster;URL;type;mean_sscd;max_sscd;Index\nfirst;7;https://a;VM;0.8;0.9;10\nsecond;7;https://b;TM;1;1;1\n"
)
WITHOUT = ";Caption;URL;Index\n0;Photo pour pagode | アヤワスカ;https://a;396\n1;Soaring by N. N.;https://b;7984\n"
LINES = 'One <em>line</em>\n"Watch: ""Lifted Up (1985)"""\n\n#hashtag of a caption\nwith the last one unended'


@pytest.fixture
def file(tmp_path):
    def write(name, text, encoding="utf-8"):
        (tmp_path / name).write_bytes(text.encode(encoding))
        return str(tmp_path / name)

    return write


def read(memorized, *negatives, **reading):
    return read_lists(memorized, negatives, Reading(**reading))


def test_public_forms_are_read_as_they_are(file):
    lists = read(file("m.csv", NUMBERED), file("others.csv", WITHOUT), file("lines.txt", LINES))
    assert lists.memorized == {
        "VM": ["A <i>title</i>, it's", "Été à 京都"],
        "TM": ['Watch: "Lifted; Up" (1985)'],
    }
    assert lists.negatives == {
        "others": ["Photo pour pagode | アヤワスカ", "Soaring by N. N."],
        "lines": LINES.replace("\n\n", "\n").split("\n"),
    }
    assert len(lists.texts) == 9 and lists.texts[:3] == lists.positives
    assert read(file("c.csv", CLUSTERS), file("n.txt", "x")).memorized == {"VM": ["first"], "TM": ["second"]}
    assert read(file("p.txt", LINES), file("n.txt", "x")).memorized == {
        "memorized": LINES.replace("\n\n", "\n").split("\n")
    }


def test_other_columns_can_be_named(file):
    table = file("t.tsv", "caption\twords\tgroup\na\tb\tx\nc\td\t\n")
    assert read(table, file("n.txt", "z"), column="words", kinds="group").memorized == {"x": ["b"], "no kind": ["d"]}
    lines = file("t.jsonl", '{"prompt": "a", "type": "VM"}\n{"prompt": "b", "type": "TM"}\n')
    assert read(lines, file("n.txt", "z")).memorized == {"VM": ["a"], "TM": ["b"]}


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_marked_encodings_are_read(file, encoding):
    assert read(file("m.csv", NUMBERED, encoding), file("n.txt", "x")).memorized["VM"][1] == "Été à 京都"


def test_packed_lists_are_read(tmp_path, file):
    (tmp_path / "n.csv.gz").write_bytes(gzip.compress(WITHOUT.encode()))
    assert list(read(file("m.csv", NUMBERED), str(tmp_path / "n.csv.gz")).negatives) == ["n"]


@pytest.mark.parametrize(
    "name, text, encoding, reading, says",
    [
        ("m.csv", "a;b\n1;2\n", "utf-8", {}, "no column 'prompt' or 'caption' or 'text' \\(its columns: a, b\\): name"),
        ("m.csv", NUMBERED, "utf-8", {"column": "words"}, "no column 'words' .*--column"),
        ("m.csv", NUMBERED, "utf-8", {"kinds": "sort"}, "no column 'sort' with kinds: leave out --kinds"),
        ("m.csv", NUMBERED.replace("京都", "Lyon"), "latin-1", {}, "line 4 is not UTF-8 text: save the file as UTF-8"),
        ("m.csv", ";Caption;type\n", "utf-8", {}, "holds no prompt"),
        ("m.dat", LINES, "utf-8", {}, "no known format"),
        ("m.csv", "Caption;caption\na;b\n", "utf-8", {}, None),
        ("m.csv", "CAPTION;Caption\na;b\n", "utf-8", {}, "several columns 'caption'"),
    ],
)
def test_other_lists_cost_one_line(file, name, text, encoding, reading, says):
    memorized, others = file(name, text, encoding), file("n.txt", "x\n")
    if says is None:
        assert read(memorized, others, **reading).memorized == {"memorized": ["b"]}  # the exact name wins
        return
    with pytest.raises(InputError, match=says) as refused:
        read(memorized, others, **reading)
    assert "\n" not in str(refused.value)


def test_a_column_of_all_kinds_of_things_is_taken_for_none(file):
    text = "prompt,type\n" + "".join(f"p{i},t{i}\n" for i in range(30))
    lists = read(file("m.csv", text), file("n.txt", "x"))
    assert list(lists.memorized) == ["memorized"] and any("30 different values" in note for note in lists.notes)
    with pytest.raises(InputError, match="30 different values, and at most 8 kinds"):
        read(file("m.csv", text), file("n.txt", "x"), kinds="type")


def test_positives_among_the_negatives_are_told_and_left_out(file):
    memorized = file("m.txt", "\n".join(f"prompt {i}" for i in range(30)))
    others = file("n.txt", "\n".join(["PROMPT  1", "prompt 7", *(f"other {i}" for i in range(25))]))
    lists = read(memorized, others)
    assert len(lists.negatives["n"]) == 25 and len(lists.positives) == 30
    assert lists.notes == [f"{others}: 2 prompts are among the memorized ones, too, and left out here"]
    with pytest.raises(InputError, match=r"every prompt of .* is among the memorized ones"):
        read(memorized, file("all.txt", "prompt 3\nprompt 4"))


def test_a_prompt_counts_once_and_few_are_told(file):
    memorized = file("m.csv", "prompt,type\na,VM\na,TM\n" + "".join(f"b{i},TM\n" for i in range(20)))
    others = file("n.txt", "\n".join(f"c{i}" for i in range(20)))
    lists = read(memorized, others)
    assert lists.memorized["VM"] == ["a"] and len(lists.memorized["TM"]) == 20
    assert lists.notes == [
        f"{memorized}: 1 of 22 prompts was there before, and counts once",
        "only 1 different prompt of the kind VM: all that is said of them is vague",
    ]


def test_lists_of_one_name_are_told_apart(tmp_path, file):
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "n.txt").write_text(f"prompt of {folder}")
    paths = [str(tmp_path / folder / "n.txt") for folder in ("one", "two")]
    lists = read(file("m.txt", "a"), *paths)
    assert list(lists.negatives) == ["one/n.txt", "two/n.txt"]
    with pytest.raises(InputError, match="the same list of negatives is given twice"):
        read(file("m.txt", "a"), paths[0], paths[0])


def test_standard_input_cannot_be_read_twice():
    with pytest.raises(InputError, match="standard input is no file that can be read twice"):
        read("-", "-")


def test_what_is_compared_calibrates_nothing(file):
    texts, notes = read_benign(file("b.txt", "a cat\nA  Cat\na dog\na dog\n"), Reading())
    assert texts == ["a cat", "A  Cat", "a dog"] and len(notes) == 1
    assert without(texts, ["a  CAT"]) == ["a dog"]


def test_a_calibration_on_a_list_is_known_by_its_digest(file):
    others = file("n.txt", "b\nA\nc")
    assert read(file("m.txt", "a"), others).whole[others] == prompts_digest(["b", "A", "c"])
