"""Several peers on this host: one real `braintorrent run` process each, watched from outside."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from braintorrent.config import load_peer
from braintorrent.errors import ConfigError
from braintorrent.experiments.workers import ended_in_order
from braintorrent.node.control import last_status, read_status
from braintorrent.node.lab import address_hints, ensure_identity
from braintorrent.node.roster import Member, Roster
from braintorrent.node.trusting import trust
from braintorrent.storage import StatePaths

Statuses = dict[str, dict[str, Any] | None]
Show = Callable[[Statuses, dict[str, int]], None]
GRACE = 75.0  # seconds between asking a process to end and ending it: it may hand its newest version over


def peer_folders(root: Path) -> list[Path]:
    """Every folder directly below `root` that holds a peer.toml; ConfigError if there is none."""
    folders = sorted(path.parent for path in root.glob("*/peer.toml"))
    if not folders and (root / "peer.toml").exists():
        raise ConfigError(f"{root}: this is a peer folder; give its parent, or: braintorrent run {root}")
    if not folders:
        raise ConfigError(f"{root}: no peer folder below it; a peer folder holds a peer.toml")
    return folders


def introduce(folders: Iterable[Path], say: Callable[[str], object] = lambda text: None) -> dict[Path, str]:
    """Make missing keys and put every peer on every other's roster. Returns folder -> peer id.

    say: told, a line each, of labs that had a roster and now trust somebody more.
    """
    folders = list(folders)
    identities = {folder: ensure_identity(folder) for folder in folders}
    for folder in folders:
        paths = StatePaths(folder)
        before = Roster(paths.roster).ids if paths.roster.exists() else None
        for other, identity in identities.items():
            member = Member(name=load_peer(other).name, addresses=tuple(address_hints(other)))
            if other != folder:  # renamed, perhaps, by whoever launches
                known = identity.id in Roster(paths.roster).members
                trust(paths, identities[folder], identity.id, member, replace=known)
        roster = Roster(paths.roster)
        if before is not None and (added := roster.ids - before):
            say(f"{load_peer(folder).name} now trusts {', '.join(sorted(map(roster.name, added)))}")
    return {folder: identity.id for folder, identity in identities.items()}


class Processes:
    """The peers of some folders as child processes: `with Processes(folders) as peers: peers.watch(show)`.

    on: what to put before the command of a folder's peer. later: folders that `with` does not start yet.
    """

    def __init__(
        self, folders: Iterable[Path], *, on: Mapping[Path, Sequence[str]] | None = None,
        later: frozenset[Path] = frozenset(),
    ) -> None:  # fmt: skip
        self.folders, self.on, self.later = list(folders), on or {}, later
        self.names = {folder: load_peer(folder).name for folder in self.folders}
        for name, times in Counter(self.names.values()).items():
            if times > 1:
                which = ", ".join(str(folder) for folder in self.folders if self.names[folder] == name)
                raise ConfigError(f"{which}: all are named {name}; give each peer.toml another name")
        self.running: dict[Path, subprocess.Popen[bytes]] = {}
        self.last: Statuses = dict.fromkeys(self.names.values())
        self._asked: set[int] = set()  # the processes that were asked to end
        self._order = contextlib.ExitStack()

    def __enter__(self) -> Processes:
        self._order.enter_context(ended_in_order())
        try:
            for folder in self.folders:
                if folder not in self.later:
                    self.start(folder)
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self.stop()
        finally:
            self._order.close()

    def start(self, folder: Path) -> None:
        """Start (again) the peer of a folder. What it prints goes to state/log/terminal.log."""
        output = StatePaths(folder).log / "terminal.log"
        output.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        with output.open("ab") as file:
            self.running[folder] = subprocess.Popen(
                [*self.on.get(folder, ()), sys.executable, "-m", "braintorrent", "run", str(folder)],
                stdin=subprocess.DEVNULL, stdout=file, stderr=subprocess.STDOUT,
                start_new_session=True,  # Ctrl-C reaches this process, which ends them in good order
                env={**os.environ, "OMP_WAIT_POLICY": "passive"},
            )  # fmt: skip

    @property
    def ended(self) -> dict[str, int]:
        """Name -> exit code of the processes that are done."""
        codes = {self.names[folder]: self._code(process) for folder, process in self.running.items()}
        return {name: code for name, code in codes.items() if code is not None}

    def _code(self, process: subprocess.Popen[bytes]) -> int | None:
        code = process.poll()
        was_loading = code == -signal.SIGTERM and process.pid in self._asked  # so there was nothing to end in order
        return 0 if was_loading else code

    @property
    def failures(self) -> dict[str, str]:
        """Name -> the last line of each process that ended with another code than 0."""
        return {
            self.names[folder]: self.last_words(folder, 1)
            for folder, process in self.running.items() if self._code(process)
        }  # fmt: skip

    def poll(self) -> Statuses:
        """The last known status of each peer, by name."""
        for folder, process in self.running.items():
            read = read_status if process.poll() is None else last_status
            if (found := read(folder)) is not None and found["pid"] == process.pid:  # not of an earlier life
                self.last[self.names[folder]] = found
        return self.last

    def watch(self, show: Show, every: float = 0.5) -> None:
        """Show the statuses until all processes have ended."""
        while len(self.ended) < len(self.running):
            show(self.poll(), self.ended)
            time.sleep(every)
        show(self.poll(), self.ended)

    def stop(self) -> None:
        """Ask all that still run to end cleanly; after GRACE seconds end them."""
        alive = [process for process in self.running.values() if process.poll() is None]
        for process in alive:
            self._asked.add(process.pid)
            process.send_signal(signal.SIGTERM)
        deadline = time.monotonic() + GRACE
        for process in alive:
            try:
                process.wait(max(0.1, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def last_words(self, folder: Path, lines: int = 5) -> str:
        """The end of what a peer printed, for an error message."""
        output = StatePaths(folder).log / "terminal.log"
        text = output.read_text(errors="replace").splitlines() if output.exists() else []
        return "\n".join(text[-lines:])
