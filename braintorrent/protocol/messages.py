"""What peers say to each other, as verified values. Encoding is network/'s affair."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from braintorrent.protocol.version import Version

if TYPE_CHECKING:
    from braintorrent.protocol.notices import Notice

Protocols = tuple[int, int]  # the lowest and the highest that somebody speaks
PROTOCOLS: Protocols = (1, 1)  # spoken by this release
MAX_PROTOCOL = 2  # spoken where a lab says so: the messages of 1 by another number, to rehearse an upgrade

MAX_ANNOUNCEMENT_BYTES = 1024
MAX_TOLD = 32  # announcements in one Tell
MAX_HOLDS = 256  # authors in one Ask; above that, a rotating bucket
MAX_ADDRESSES = 64  # peers with addresses in one Tell


@dataclass(frozen=True, slots=True)
class Announcement:
    """A peer's signed statement that it has a version. Digests are 64 lower-case hex digits (BLAKE3).

    `raw` holds the exact signed bytes: they are stored and relayed as received, never re-encoded.
    """

    federation: str
    author: str  # peer id
    version: Version
    content: str  # digest of the weights as plain safetensors
    samples: int  # training cases behind this version, a_i in Roy et al.
    steps: int  # optimiser steps since the version before
    seconds: float  # seconds of training since the version before
    schema: str  # digest of the weights' schema
    record: str  # digest of the record (parents, artifacts, metrics)
    record_size: int  # bytes
    final: bool  # the author's stop rule is met; this is its last version
    raw: bytes = field(default=b"", repr=False, compare=False)


@dataclass(frozen=True, slots=True)
class AskMessage:
    """Who has something newer than this? The paper's ping_request, and the gossip.

    newest: the asker's own newest announcement, None before its first.
    holds: author -> newest version whose bytes the asker holds; authors inside `bucket`, and the one asked.
    bucket: (index, count): the asker speaks about authors whose hash falls into this bucket.
    phase: seeking | working | final | leaving.
    notices: digest over all notices the asker holds, "" for none.
    """

    newest: Announcement | None
    holds: Mapping[str, Version]
    bucket: tuple[int, int] = (0, 1)
    phase: str = "working"
    notices: str = ""


@dataclass(frozen=True, slots=True)
class TellMessage:
    """The answer to an Ask: announcements newer than what the asker holds, the teller's own first.

    Only what the teller can serve is told, so an announcement is also an offer of its bytes.

    settled: the teller lacks nothing that the asker published last or says it holds (refused is not lacking);
        to an asker that is leaving: the teller holds what it published last.
    addresses: peer id -> "host:port" hints for peers the teller has talked to.
    wants: digests the asker, which the teller cannot dial, is to send: of each model the record, then the weights.
    notices: some that the teller holds, where the asker does not hold the same ones.
    """

    announcements: tuple[Announcement, ...] = ()
    phase: str = "working"
    settled: bool = False
    addresses: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    wants: tuple[str, ...] = ()
    notices: tuple[Notice, ...] = ()


def common(mine: Protocols, theirs: Protocols) -> int | None:
    """The protocol in which two peers ask and tell: the highest that both speak; None if there is none."""
    highest = min(mine[1], theirs[1])
    return highest if highest >= max(mine[0], theirs[0]) else None


PHASES = ("seeking", "working", "final", "leaving")
