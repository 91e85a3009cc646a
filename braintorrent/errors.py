"""Every error of BrainTorrent, in one tree.

BrainTorrentError
├── LocalError            this lab's own start-up fault: one clear line, exit code 2
│   ├── ConfigError       a wrong key or value in federation.toml or peer.toml
│   ├── DataError         scans missing, unreadable, misshapen, or labelled wrongly
│   ├── IdentityError     the private key is missing, damaged, or readable by others
│   ├── BusyError         the folder or the port is in use by another process
│   ├── FormatError       a state folder written by another release
│   ├── Broken            what lies in the state folder is not what was signed
│   └── Diverged          local training's loss is no longer finite
├── StorageFull           this disk has no room left; passes when there is room again
│   └── StorageBusy       another process holds the ledger; passes, and is waited for in the same way
└── RemoteError           what another peer did or failed to do; never ends this process
    ├── Unreachable       no connection, or no complete answer in time
    ├── Refused           one side declines the other; `reason` is a word for the record
    ├── BadMessage        bytes that do not parse, break a cap, or do not verify
    └── Gone              the peer no longer has that blob: superseded, not misbehaviour
"""

from __future__ import annotations


class BrainTorrentError(Exception):
    """The root of the tree."""


class LocalError(BrainTorrentError):
    """This lab's own start-up fault. The command line prints it as one line and exits with 2."""


class ConfigError(LocalError):
    """A key or value in a TOML file is wrong; the message names file, key and what is allowed."""


class DataError(LocalError):
    """The lab's scans are missing, unreadable, or do not match their labels."""


class IdentityError(LocalError):
    """The private key is missing, damaged, or readable by others."""


class BusyError(LocalError):
    """The state folder or the listening port is in use by another process."""


class FormatError(LocalError):
    """The state folder carries a format number this release does not read."""


class Broken(LocalError):
    """What lies in the state folder is not what was signed: the first break that an audit found."""


class Diverged(LocalError):
    """Local training's loss is no longer finite. Harmless where a merge brought it: that merge is undone."""


class StorageFull(BrainTorrentError):
    """No room on this disk (or in the configured bound). Serving goes on; writing waits."""


class StorageBusy(StorageFull):
    """Another process has held the ledger for longer than one call waits. Serving goes on; writing waits."""


class RemoteError(BrainTorrentError):
    """Another peer's fault or absence. `reason` is a short lower-case word for tables and logs."""

    reason = "remote"

    def __init__(self, detail: str, *, reason: str | None = None) -> None:
        super().__init__(detail)
        self.detail = detail
        if reason is not None:
            self.reason = reason


class Unreachable(RemoteError):
    """No connection, or no complete answer within the deadline."""

    reason = "unreachable"


class Refused(RemoteError):
    """One side declines the other: not on the roster, another agreement, clock far off."""

    reason = "refused"


class BadMessage(RemoteError):
    """Bytes from a peer that do not parse, exceed a cap, or do not verify."""

    reason = "bad-message"


class Gone(RemoteError):
    """The peer no longer has the blob asked for. An outcome, not misbehaviour."""

    reason = "gone"
