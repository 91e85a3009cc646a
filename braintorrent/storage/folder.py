"""A peer's private state: `FOLDER/state/`, readable by its owner only, used by one process at a time.

state/  .gitignore  format  lock  key  roster.json  invites.json  control.json  ledger.sqlite  ledger.seal
        checkpoint.safetensors  blobs/  models/  log/  tensorboard/
"""

from __future__ import annotations

import fcntl
import os
import time
from pathlib import Path
from types import TracebackType

from braintorrent.errors import BusyError, FormatError
from braintorrent.storage.files import TEMPORARY, telling_full, write_atomically

FORMAT = 1
STALE_SECONDS = 3600.0  # a temporary file older than this belongs to no living writer


class StatePaths:
    """Where everything of a peer lies, whether or not a node runs there. Touches nothing."""

    def __init__(self, peer_folder: Path) -> None:
        self.path = path = peer_folder / "state"
        self.key = path / "key"  # the private key
        self.roster = path / "roster.json"  # who is trusted; other processes may add to it while a node runs
        self.invites = path / "invites.json"  # who may join by a code: hashes of one-time keys
        self.control = path / "control.json"  # where a running node answers `status`
        self.method = path / "method.json"  # what the federated method remembers
        self.last_status = path / "status.json"  # what it said as it ended
        self.ledger, self.checkpoint = path / "ledger.sqlite", path / "checkpoint.safetensors"
        self.blobs, self.models, self.log = path / "blobs", path / "models", path / "log"
        self.tensorboard = path / "tensorboard"  # event files, where tensorboard is installed
        self.split = path / "split.json"  # which subjects train, validate, test: fixed at the first run


class StateFolder(StatePaths):
    """The locked state folder of a running peer. Close it, or use it in `with`.

    BusyError if another process holds it; FormatError if another release wrote it.
    """

    def __init__(self, peer_folder: Path) -> None:
        super().__init__(peer_folder)
        self.path.mkdir(parents=True, exist_ok=True, mode=0o700)
        self.path.chmod(0o700)
        self._lock = self._take_lock(peer_folder)
        try:
            self._check_format()
            for folder in (self.blobs, self.models, self.log):
                folder.mkdir(exist_ok=True, mode=0o700)
            self._tidy()
        except BaseException:
            self.close()
            raise

    def _take_lock(self, peer_folder: Path) -> int | None:
        descriptor = os.open(self.path / "lock", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            process = os.pread(descriptor, 20, 0).decode(errors="replace").strip()
            os.close(descriptor)
            raise BusyError(f"{peer_folder}: in use by process {process}; stop it, or use another folder") from None
        with telling_full(self.path):
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
        return descriptor

    def _check_format(self) -> None:
        file = self.path / "format"
        if not file.exists():
            write_atomically(self.path / ".gitignore", b"*\n")
            write_atomically(file, f"{FORMAT}\n".encode())
            return
        found = file.read_bytes()[:32].decode(errors="replace").strip()
        if found != str(FORMAT):
            raise FormatError(
                f"{self.path}: format {found}; this release of braintorrent reads {FORMAT}. "
                "Use the release that wrote it, or move the folder away to start anew"
            )

    def _tidy(self) -> None:
        for folder in (self.path, self.models):
            for leftover in folder.glob(f".*{TEMPORARY}"):
                if time.time() - leftover.stat().st_mtime > STALE_SECONDS:
                    leftover.unlink(missing_ok=True)

    def close(self) -> None:
        """Let another process have the folder. Idempotent."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def __enter__(self) -> StateFolder:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
