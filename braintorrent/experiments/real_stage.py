"""Labs as real processes, and all that may befall them: signals to the process, its disk removed, its line cut.

A lab goes by its number. One that is away is started again by `start`, on whatever its disk holds then, and one that
is about to leave as soon as it has left.
"""

from __future__ import annotations

import math
import shutil
import signal
import subprocess
import time
import tomllib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import tomli_w

from braintorrent.config import load_peer
from braintorrent.errors import BrainTorrentError
from braintorrent.experiments.processes import Processes
from braintorrent.experiments.real_lan import Lan
from braintorrent.experiments.real_ledgers import Story, read
from braintorrent.node.lab import address_hints, ensure_identity
from braintorrent.node.roster import Member
from braintorrent.node.trusting import trust
from braintorrent.protocol.messages import Protocols
from braintorrent.simulation.running import peak_rss_mib
from braintorrent.storage import StatePaths

KEPT = ("key", "roster.json", ".gitignore")  # what a person puts back after a disk was lost


@dataclass
class Stage:
    """The labs of some folders; processes: started and ended by whoever made them.

    lan, addresses: the machines they are on, None where all share this one. backups: whether one is made before each
    new life. wiped: (lab, what its disk told before it was lost). away: stopped or killed on purpose. returning: to be
    started once they have left. sessions: [lab, from, to] in Unix seconds, to = inf while it runs. killed: (lab, when),
    of processes that ran. peak_rss_mib: of one process, as far as Linux tells.
    """

    folders: Sequence[Path]
    processes: Processes
    lan: Lan | None = None
    addresses: Sequence[str] = ()
    backups: bool = False
    wiped: list[tuple[int, Story]] = field(default_factory=list)
    away: set[int] = field(default_factory=set)
    returning: set[int] = field(default_factory=set)
    paused: set[int] = field(default_factory=set)
    sessions: list[list[float]] = field(default_factory=list)
    killed: list[tuple[int, float]] = field(default_factory=list)
    peak_rss_mib: float | None = None

    def stories(self) -> dict[int, Story]:
        """What the disk of each lab tells now."""
        return {lab: read(folder) for lab, folder in enumerate(self.folders)}

    @property
    def present(self) -> list[int]:
        """Labs whose process runs."""
        running = self.processes.running
        return [lab for lab, folder in enumerate(self.folders) if folder in running and running[folder].poll() is None]

    @property
    def finished(self) -> list[int]:
        """Labs that met their stop rule and left by themselves."""
        ended = self.processes.ended
        return [
            lab for lab, folder in enumerate(self.folders)
            if lab not in self.away and ended.get(self.processes.names[folder]) == 0
        ]  # fmt: skip

    def look(self) -> None:
        """Notice who has left and what it took. BrainTorrentError, with its last words, if a process failed."""
        self._check()
        for lab in self.finished:
            self._close_session(lab)
        for lab in self.returning - set(self.present):
            self.start(lab)
        peaks = [peak for lab in self.present if (peak := peak_rss_mib(self._process(lab).pid)) is not None]
        self.peak_rss_mib = max([*peaks, self.peak_rss_mib or 0.0]) or None

    def _check(self) -> None:
        for name, code in self.processes.ended.items():
            lab = next(i for i, folder in enumerate(self.folders) if self.processes.names[folder] == name)
            if code and lab not in self.away:
                words = self.processes.last_words(self.folders[lab], 1)
                raise BrainTorrentError(f"{name} ended with {code} by itself; it said: {words}")

    # ------------------------------------------------------------- processes

    def end(self) -> list[int]:
        """Who is present now; their sessions end here."""
        present, now = self.present, time.time()
        for session in self.sessions:
            session[2] = min(session[2], now)
        return present

    def start(self, lab: int) -> None:
        """Start a lab that is not there; one that is about to leave, once it has left."""
        if lab in self.away and lab in self.present:
            self.returning.add(lab)
        if lab not in self.present:
            self.returning.discard(lab)
            state = StatePaths(self.folders[lab])
            if self.backups and state.ledger.exists():
                _replace(self._backup(lab), state.path)
            self.away.discard(lab)
            self.processes.start(self.folders[lab])
            self.sessions.append([lab, time.time(), math.inf])

    def leave(self, lab: int) -> None:
        """Ask it to end in good order; it may take its time."""
        self._signal(lab, signal.SIGTERM)
        self._gone(lab)

    def speak(self, lab: int, protocols: Protocols) -> None:
        """From its next start on it is of a release that speaks these protocols."""
        at = self.folders[lab] / "peer.toml"
        at.write_text(tomli_w.dumps(tomllib.loads(at.read_text()) | {"protocols": protocols}))

    def kill(self, lab: int) -> None:
        """End it at once, wherever it is; it is gone on return."""
        if lab in self.present:
            self.killed.append((lab, time.time()))
        self._signal(lab, signal.SIGKILL)
        self._gone(lab)
        self.paused.discard(lab)
        self.returning.discard(lab)
        if (process := self.processes.running.get(self.folders[lab])) is not None:
            process.wait()

    def pause(self, lab: int) -> None:
        """Stop it where it is, as a machine that was put to sleep."""
        self._signal(lab, signal.SIGSTOP)
        self.paused.add(lab)

    def resume(self, lab: int) -> None:
        """Let it go on."""
        self._signal(lab, signal.SIGCONT)
        self.paused.discard(lab)

    def resume_all(self) -> None:
        """A paused process would not hear that it should end."""
        for lab in list(self.paused):
            self.resume(lab)

    def _signal(self, lab: int, sign: signal.Signals) -> None:
        if lab in self.present:
            self._process(lab).send_signal(sign)

    def _process(self, lab: int) -> subprocess.Popen[bytes]:
        return self.processes.running[self.folders[lab]]

    def _gone(self, lab: int) -> None:
        self.away.add(lab)
        self._close_session(lab)

    def _close_session(self, lab: int) -> None:
        for session in self.sessions:
            if session[0] == lab and session[2] == math.inf:
                session[2] = time.time()

    # ------------------------------------------------------------- disks

    def lose_disk(self, lab: int) -> None:
        """Kill it and remove what it has learned. Its key and roster are put back: it will return under its id."""
        self._wipe(lab, KEPT)

    def lose_all(self, lab: int) -> None:
        """Kill it and remove all: a new lab will return under the old name, and all trust it anew."""
        self._wipe(lab, ())
        identities = [ensure_identity(folder) for folder in self.folders]
        members = [Member(name=load_peer(at).name, addresses=tuple(address_hints(at))) for at in self.folders]
        for other, folder in enumerate(self.folders):
            if other != lab:
                trust(StatePaths(folder), identities[other], identities[lab].id, members[lab], replace=True)
                trust(StatePaths(self.folders[lab]), identities[lab], identities[other].id, members[other])

    def old_copy(self, lab: int) -> None:
        """Kill it and put the last backup of its disk in place; without one, it keeps what it has."""
        self.kill(lab)
        if self._backup(lab).exists():
            before = read(self.folders[lab])
            _replace(StatePaths(self.folders[lab]).path, self._backup(lab))
            self.wiped.append((lab, before.without_traffic_of(read(self.folders[lab]))))

    def _backup(self, lab: int) -> Path:
        return self.folders[lab] / "backup"

    def _wipe(self, lab: int, kept: Sequence[str]) -> None:
        self.kill(lab)
        self.wiped.append((lab, read(self.folders[lab])))
        for path in StatePaths(self.folders[lab]).path.iterdir():
            if path.name not in kept:
                shutil.rmtree(path) if path.is_dir() else path.unlink()

    # ------------------------------------------------------------- lines

    def part(self, labs: Iterable[int]) -> None:
        """Cut these off from all others."""
        self._machines.part([self.addresses[lab] for lab in labs])

    def heal(self) -> None:
        """Everyone reaches everyone again."""
        self._machines.heal()

    def limit(self, lab: int, uplink: float | None, downlink: float | None) -> None:
        """Hold its line to these bytes per second; None: as fast as it goes."""
        self._machines.limit(self.addresses[lab], uplink, downlink)

    @property
    def _machines(self) -> Lan:
        if self.lan is None:
            raise ValueError("labs that share a machine share its network")
        return self.lan


def _replace(folder: Path, by: Path) -> None:
    """Make `folder` a copy of `by`."""
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(by, folder)
