"""MONAI's switch for metadata stays as each thread wants it, and is left as it was."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from time import sleep

from monai.data import get_track_meta, set_track_meta

from braintorrent.tasks._meta import tracking


def test_threads_that_want_it_differently_do_not_disturb_each_other() -> None:
    def work(on: bool) -> bool:
        with tracking(on):
            sleep(0.001)
            return get_track_meta() is on

    with ThreadPoolExecutor(4) as threads:
        assert all(threads.map(work, [True, False, False, True] * 50))
    assert get_track_meta()


def test_it_is_left_as_it_was_also_by_an_error_and_by_who_is_inside_twice() -> None:
    for before in (True, False):
        set_track_meta(before)
        try:
            with tracking(not before), tracking(not before):
                assert get_track_meta() is not before
                raise ValueError
        except ValueError:
            assert get_track_meta() is before
        finally:
            set_track_meta(True)
