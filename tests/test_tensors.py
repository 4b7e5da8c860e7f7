"""Tensors in files: what is damaged, too large or no file with tensors costs one line in the words of the caller."""

import os

import pytest
import torch

from cryptomnesia.errors import InputError
from cryptomnesia.tensors import open_tensors, read_tensors, write_tensors

TENSORS = {"a": torch.arange(6.0).view(2, 3), "b": torch.zeros(0, 2)}


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "a.safetensors"
    write_tensors(path, TENSORS, {"schema": "1"}, "signature file")
    return path


def refused(path, words, **options):
    with pytest.raises(InputError, match=words) as error:
        read_tensors(path, "signature file", **options)
    assert "\n" not in str(error.value)


def test_what_was_written_is_read(file):
    header, tensors = read_tensors(file, "signature file")
    assert header == {"schema": "1"} and tensors.keys() == TENSORS.keys()
    assert all(torch.equal(tensors[name], TENSORS[name]) for name in TENSORS)


def test_what_cannot_be_used_costs_one_line(file, tmp_path):
    refused(tmp_path / "none", "there is no signature file .*none: check the name")
    refused(tmp_path, "no regular file")
    refused(file, "larger than 10 bytes: it is not read", largest=10)
    data = file.read_bytes()
    for damaged in (b"", data[:-1], data[:20], b"\x80\x04pickle"):
        file.write_bytes(damaged)
        refused(file, r"no complete safetensors file .*: make it again")
    file.write_bytes(b"version https://git-lfs.github.com/spec/v1\n")
    refused(file, "Git LFS pointer")
    if hasattr(os, "mkfifo"):
        os.mkfifo(tmp_path / "pipe")
        refused(tmp_path / "pipe", "no regular file")


def test_errors_of_the_caller_stay_what_they_are(file):
    with pytest.raises(InputError, match="mine"), open_tensors(file, "model", "get it again"):
        raise InputError("mine")


def test_a_file_that_cannot_be_written_is_named(tmp_path):
    with pytest.raises(InputError, match=r"the signature file .* cannot be written: .*: choose a folder"):
        write_tensors(tmp_path / "none" / "a", TENSORS, {}, "signature file")
