"""The live table of several peers, or a line now and then where there is no terminal."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.live import Live

from braintorrent.experiments.processes import Processes, Statuses
from braintorrent.node.tables import console as wide_console
from braintorrent.node.tables import doing, how_it_ended, many_peers, scores

LINE_EVERY = 10.0  # seconds between progress lines in a log file


def watch_live(peers: Processes, *, quiet: bool = False) -> None:
    """Show the peers until all have ended."""
    console = wide_console(stderr=quiet)
    if quiet:
        peers.watch(lambda statuses, ended: None)
    elif console.is_terminal:
        with Live(console=console, refresh_per_second=4) as live:
            peers.watch(lambda statuses, ended: live.update(many_peers(statuses, ended, peers.failures)))
    else:
        lines = _Lines(console, peers)
        peers.watch(lines.show)
        console.print(many_peers(peers.last, peers.ended, peers.failures))


class _Lines:
    def __init__(self, console: Console, peers: Processes) -> None:
        self.console, self.peers, self.next = console, peers, 0.0
        self.told: set[str] = set()  # who failed

    def show(self, statuses: Statuses, ended: dict[str, int]) -> None:
        for name, words in self.peers.failures.items():
            if name in ended and name not in self.told:
                self.told.add(name)
                self._print(f"{name} {how_it_ended(ended[name])}: {words}")
        if time.monotonic() < self.next:
            return
        self.next = time.monotonic() + LINE_EVERY
        words = []
        for name, status in statuses.items():
            what = how_it_ended(ended[name]) if name in ended else "starting" if status is None else doing(status)
            figures = f"v{status['versions']} {scores(status)}" if status else ""
            words.append(" ".join([name, what, figures]).strip())
        self._print(" | ".join(words))

    def _print(self, line: str) -> None:
        self.console.print(line, highlight=False, markup=False, soft_wrap=True)


@contextmanager
def progress_bar(console: Console, what: str, *, quiet: bool = False) -> Iterator[Callable[[str, int, int], None]]:
    """A bar for jobs that report (name, done, jobs)."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn()
    with Progress(*columns, console=console, disable=quiet) as progress:
        task = progress.add_task(what, total=None)
        try:
            yield lambda name, done, jobs: progress.update(task, description=name, completed=done, total=jobs)
        except BaseException:
            progress.live.transient = True  # what ended it is said below; half a bar says nothing
            raise
