"""Calibration files: whatever is missing, extra, odd or impossible in one is refused in one line."""

import copy
import json
import os
from functools import cache

import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st

from cryptomnesia.calibration import Calibration, calibrate
from cryptomnesia.errors import CalibrationError

from .helpers.toy import linear, prompts


@cache
def text() -> str:
    calibration = calibrate(linear(), prompts(120))
    return json.dumps(calibration._document())


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return tmp_path_factory.mktemp("file") / "toy.calibration.json"


def refused(path, content: str | bytes) -> str:
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(CalibrationError, match=r"toy\.calibration\.json") as caught:
        Calibration.load(path)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 600
    return str(caught.value)


IMPOSSIBLE = [
    ("alpha", 1e-300),
    ("alpha", 1 / 122),  # 120 prompts reach 1 / 121
    ("alpha", True),
    ("alpha", "0.01"),
    ("draws", 1.5),
    ("draws", 1.0),
    ("draws", True),
    ("draws", 0),
    ("draws", 1025),
    ("draws", 10**9),
    ("draws", 10**400),
    ("latent_shape", [3, -4, 4]),
    ("latent_shape", [3, 4, 0]),
    ("latent_shape", [3, 4.0, 4]),
    ("latent_shape", [3, 4]),
    ("latent_shape", "344"),
    ("fingerprint", None),
    ("fingerprint", ["a"]),
    ("fingerprint", ""),
    ("fingerprint", "a\x1b[31m"),
    ("family", {}),
    ("dtype", "torch.nn"),
    ("dtype", "float32"),
    ("seed", 3),
    ("seed", "0x3"),
    ("seed", "٣"),
    ("seed", str(2**64)),
    ("created", "yesterday"),
    ("created", "20260101"),
    ("n", 120.0),
    ("n", 121),
    ("time", None),
    ("time", -1),
    ("time", 951.0),
    ("time", True),
    ("time", 10**7),
    ("prompts", "abc"),
    ("prompts", 3),
    ("combination", {"reference": [1.0] * 7}),
    ("combination", {"reference": [0.0] * 8}),
    ("combination", {"reference": [True] * 8}),
    ("combination", {"reference": [1.0] * 8, "mean": 0}),
    ("combination", [1.0] * 8),
    ("scores", [[1.0]] * 120),
    ("scores", [True] * 120),
    ("scores", [10**400] * 120),
    ("scores", [1.0] * 99),
]


@pytest.mark.parametrize(("name", "value"), IMPOSSIBLE)
def test_an_impossible_value_is_refused_by_the_name_of_its_field(path, name, value):
    document = json.loads(text()) | {name: value}
    assert name in refused(path, json.dumps(document))


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=True) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=9) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=9,
)
FIELDS = sorted(json.loads(text()))


@given(st.sampled_from(FIELDS), values, st.booleans())
@example("alpha", 0.5, False)
@example("schema", [], False)
def test_one_field_changed_is_refused_or_means_what_it_says(path, name, value, inside):
    """Nothing in between: no crash, and no value that comes out as another one."""
    document = json.loads(text())
    place = copy.deepcopy(document[name])
    if inside and isinstance(place, list):
        place[0] = value
        value = place
    document[name] = value
    path.write_text(json.dumps(document))
    try:
        found = Calibration.load(path)
    except CalibrationError as error:
        assert "\n" not in str(error)
        return
    assert json.loads(json.dumps(found._document())) == document
    assert found.threshold < torch.inf


@given(st.sampled_from(FIELDS))
def test_a_field_that_is_missing_twice_or_unknown_is_refused(path, name):
    document = json.loads(text())
    refused(path, json.dumps({key: value for key, value in document.items() if key != name}))
    refused(path, json.dumps(document | {name + "\n": 1}))
    assert "twice" in refused(path, text()[:-1] + f', "{name}": {json.dumps(document[name])}}}')


def test_what_is_no_json_of_that_size_is_refused(path):
    assert "deeply" in refused(path, '{"schema": ' + "[" * 100_000 + "]" * 100_000 + "}")
    assert "UTF-8" in refused(path, b'{"schema": "\xff"}')
    refused(path, text().replace('"alpha": 0.01', '"alpha": NaN'))
    refused(path, text().replace('"alpha": 0.01', '"alpha": 1e999'))
    refused(path, "[]")
    with path.open("wb") as file:
        file.truncate(65 * 2**20)
    with pytest.raises(CalibrationError, match="larger than 64 MiB"):
        Calibration.load(path)
    path.unlink()


def test_what_is_no_regular_file_does_not_hang(tmp_path):
    with pytest.raises(CalibrationError, match="no calibration that can be read"):
        Calibration.load(tmp_path)
    if hasattr(os, "mkfifo"):
        os.mkfifo(tmp_path / "pipe")
        with pytest.raises(CalibrationError, match="no calibration that can be read"):
            Calibration.load(tmp_path / "pipe")
    with pytest.raises(CalibrationError, match="no calibration that can be read"):
        Calibration.load("a\0b")
