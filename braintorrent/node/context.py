"""What the verbs of a running node share, and the one way they speak to the protocol machine."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import Any, NamedTuple, TypeVar

from braintorrent.contracts import Trained
from braintorrent.errors import StorageBusy, StorageFull
from braintorrent.network.client import Client
from braintorrent.network.conduct import Conduct
from braintorrent.network.receiving import Inbox
from braintorrent.node.board import Board
from braintorrent.node.gating import Gates
from braintorrent.node.going_on import current
from braintorrent.node.lab import Lab
from braintorrent.node.lineage import Ancestry
from braintorrent.protocol.machine import PeerMachine
from braintorrent.protocol.messages import Announcement
from braintorrent.protocol.notices import Notice
from braintorrent.protocol.version import NOTHING
from braintorrent.storage import BlobStore, Checkpoint, Ledger, Merged, save_checkpoint
from braintorrent.weights import Weights

T = TypeVar("T")
log = logging.getLogger("braintorrent.node")


@dataclass
class Activity:
    """What the work lane is doing, for people, and how long it did what. Read by another thread than writes it."""

    verb: str = "starting"
    done: int = 0
    total: int = 0
    began: float = field(default_factory=time.monotonic)
    spent: dict[str, float] = field(default_factory=dict)  # verb -> seconds of work
    first: float | None = None  # when training first began
    last: float | None = None  # when training or its evaluation last ended

    def begin(self, verb: str) -> None:
        """Something new begins."""
        self.verb, self.done, self.total, self.began = verb, 0, 0, time.monotonic()

    def timed(self, verb: str, function: Callable[[], T]) -> T:
        """Do the work of a verb, on the learner's thread, and note how long it took."""
        start = time.monotonic()
        try:
            return function()
        finally:
            end = time.monotonic()
            self.spent[verb] = self.spent.get(verb, 0.0) + end - start
            if verb in ("training", "evaluating"):
                self.first, self.last = self.first if self.first is not None else start, end

    @property
    def idle_share(self) -> float | None:
        """Share of the time from the first step to the last that went into neither training nor evaluation."""
        if self.first is None or self.last is None or self.last <= self.first:
            return None
        busy = self.spent.get("training", 0.0) + self.spent.get("evaluating", 0.0)
        return 1 - busy / (self.last - self.first)


class Met(NamedTuple):
    """Of a peer that was greeted: the name it gives itself, and the protocol it is asked in."""

    name: str
    protocol: int


@dataclass
class Pending:
    """How the weights in the learner came about since the last published version."""

    merge: Merged | None = None
    trained: Trained | None = None


@dataclass
class Context:
    """Everything a verb needs. `tell` feeds the machine an event and lets its effects happen."""

    lab: Lab
    machine: PeerMachine
    blobs: BlobStore
    ledger: Ledger
    client: Client
    pump: Callable[[], None]
    pending: Pending
    board: Board
    conduct: Conduct = field(default_factory=Conduct)
    pace: Callable[[str, int], float] = lambda peer, size: 0.0  # seconds to wait after so many blob bytes to a peer
    inbox: Inbox = field(default_factory=Inbox)  # what peers that cannot be dialled were asked to send
    part: Callable[[str], object] = lambda peer: None  # end all connections with a peer that left the roster
    worker: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(1, "learner"))
    halt: threading.Event = field(default_factory=threading.Event)
    halted: bool = False  # inside a version, of which training has kept a checkpoint
    activity: Activity = field(default_factory=Activity)
    greeted: dict[str, Met] = field(default_factory=dict)  # peer -> what its hello said
    problems: dict[str, str] = field(default_factory=dict)  # peer -> why it was refused when it called
    unfinished: dict[str, Announcement] = field(default_factory=dict)  # author -> what of it is being fetched
    strangers: dict[str, str] = field(default_factory=dict)  # peer not on the roster -> where it was sighted
    notes: dict[str, str] = field(default_factory=dict)  # "disk", "discovery", "roster", "alone", ...
    hearing: asyncio.Lock = field(default_factory=asyncio.Lock)  # held while a notice heard is settled
    authors: dict[str, set[str]] = field(default_factory=dict)  # digest of bytes held -> whose versions they are of
    notices: dict[bytes, Notice] = field(default_factory=dict)  # those of the ledger, opened
    advice: list[dict[str, Any]] = field(default_factory=list)  # notices that wait for a person
    revokers: dict[str, str] = field(default_factory=dict)  # peer that trusts this lab no more -> why
    metrics: dict[str, Mapping[str, float]] = field(default_factory=dict)  # stage -> last values
    last_merge: dict[str, Any] = field(default_factory=dict)
    merges: int = 0
    contained: frozenset[str] = frozenset()  # whose training is in the own version trained from

    @property
    def now(self) -> float:
        """The machine's time, seconds."""
        return asyncio.get_running_loop().time()

    @cached_property
    def ancestry(self) -> Ancestry:
        """What is known of where models came from."""
        return Ancestry(self.ledger, self.blobs.path)

    @cached_property
    def gates(self) -> Gates:
        """What a model must pass before it is merged here."""
        return Gates(self.lab.peer.gates, self.ledger, self.lab.roster)

    @cached_property
    def accumulator(self) -> Weights:
        """Where merges are written: one model's memory, made once, whatever the number of peers."""
        return Weights(self.lab.learner.schema)

    def tell(self, event: Callable[[float], T]) -> T:
        """Feed the machine one event with the current time, then carry out what it wants."""
        result = event(self.now)
        self.pump()
        return result

    async def in_worker(self, function: Callable[..., T], *arguments: Any) -> T:
        """Run on the one thread that may touch the learner."""
        return await asyncio.get_running_loop().run_in_executor(self.worker, function, *arguments)

    async def in_thread(self, function: Callable[..., T], *arguments: Any) -> T:
        """Run on any other thread: whatever waits for the disk."""
        return await asyncio.to_thread(function, *arguments)

    async def keep(self, function: Callable[..., None], *arguments: Any) -> None:
        """Run on any other thread what a full disk may prevent without harm: it is tried again, or done without."""
        try:
            await self.in_thread(self.blobs.with_room, partial(function, *arguments))  # not worth any records
        except StorageFull as error:
            self.notes[kind(error)] = str(error)
            log.warning("not kept: %s", error)
        else:
            self.notes.pop("ledger", None)

    async def insist(self, function: Callable[..., T], *arguments: Any) -> T:
        """Run on any other thread what nothing can go on without: again and again until the ledger can be had."""
        while True:
            try:
                return await self.in_thread(function, *arguments)
            except StorageFull as error:
                self.notes[kind(error)] = str(error)
                log.warning("waiting: %s", error)
                await asyncio.sleep(self.machine.policy.storage_retry)

    def holds(self, announcement: Announcement) -> None:
        """The bytes of this version, own or another's, are here: to be served while its author is trusted."""
        for digest in (announcement.content, announcement.record):
            self.authors.setdefault(digest, set()).add(announcement.author)

    # ------------------------------------------------------------- kept on disk, from a thread

    def measured(self, stage: str, metrics: Mapping[str, float]) -> None:
        """Remember validation figures of the version under way."""
        self.metrics[stage] = metrics
        newest = self.machine.newest
        self.ledger.measured(newest.version if newest else NOTHING, stage, metrics)
        version = self.machine.counter + (stage == "own")  # others are of what the newest version was merged into
        self.board.add(version, {f"{stage}/{name}": value for name, value in metrics.items()})

    def look_back(self) -> None:
        """See anew whose training is in the own version that is trained from."""
        self.contained = self.ancestry.authors(current(self.ledger))

    def save_checkpoint(self, inside: bool) -> None:
        """Weights, optimiser, and the merge they came from. inside: training goes on at once from it. StorageFull."""
        learner, newest = self.lab.learner, self.machine.newest
        base = newest.version if newest else NOTHING
        pending = {"inside": inside, "merge": self.pending.merge.to_plain() if self.pending.merge else None}
        self._save(Checkpoint(base, learner.weights(), learner.state(), pending))

    def outdate_checkpoint(self, published: Announcement) -> None:
        """A version holds all that one would, but what never leaves this lab: as far as there is room for it."""
        learner = self.lab.learner
        if not getattr(learner, "personal", False):
            return self.lab.state.checkpoint.unlink(missing_ok=True)
        pending = {"inside": False, "merge": None}
        try:
            self._save(Checkpoint(published.version, learner.weights(), learner.state(), pending))
        except StorageFull as error:  # the version exists; and the one before has those tensors as well
            self.notes["disk"] = str(error)
            log.warning("no checkpoint: %s", error)

    def _save(self, checkpoint: Checkpoint) -> None:
        need = checkpoint.weights.buffer.nbytes + sum(array.nbytes for array in checkpoint.state.values())
        self.blobs.with_room(lambda: save_checkpoint(self.lab.state.checkpoint, checkpoint), need)

    def forget(self, announcement: Announcement) -> None:
        """Another's version has a successor: the disk may have its weights back. Its record tells of its ancestors."""
        try:
            self.ledger.forget(announcement)
        except StorageBusy:
            raise
        except StorageFull:  # they may be the room that is missing; should that not help, the next start sees them gone
            self._give_back(announcement, self.blobs.remove)
            self.ledger.forget(announcement)
        else:
            self._give_back(announcement, self.blobs.remove)

    def retire_own(self, announcement: Announcement) -> None:
        """An own version has a successor: peers in the middle of fetching it may finish, while there is room."""
        self._give_back(announcement, self.blobs.supersede)

    def _give_back(self, announcement: Announcement, weights: Callable[[str], None]) -> None:
        needed = self.ledger.needed(but=announcement)
        if announcement.content not in needed:
            weights(announcement.content)
        if announcement.record not in needed:
            self.blobs.archive(announcement.record)
        for digest in (announcement.content, announcement.record):
            if not self.blobs.has(digest):
                self.authors.pop(digest, None)


def kind(error: StorageFull) -> str:
    """Which note tells people of it."""
    return "ledger" if isinstance(error, StorageBusy) else "disk"
