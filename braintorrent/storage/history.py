"""What the ledger tells of the past. A merge also waits in the checkpoint until the version it led to is published."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from braintorrent.protocol.version import NOTHING, Version


@dataclass(frozen=True, slots=True)
class Part:
    """One author's part in a merge: at a weight, or skipped for a reason.

    version: NOTHING for an own model never published. norm: ||W_j - W_own|| over the shared tensors.
    """

    version: Version = NOTHING
    content: str = ""
    samples: int = 0
    weight: float = 0.0
    norm: float = 0.0
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Merged:
    """One merge: who was in it, who was skipped and why. Nobody is left out without a word.

    unix: seconds; adopt: a newcomer's first, without a model of its own; last: no training follows.
    """

    unix: float
    included: Mapping[str, Part] = field(default_factory=dict)
    skipped: Mapping[str, Part] = field(default_factory=dict)
    below_quorum: bool = False
    adopt: bool = False
    last: bool = False

    def to_plain(self) -> dict[str, Any]:
        """Values that JSON can hold."""
        return asdict(self)

    @classmethod
    def from_plain(cls, plain: Mapping[str, Any]) -> Merged:
        """Undo `to_plain`; TypeError, KeyError or ValueError if it is not its work."""
        parts = {name: {a: _part(p) for a, p in plain[name].items()} for name in ("included", "skipped")}
        return cls(**{**plain, **parts})


@dataclass(frozen=True, slots=True)
class Measured:
    """One metric of one version; `value` is None where it was not a number."""

    unix: float
    version: Version
    stage: str
    name: str
    value: float | None


def _part(plain: Mapping[str, Any]) -> Part:
    incarnation, counter = plain["version"]
    return Part(**{**plain, "version": Version(int(incarnation), int(counter))})
