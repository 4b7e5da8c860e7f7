"""The command line as its users meet it, for tests: exit code, stdout and stderr of each call."""

from collections.abc import Callable
from typing import Any

import pytest

from cryptomnesia.cli import run

Result = tuple[int, str, str]


def caller(capsys: pytest.CaptureFixture[str], *first: Any) -> Callable[..., Result]:
    """call(*arguments) -> exit code, stdout, stderr of the command that begins with `first`."""

    def call(*arguments: Any) -> Result:
        capsys.readouterr()
        code = run([str(argument) for argument in (*first, *arguments)])
        out, err = capsys.readouterr()
        return code, out, err

    return call


def one_line(result: Result) -> str:
    """The one line that bad input costs."""
    code, out, err = result
    assert (code, out) == (2, "")
    assert err.startswith("cryptomnesia: ") and err.count("\n") == 1 and "Traceback" not in err
    return err
