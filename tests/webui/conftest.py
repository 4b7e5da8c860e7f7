"""The built-in model, loaded once, in a program of each kind."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from cryptomnesia import load_demo

from .host import Host, Processed, Processing

MEMORIZED, ORDINARY = "the restless beacon of grimsby", "monkey face on blue"
KINDS = ("a1111", "forge", "sdnext")


@pytest.fixture(scope="session")
def demo() -> Any:
    return load_demo()


@pytest.fixture(scope="session")
def rewritten() -> dict[str, Any]:
    """What rewriting gave, by prompt: it takes seconds, and the same weights give the same in every program."""
    return {}


@pytest.fixture(autouse=True)
def _rewrite_once(rewritten: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    from cryptomnesia_webui import rewriting

    real = rewriting.mitigate

    def once(method: Any, denoiser: Any, calibration: Any, prompt: str, *args: Any, **options: Any) -> Any:
        if prompt not in rewritten:
            rewritten[prompt] = real(method, denoiser, calibration, prompt, *args, **options)
        return rewritten[prompt]

    monkeypatch.setattr(rewriting, "mitigate", once)


@pytest.fixture
def start(demo: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], Host]]:
    """Starts a program of a kind, with the built-in model loaded."""
    own = type(demo)
    yield lambda kind: Host(kind, demo, monkeypatch)
    assert type(demo) is own, "the guard was left on"


@pytest.fixture(params=KINDS)
def host(request: pytest.FixtureRequest, start: Callable[[str], Host]) -> Host:
    return start(request.param)


@pytest.fixture
def make(host: Host, tmp_path: Path) -> Callable[..., tuple[Processing, Processed]]:
    """Runs a job with these choices, as the API gives them; the images lie in tmp_path."""

    def made(prompt: Any, choices: Any = None, **options: Any) -> tuple[Processing, Processed]:
        p = Processing(host, prompt, tmp_path, () if choices is None else (choices,), **options)
        processed = host.run(p)
        assert not host.errors, host.errors
        return p, processed

    return made
