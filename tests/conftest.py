"""What holds for all tests."""

import gc
import os
import signal
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

# Where tests run in the background, or under nohup, these are ignored, and every process they start would inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGHUP, signal.SIG_DFL)

LEAN = str(Path(__file__).parent / "lean")
LONG = ("attacks", "end_to_end", "experiments")  # folders whose files take longest


@contextmanager
def uncollected() -> Iterator[None]:
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Import all tests, torch and MONAI with them, and look for no garbage meanwhile, nor ever in what they brought."""
    with uncollected():
        collected = yield
        gc.freeze()
    return collected


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol() -> Generator[None, object, object]:
    """Look for garbage between tests: a hundred labs in virtual time make much else, and take a tenth longer."""
    with uncollected():
        return (yield)


@pytest.fixture(scope="session", autouse=True)
def lean() -> Iterator[None]:
    """Processes that tests start are as installed without extras, which are half of what MONAI imports."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", LEAN, prepend=os.pathsep)
        yield


@pytest.fixture
def bundle_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    """They are as installed with [bundle]."""
    monkeypatch.setenv("TEST_EXTRA", "bundle")


@pytest.fixture
def demo_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    """They are as installed with [demo]: they can draw."""
    monkeypatch.setenv("TEST_EXTRA", "demo")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Spread the files that take longest over the first two thirds of all.

    Side by side they would wait for each other's cores, and the last of them to begin would be waited for alone.
    """
    files = list(dict.fromkeys(item.path for item in items))
    long = [path for path in files if path.parent.name in LONG]
    rest = [path for path in files if path not in long]
    place = {path: 2 / 3 * number / len(long) for number, path in enumerate(long)}
    place |= {path: number / len(rest) for number, path in enumerate(rest)}
    items.sort(key=lambda item: place[item.path])
