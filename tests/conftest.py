"""What holds for all tests."""

import gc
import signal
from collections.abc import Generator

import pytest

# Where tests run in the background, or under nohup, these are ignored, and every process they start would inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGHUP, signal.SIG_DFL)

LONG = ("attacks", "end_to_end", "experiments")  # folders whose files take longest


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Import all tests, torch and MONAI with them, and look for no garbage meanwhile, nor ever in what they brought."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


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
