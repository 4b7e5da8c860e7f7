"""The real ComfyUI for the tests of this folder, which run after all others."""

import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from . import shim
from .browser import Browser, NoBrowser, browsing
from .evidence import template_folders
from .harness import Comfy
from .installation import Installation, Unreachable, install
from .server import Server, serving

HERE = Path(__file__).parent
ROOT = HERE.parents[1]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Last, so that what the cache adds to the path cannot change how other tests see their libraries."""
    items.sort(key=lambda item: HERE in item.path.parents)


@pytest.fixture(scope="session")
def installation() -> Installation:
    try:
        return install()
    except Unreachable as missing:
        pytest.skip(str(missing))


def packs() -> dict[str, Path]:
    """The tests' own, and this repository where it is a pack."""
    return {"testpack": HERE / "testpack"} | ({"cryptomnesia": ROOT} if (ROOT / "__init__.py").exists() else {})


@pytest.fixture(scope="session")
def server(installation: Installation, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """ComfyUI's server, with the same packs, and the folders that templates look into."""
    with packages_on_path(installation), serving(installation, tmp_path_factory.mktemp("server"), packs()) as running:
        template_folders(running.base / "input")
        yield running


@pytest.fixture(scope="session")
def browser(server: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    """The server's frontend, in headless Chromium."""
    try:
        with browsing(server, tmp_path_factory.mktemp("browser")) as page:
            yield page
    except NoBrowser as missing:
        pytest.skip(str(missing))


@contextmanager
def packages_on_path(found: Installation) -> Iterator[None]:
    before = sys.path[:]
    shim.add(found.packages)
    yield
    sys.path[:] = before


@pytest.fixture(scope="session")
def comfy(installation: Installation, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Comfy]:
    """ComfyUI in this process, with the test pack, and with this repository as the pack it is."""
    with packages_on_path(installation):
        running = Comfy(installation, tmp_path_factory.mktemp("comfyui"))
        for name, folder in packs().items():
            running.load_pack(folder, name)
        yield running
        running.model_management.unload_all_models()


@pytest.fixture
def output(comfy: Comfy) -> Iterator[Path]:
    """ComfyUI's output folder, empty before and after."""
    place = Path(comfy.folder_paths.get_output_directory())
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir()
    yield place
    shutil.rmtree(place)
