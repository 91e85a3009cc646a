"""The ledger's seal: the last of its writers to leave signs the digest of the whole file, every byte of it.

`ledger.seal` lies beside the file. It is empty while anybody may write, and stays so after a kill; a writer empties
it, durably, before it writes a word. Writers share a lock on it, and whoever gets it alone is the last.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable
from pathlib import Path

from braintorrent.errors import BadMessage
from braintorrent.records import Identity
from braintorrent.records.envelope import open_envelope, sign_envelope
from braintorrent.storage.files import file_digest, sync, telling_full
from braintorrent.storage.wal import fold, pending

FORMAT = 1
CONTEXT = b"braintorrent ledger seal 1\0"
MAX_SEAL_BYTES = 512
SUFFIX = ".seal"


class Seal:
    """Held by a writer of the ledger at `path` from before its first word; `close` after its last."""

    def __init__(self, path: Path, identity: Identity) -> None:
        self._ledger, self._identity = path, identity
        with telling_full(path):
            self._descriptor: int | None = os.open(path.with_suffix(SUFFIX), os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_SH)  # waits while another is being written
            if os.fstat(self._descriptor).st_size:
                os.ftruncate(self._descriptor, 0)
                sync(self._descriptor)
        except BaseException:
            self.close(None)
            raise

    def close(self, finish: Callable[[], None] | None) -> None:
        """Seal, unless other writers are left. Idempotent.

        finish: ends this process's writing and closes the file; None where it could not be opened.
        """
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is None:
            return
        try:
            if finish is not None:
                finish()  # first: whoever asks in vain to be alone holds no lock any more, and must not write
                if _alone(descriptor):
                    self._seal(descriptor)
        finally:
            os.close(descriptor)

    def _seal(self, descriptor: int) -> None:
        if pending(self._ledger):  # somebody who reads kept SQLite from it
            fold(self._ledger)
        if not pending(self._ledger):
            _write(descriptor, sign_envelope(self._identity, FORMAT, CONTEXT, [file_digest(self._ledger)]))


def _alone(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _write(descriptor: int, raw: bytes) -> None:
    try:
        os.pwrite(descriptor, raw, 0)
        sync(descriptor)
    except OSError:  # a full disk, most likely: not to be sealed is no fault
        os.ftruncate(descriptor, 0)


def at_rest(path: Path) -> bool:
    """Whether nobody writes to the ledger at `path`, as far as its seal says: its bytes are not looked at."""
    return bool(_read(path.with_suffix(SUFFIX))) and not pending(path)


def sealed(path: Path) -> str | None:
    """Who sealed the ledger at `path`, a peer id; None if it is open, or was not closed in peace.

    BadMessage if the seal does not verify, or is of other bytes.
    """
    seal = path.with_suffix(SUFFIX)
    raw = _read(seal)
    if not raw:
        return None
    found = file_digest(path)
    if _read(seal) != raw:
        return None  # a writer came meanwhile
    author, values = open_envelope(raw, FORMAT, CONTEXT, MAX_SEAL_BYTES, "a ledger's seal")
    if not values or values[0] != found:
        raise BadMessage(f"{path.name} is not the file that was sealed", reason="seal")
    if pending(path):
        raise BadMessage(f"{path.name} was written to after it was sealed", reason="seal")
    return author


def _read(seal: Path) -> bytes:
    try:
        with seal.open("rb") as file:
            return file.read(MAX_SEAL_BYTES + 1)
    except FileNotFoundError:
        return b""
