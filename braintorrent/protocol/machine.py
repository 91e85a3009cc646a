"""The protocol of one peer, as a state machine without I/O.

Time is an argument, randomness is passed in, and nothing is ever done here: the machine returns what
it wants done (`effects`), and is told what became of it. The node gives it real sockets and one timer,
the simulator an event heap; both run this very object.

Two lanes run side by side. Asking and fetching never stop. The work lane goes

    SEEKING ──▶ READY ──▶ MERGING ──▶ TRAINING ──▶ PUBLISHING ──▶ READY ...
       who has a model?   └─────(nothing newer)──▶┘       │ stop rule met
                                                          ▼
                              LEFT ◀── CLOSING ◀── LINGERING (asks and serves, trains no more)
                                   the last merge

    From anywhere but CLOSING, once a person stops it: ──▶ LEAVING (serves until another holds its newest version)
    ──▶ LEFT; straight to LEFT where another holds it, or nobody is here

    invariants  a merge takes what is verified at that moment; no peer, dead or slow, delays it
                a version is told to others only after `published`
                after LEFT there is no effect but the farewell, and bytes given back (of who is revoked then)
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Set
from math import isnan
from random import Random

from braintorrent.errors import RemoteError
from braintorrent.protocol import effects as want
from braintorrent.protocol import lane
from braintorrent.protocol.asking import ask_message, tell
from braintorrent.protocol.believing import hear, note
from braintorrent.protocol.contacts import MAX_ADDRESSES_EACH, NEVER, Contacts
from braintorrent.protocol.fetches import Fetches
from braintorrent.protocol.judging import may_fetch, own_deadline
from braintorrent.protocol.messages import MAX_ADDRESSES, Announcement, AskMessage, TellMessage
from braintorrent.protocol.notices import Notice, Notices
from braintorrent.protocol.policy import Policy
from braintorrent.protocol.pushes import Pushes
from braintorrent.protocol.steps import PHASE, Restored, Step
from braintorrent.protocol.table import Table
from braintorrent.protocol.version import NOTHING


class PeerMachine:
    """One peer's protocol. Feed events with the current time; carry out `effects()`; wake at `next_deadline()`."""

    def __init__(
        self, me: str, federation: str, roster: Set[str], policy: Policy, rng: Random, restored: Restored, now: float
    ) -> None:
        self.me, self.federation, self.roster, self.policy, self.rng = me, federation, roster, policy, rng
        self.incarnation, self.newest = restored.incarnation, restored.newest
        self.best, self.since_best, self.elapsed = restored.best, restored.since_best, restored.elapsed
        self.table = Table(restored.entries)
        self.notices = Notices()
        self.contacts = Contacts(policy, rng)
        self.fetches = Fetches(policy, rng, self.table, self.contacts)
        self.pushes = Pushes(policy.max_fetches)
        self.started, self.now = now, now
        # Only a newcomer needs a model to begin with; who has one looks around for a moment and goes on.
        look = policy.alone_after if self.newest is None else min(policy.ask_every, policy.alone_after)
        self.step, self.deadline = Step.SEEKING, now + look
        self.looked = now + look  # until then nobody is alone: others had no time to be heard
        self.wake = now  # not before this, under the poisson cadence
        self.entered = now  # when `step` last changed
        self.merging: dict[str, Announcement] = {}
        self.pending: want.Publish | None = None  # waits for room on this disk
        self.asks = 0  # made so far; rotates the bucket
        self.stopping = False
        self._wants: list[want.Effect] = []
        self._strike_off()
        if restored.resume:
            lane.train(self, now)
        elif self.newest is not None and self.newest.final and lane.stop_rule(self, self.newest.version.counter, now):
            lane.linger(self, now)
        self._advance(now)

    # ------------------------------------------------------------- what the shell asks for

    def effects(self) -> list[want.Effect]:
        """What is to be done, in order; each is returned once."""
        wants, self._wants = self._wants, []
        return wants

    def next_deadline(self) -> float | None:
        """Call `tick` no later than this; None when only events matter."""
        if self._done:
            return None
        soonest = min(own_deadline(self), self.contacts.next_deadline(self.now), self.fetches.next_deadline(self.now))
        return None if soonest == NEVER else soonest

    @property
    def phase(self) -> str:
        """What this peer says of itself: seeking, working, final or leaving."""
        return "leaving" if self.stopping else PHASE.get(self.step, "working")

    @property
    def _done(self) -> bool:
        """Whether it wants nothing more by itself: it left, or will once the work under way ends."""
        return self.stopping and self.step is not Step.LEAVING

    @property
    def counter(self) -> int:
        """Versions published by this peer, over all its lives."""
        return self.newest.version.counter if self.newest else 0

    # ------------------------------------------------------------- events: other peers

    def sighted(self, peer: str, address: str, now: float, *, proven: bool = False) -> None:
        """Somebody may be (proven: is) at `address`. A hint, never a proof of who it is."""
        if peer in self.roster and peer != self.me:
            self.contacts.sighted(peer, address, now, proven=proven)
        self._advance(now)

    def received(self, message: AskMessage, sender: str, now: float) -> TellMessage:
        """`sender` asked; the reply is returned, since HTTP needs it in hand."""
        if sender not in self.roster or sender == self.me:
            return TellMessage(phase=self.phase)
        contact = self.contacts.heard_from(sender, message.phase, now)
        if message.newest is not None:
            note(self, message.newest, sender)
        reply = tell(self, message, sender, now)
        contact.holds = message.holds.get(self.me, NOTHING)
        if self.newest is not None and not reply.announcements:
            contact.settled = self.newest.version
        self._advance(now)
        return reply

    def asked(self, peer: str, reply: TellMessage | RemoteError, now: float) -> None:
        """An Ask effect came back: with the answer, or with what went wrong."""
        if peer not in self.contacts.of:
            return  # taken off the roster while the question was under way
        if isinstance(reply, RemoteError):
            self.contacts.failed(peer, f"{reply.reason}: {reply.detail}", now)
        else:
            contact = self.contacts.succeeded(peer, reply.phase, now)
            if reply.settled:  # it speaks of what the ask carried, which may not be my newest any more
                contact.settled = contact.carried
                if contact.parting:
                    contact.holds = contact.carried
            for announcement in reply.announcements:
                note(self, announcement, peer)
            for notice in sorted(reply.notices, key=lambda n: n.unix_ms):  # a chain of keys in order
                hear(self, notice, peer)
            self.pushes.want(peer, reply.wants)
            for other, addresses in list(reply.addresses.items())[:MAX_ADDRESSES]:
                if other in self.roster and other != self.me:
                    for address in addresses[:MAX_ADDRESSES_EACH]:
                        self.contacts.sighted(other, address, now, gossip=True)
        self._advance(now)

    def pushed(self, peer: str, now: float) -> None:
        """A Push effect ended, well or not: it is for `peer` to say what it still wants."""
        self.pushes.ended(peer)
        if self.step is Step.LEAVING:
            self.contacts.ask_now(peer, now)  # it may hold now what is to be handed over
        self._advance(now)

    def fetched(self, announcement: Announcement, source: str, now: float) -> None:
        """A Fetch effect succeeded: its bytes are verified on this disk."""
        useless = self.table.hold(announcement) if announcement.author in self.roster else announcement
        self.fetches.ended(announcement)
        if useless is not None:
            self.drop(useless)
        for peer in dict.fromkeys((announcement.author, source)):
            contact = self.contacts.of.get(peer)
            if contact is not None and (self.step is Step.LINGERING or contact.phase == "leaving"):
                self.contacts.ask_now(peer, now)  # tell them that nothing of theirs is missing here
        self._advance(now)

    def fetch_failed(self, announcement: Announcement, source: str, now: float, *, refuse: str = "") -> None:
        """A Fetch effect failed. `refuse`: the signed statement itself is at fault, whoever serves it."""
        if refuse and announcement.author in self.roster:
            self.table.refuse(announcement, refuse)
        else:
            self.fetches.failed(announcement, source, now)
        self.fetches.ended(announcement)
        self._advance(now)

    def gave_way(self, announcement: Announcement, source: str, now: float) -> None:
        """A Fetch effect was slow, and ended since others waited. What has come of it is kept."""
        self.fetches.ended(announcement)
        self.fetches.gave_way(announcement, source, now)
        self._advance(now)

    def storage_full(self, announcement: Announcement, now: float) -> None:
        """A Fetch effect found this disk full: nobody's fault; fetch nothing for a while."""
        self.fetches.ended(announcement)
        self.fetches.paused_until = max(self.fetches.paused_until, now + self.policy.storage_retry)
        if self.table.has_merged(announcement):
            self.table.give_up(announcement)
        else:
            self.give_up(now)
        self._advance(now)

    def give_up(self, now: float) -> None:
        """Make room: the oldest model that was merged already goes, of an author who is here to be asked again.

        For a version of one's own, one that waits for a merge has to go where there is no other: the merge comes after.
        """
        present = [peer for peer in self.contacts.present(now) if peer not in self.merging]
        spare = self.table.spare(present) or (self.table.spare(present, fresh=True) if self.pending else None)
        if spare is not None:
            self.table.give_up(spare)
            self.drop(spare)

    def lost(self, announcement: Announcement, now: float) -> None:
        """The bytes of a held version are gone from this disk. During a merge, before `merged`."""
        if self.table.lose(announcement):
            self.merging.pop(announcement.author, None)  # not merged, and no bytes to give back
        self._advance(now)

    def roster_changed(self, roster: Set[str], now: float) -> None:
        """People were added to, or taken from, the roster."""
        self.roster = roster
        self._strike_off()
        self.table.reconsider()
        self._advance(now)

    def heard(self, notice: Notice, source: str, now: float) -> None:
        """`source` brought a notice outside of an answer."""
        hear(self, notice, source)
        self._advance(now)

    def noticed(self, *notices: Notice) -> None:
        """The shell has these notices, its own or of an earlier life: hold them and pass them on."""
        added = [self.notices.add(notice) for notice in notices]  # all of them first: a lab's keys are a chain
        if any(added):
            self.notices.keep_of(self.roster)

    def _strike_off(self) -> None:
        self.notices.keep_of(self.roster)
        for peer in [p for p in self.contacts.of if p not in self.roster]:
            self.contacts.remove(peer)
            self.pushes.forget(peer)
        for author in [a for a in self.table.entries if a not in self.roster]:
            self.fetches.forget(author)
            held = self.table.remove(author)
            if held is not None:
                self.drop(held)

    # ------------------------------------------------------------- events: own work

    def merged(
        self, included: Iterable[str], skipped: Mapping[str, str], now: float, worse: Iterable[str] = (),
        passed: Iterable[str] = (),
    ) -> None:  # fmt: skip
        """The Merge effect is done. Authors included; authors skipped because of the bytes, with the reason.

        worse: authors whose merge did worse here and was undone; passed: authors left out by a method that looks at
        everyone, or for whom their models contain, until they have newer ones or the roster changes.
        """
        lane.conclude(self, included, skipped, worse, passed)
        if self.step is Step.CLOSING:
            lane.leave(self, now, "finished")
        elif self.stopping:
            lane.depart(self, now)
        else:
            lane.train(self, now)
        self._advance(now)

    def trained(self, complete: bool, score: float | None, now: float) -> None:
        """The Train effect ended. `score`: on own validation cases, larger is better; None or NaN if unknown."""
        if not complete:
            lane.depart(self, now)
            self._advance(now)
            return
        if score is not None and not isnan(score):
            better = self.best is None or score > self.best
            self.best, self.since_best = (score, 0) if better else (self.best, self.since_best + 1)
        lane.publish(self, now)
        self._advance(now)

    def published(self, announcement: Announcement | None, now: float, *, full: bool = True) -> None:
        """The Publish effect is durable; or None: try again later, as this disk is full, or (not `full`) is busy."""
        if announcement is None:
            self.deadline = now + self.policy.storage_retry
            if full:
                self.fetches.paused_until = NEVER  # else they would take the room that is made
            if self.stopping:
                lane.depart(self, now)
            elif full:
                self.give_up(now)
                return
            self._advance(now)
            return
        self.newest, self.pending, self.fetches.paused_until = announcement, None, now
        self.contacts.ask_all_now(now)  # an Ask carries my newest announcement: asking is announcing
        if self.stopping:
            lane.depart(self, now)
        elif announcement.final:
            lane.linger(self, now)
        else:
            lane.rest(self, now)
        self._advance(now)

    def stop(self, now: float) -> None:
        """A person wants this process to end: finish the batch, have another hold the newest version, leave."""
        if self.stopping or self.step is Step.LEFT:
            return
        self.stopping = True
        waiting = self.step is Step.PUBLISHING and self.deadline != NEVER
        if self.step in (Step.TRAINING, Step.CLOSING):
            self.emit(want.Halt())
        elif waiting or self.step in (Step.SEEKING, Step.READY, Step.LINGERING):
            lane.depart(self, now)
        self._advance(now)

    def tick(self, now: float) -> None:
        """A deadline passed."""
        self._advance(now)

    # ------------------------------------------------------------- what follows

    def _advance(self, now: float) -> None:
        self.now = now
        if self._done:
            return
        lane.go_on(self, now)
        if may_fetch(self, now):
            for fetch in self.fetches.start(now, everyone=self.step is Step.LINGERING):
                self.emit(fetch)
        for push in self.pushes.start():
            self.emit(push)
        for peer in self.contacts.due(now):
            self.ask(peer)

    def emit(self, effect: want.Effect) -> None:
        """Want this done. After the end nothing is, but that bytes go."""
        if self.step is not Step.LEFT or isinstance(effect, want.Forget):
            self._wants.append(effect)

    def ask(self, peer: str) -> None:
        """Who knows something newer? And this is my newest."""
        contact = self.contacts.of[peer]
        contact.parting = self.stopping
        if self.newest is not None:
            contact.carried = self.newest.version
        self.emit(want.Ask(peer, ask_message(self, peer)))

    def drop(self, announcement: Announcement) -> None:
        """Nobody needs these bytes, unless a merge is reading them: then it drops them."""
        if self.merging.get(announcement.author) != announcement:
            self.emit(want.Forget(announcement))
