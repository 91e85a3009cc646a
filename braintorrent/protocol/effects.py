"""What the machine wants done. The shell (node/ or simulation/) has one handler for each."""

from __future__ import annotations

from dataclasses import dataclass

from braintorrent.protocol.messages import Announcement, AskMessage
from braintorrent.protocol.notices import Notice
from braintorrent.protocol.version import Version


@dataclass(frozen=True, slots=True)
class Ask:
    """Send `message` to `peer`; answer with machine.asked."""

    peer: str
    message: AskMessage


@dataclass(frozen=True, slots=True)
class Fetch:
    """Get record and weights of `announcement` from `source`, verify and store; answer with machine.fetched.

    pushed: `source` cannot be dialled. The answer to its ask says what is wanted; wait for it to send that.
    """

    announcement: Announcement
    source: str
    pushed: bool = False


@dataclass(frozen=True, slots=True)
class Push:
    """`peer` cannot dial this one and wants these blobs: send them in this order; answer with machine.pushed."""

    peer: str
    digests: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Merge:
    """Merge own weights with the held candidates; answer with machine.merged.

    adopt: own weight is 0 (a newcomer's first merge). last: no training follows; the run ends with it.
    """

    candidates: tuple[Announcement, ...]
    adopt: bool = False
    last: bool = False
    below_quorum: bool = False


@dataclass(frozen=True, slots=True)
class Train:
    """One version's local steps; answer with machine.trained.

    alone: nobody else was heard of, and there was time to.
    below_quorum: patience ran out, and there was nothing to merge.
    """

    alone: bool = False
    below_quorum: bool = False


@dataclass(frozen=True, slots=True)
class Publish:
    """Store the trained weights as `version`, signed and durable, then machine.published."""

    version: Version
    final: bool


@dataclass(frozen=True, slots=True)
class Forget:
    """The bytes of this announcement are superseded; the disk may have them back."""

    announcement: Announcement


@dataclass(frozen=True, slots=True)
class Quarantine:
    """Two contents for one version: keep both signed statements as proof."""

    first: Announcement
    second: Announcement


@dataclass(frozen=True, slots=True)
class Heard:
    """Something new that a lab says of a lab: keep it, and do about it what this lab's policy says."""

    notice: Notice
    source: str


@dataclass(frozen=True, slots=True)
class Halt:
    """A person wants to go.

    In training: stop at the next batch boundary; answer with machine.trained(complete=False). In the last merge:
    wait for nothing, not for room on the disk either.
    """


@dataclass(frozen=True, slots=True)
class HandOver:
    """A person wants to go, and nobody here is known to hold this newest version: it is served until one does.

    Keep what a kill would lose, and tell people what is waited for.
    """

    announcement: Announcement


@dataclass(frozen=True, slots=True)
class Leave:
    """All is done: close down. `reason` is a word for people. alone: nobody who stays is known to hold my newest."""

    reason: str
    alone: bool = False


Effect = Ask | Fetch | Push | Merge | Train | Publish | Forget | Quarantine | Heard | Halt | HandOver | Leave
