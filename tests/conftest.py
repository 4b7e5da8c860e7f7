"""Makes the suite steady: the same answer on an idle and on a busy machine, and no test left out unseen in CI."""

import os
import secrets
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, settings

from .helpers.chromium import Page, chromium, program

# Time decides nothing, and every run tries the same examples; `make fuzz` tries fresh ones, and more of them.
settings.register_profile(
    "steady", deadline=None, derandomize=True, database=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.register_profile("fuzz", settings.get_profile("steady"), derandomize=False, print_blob=True)
FUZZ = int(os.environ.get("CRYPTOMNESIA_FUZZ", "0"))  # how many times as many examples
settings.load_profile("fuzz" if FUZZ else "steady")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Longer property tests, and nothing but them, where `make fuzz` asks for them."""
    if not FUZZ:
        return
    properties = [item for item in items if hasattr(getattr(item, "obj", None), "hypothesis")]
    for item in properties:
        test = item.obj  # type: ignore[attr-defined]
        test = getattr(test, "__func__", test)
        own = test._hypothesis_internal_use_settings or settings.default
        test._hypothesis_internal_use_settings = settings(
            own, max_examples=FUZZ * own.max_examples, derandomize=False, print_blob=True
        )
    items[:] = properties


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo) -> Iterator[None]:
    """In CI, where everything can be installed, a test that is skipped has failed."""
    report = yield
    if os.environ.get("CI") and report.skipped and not hasattr(report, "wasxfail"):
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
        report.outcome, report.longrepr = "failed", f"left out, although CI can install all it needs: {reason}"
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(collector: pytest.Collector) -> Iterator[None]:
    """The same for whole files, e.g. by importorskip."""
    report = yield
    if os.environ.get("CI") and report.skipped:
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
        report.outcome, report.longrepr = "failed", f"left out, although CI can install all it needs: {reason}"
    return report


@pytest.fixture(scope="session", autouse=True)
def _session_home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Calibrations of fixtures; never those of whoever runs the tests."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CRYPTOMNESIA_HOME", str(tmp_path_factory.getbasetemp() / "session-home"))
        yield


@pytest.fixture(autouse=True)
def _own_home(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each test begins without a kept calibration."""
    monkeypatch.setenv("CRYPTOMNESIA_HOME", str(tmp_path_factory.getbasetemp() / f"home-{secrets.token_hex(8)}"))


@pytest.fixture(scope="session")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    """One headless Chromium for all tests of pages."""
    if program() is None:
        pytest.skip("no chromium in PATH")
    with chromium(tmp_path_factory.mktemp("profile")) as page:
        yield page
