"""One machine under any order of events: what it wants is always consistent with what it was told.

The rules play the shell and the other peers at their worst. Beside the machine stands a small book of what is
under way, which bytes are here, and which numbers are taken.
"""

from __future__ import annotations

from dataclasses import replace
from hashlib import sha256
from random import Random

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from braintorrent.errors import Gone, Unreachable
from braintorrent.protocol import effects as want
from braintorrent.protocol.entry import Entry
from braintorrent.protocol.machine import PeerMachine
from braintorrent.protocol.messages import PHASES, Announcement, AskMessage, TellMessage
from braintorrent.protocol.policy import Policy, StopRule
from braintorrent.protocol.steps import Restored, Step
from braintorrent.protocol.version import Version

OTHERS = ("a", "b", "c", "d")
LANE = {Step.MERGING: want.Merge, Step.CLOSING: want.Merge, Step.TRAINING: want.Train}


def statement(author: str, incarnation: int, counter: int, final: bool, content: str = "") -> Announcement:
    digest = sha256(f"{author} {incarnation} {counter} {content}".encode()).hexdigest()
    version = Version(incarnation, counter)
    return Announcement("fed", author, version, digest, 1, 1, 1.0, "0" * 64, digest, 1, final)


authors = st.sampled_from([*OTHERS, "a", "b", "me", "stranger"])
statements = st.builds(
    statement, authors, st.integers(1, 4), st.integers(1, 6), st.booleans(), st.sampled_from(["", "", "", "", "x"])
) | st.builds(
    lambda s: replace(s, federation="another"), st.builds(statement, authors, st.just(9), st.just(9), st.just(True))
)
holds = st.dictionaries(authors, st.builds(Version, st.integers(1, 4), st.integers(1, 6)), max_size=4)
buckets = st.sampled_from([(0, 1), (0, 1), (1, 2), (3, 5), (7, 2), (0, 0)])
asks = st.builds(AskMessage, st.none() | statements, holds, buckets, st.sampled_from(PHASES))
tells = st.builds(
    TellMessage, st.lists(statements, max_size=5).map(tuple), st.sampled_from(PHASES), st.booleans(),
    st.dictionaries(authors, st.lists(st.sampled_from(["x:1", "y:2", "z:3"]), max_size=3).map(tuple), max_size=3),
)  # fmt: skip
rules = st.builds(StopRule, st.none() | st.integers(1, 4), st.none() | st.just(1.0), st.none(), st.none() | st.just(2))
policies = st.builds(
    Policy,
    fanout=st.none() | st.integers(1, 3),
    max_merge=st.integers(1, 4),
    quorum=st.integers(0, 3),
    mean_interval=st.none() | st.just(20.0),
    patience=st.sampled_from([0.0, 7.0]),
    alone_after=st.sampled_from([0.0, 9.0]),
    linger=st.sampled_from([0.0, 40.0]),
    hand_over=st.sampled_from([5.0, 60.0]),
    max_fetches=st.integers(1, 3),
    max_backoff=st.just(60.0),
    stop=rules,
)


class Rules(RuleBasedStateMachine):
    @initialize(
        policy=policies, seed=st.integers(0, 99), counter=st.integers(0, 3), final=st.booleans(), resume=st.booleans()
    )
    def start(self, policy: Policy, seed: int, counter: int, final: bool, resume: bool) -> None:
        newest = statement("me", 3, counter, final) if counter else None
        self.policy, self.now, self.roster = policy, 100.0, frozenset(["me", *OTHERS])
        self.asking: list[str] = []
        self.stale: list[str] = []  # asked before it was struck off
        self.fetching: list[want.Fetch] = []
        self.work: want.Merge | want.Train | want.Publish | None = None
        self.bytes_here: set[Announcement] = set()
        self.lost: set[Announcement] = set()  # during the merge under way
        self.taken = newest.version if newest else Version(0, 0)
        self.halted = self.left = False
        struck_off = statement("stranger", 1, 1, False)  # while this peer was down
        self.bytes_here.add(struck_off)
        restored = Restored(4, newest, {"stranger": Entry(held=struck_off)}, resume=resume)
        self.machine = PeerMachine("me", "fed", self.roster, policy, Random(seed), restored, self.now)
        self.carry_out()

    def carry_out(self) -> None:
        for effect in self.machine.effects():
            assert not self.left or isinstance(effect, want.Forget), f"{effect} after Leave"
            getattr(self, f"on_{type(effect).__name__.lower()}")(effect)
        deadline = self.machine.next_deadline()
        assert deadline is None or deadline > self.now, "a busy loop"
        self.check()

    def check(self) -> None:
        machine = self.machine
        assert machine.table.entries.keys() <= self.roster - {"me"}
        assert machine.contacts.of.keys() <= self.roster - {"me"}
        held = {e.held for e in machine.table.entries.values() if e.held is not None}
        reading = set(self.work.candidates) - self.lost if isinstance(self.work, want.Merge) else set()
        assert self.left or self.bytes_here == held | reading, "bytes are kept exactly as long as they are of use"
        assert {f.announcement.author for f in self.fetching} == machine.fetches.flying.keys()
        if machine.step in LANE:
            assert isinstance(self.work, LANE[machine.step])
        elif machine.step is not Step.PUBLISHING:
            assert self.work is None
        if machine.next_deadline() is None and not machine.stopping:
            assert self.work or self.fetching or self.asking or not machine.contacts.of, "it sleeps for ever"

    # ------------------------------------------------------------- effects

    def on_ask(self, effect: want.Ask) -> None:
        assert effect.peer in self.roster - {"me"}
        assert effect.message.newest == self.machine.newest
        assert effect.message.phase == "leaving" or effect.peer not in self.asking
        self.asking.append(effect.peer)

    def on_fetch(self, effect: want.Fetch) -> None:
        a = effect.announcement
        assert effect.source in self.roster - {"me"}
        assert a.author in self.roster - {"me"}
        assert a.federation == "fed"
        assert a.author not in {f.announcement.author for f in self.fetching}
        assert a not in self.bytes_here
        assert self.machine.table.entries[a.author].usable(a.version)
        self.fetching.append(effect)
        assert len(self.fetching) <= self.policy.max_fetches

    def on_merge(self, effect: want.Merge) -> None:
        assert self.work is None
        authors = [a.author for a in effect.candidates]
        assert authors == sorted(set(authors)) != []
        assert set(effect.candidates) <= self.bytes_here
        assert effect.last or len(authors) <= self.policy.max_merge
        assert not effect.adopt or self.machine.newest is None
        assert effect.last or effect.adopt or effect.below_quorum == (len(authors) < self.policy.quorum)
        for a in effect.candidates:
            assert effect.last or a.version > self.machine.table.entries[a.author].merged
        self.work, self.lost, self.halted = effect, set(), False

    def on_train(self, effect: want.Train) -> None:
        assert self.work is None
        assert not effect.alone or not self.bytes_here
        self.work, self.halted = effect, False

    def on_publish(self, effect: want.Publish) -> None:
        assert self.work is None
        assert effect.version > self.taken
        self.work = effect

    def on_forget(self, effect: want.Forget) -> None:
        assert effect.announcement in self.bytes_here
        assert not isinstance(self.work, want.Merge) or effect.announcement not in self.work.candidates
        self.bytes_here.remove(effect.announcement)

    def on_quarantine(self, effect: want.Quarantine) -> None:
        assert effect.first.author == effect.second.author
        assert effect.first.version == effect.second.version
        assert effect.first.content != effect.second.content

    def on_halt(self, effect: want.Halt) -> None:
        assert isinstance(self.work, want.Train) or (isinstance(self.work, want.Merge) and self.work.last)
        assert not self.halted
        self.halted = True

    def on_handover(self, effect: want.HandOver) -> None:
        assert self.work is None
        assert effect.announcement == self.machine.newest
        assert self.machine.stopping

    def on_leave(self, effect: want.Leave) -> None:
        assert self.work is None
        assert effect.reason in ("finished", "stopped")
        self.left = True

    # ------------------------------------------------------------- rules

    @rule(seconds=st.sampled_from([0.0, 0.1, 3.0, 30.0, 500.0]))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds
        self.machine.tick(self.now)
        self.carry_out()

    @rule()
    def the_timer_fires(self) -> None:
        deadline = self.machine.next_deadline()
        if deadline is not None:
            self.now = deadline
            self.machine.tick(self.now)
            self.carry_out()

    @rule(peer=authors, address=st.sampled_from(["x:1", "y:2", "z:3"]), proven=st.booleans())
    def somebody_is_sighted(self, peer: str, address: str, proven: bool) -> None:
        self.machine.sighted(peer, address, self.now, proven=proven)
        self.carry_out()

    @rule(sender=authors, message=asks)
    def somebody_asks(self, sender: str, message: AskMessage) -> None:
        phase = self.machine.phase
        reply = self.machine.received(message, sender, self.now)
        assert all(a in self.bytes_here or a == self.machine.newest for a in reply.announcements)
        assert reply.phase == phase
        assert len({a.author for a in reply.announcements}) == len(reply.announcements)
        self.carry_out()

    @precondition(lambda self: self.asking)
    @rule(data=st.data(), reply=tells | st.just(Unreachable("no answer")))
    def an_ask_ends(self, data: st.DataObject, reply: TellMessage | Unreachable) -> None:
        peer = data.draw(st.sampled_from(self.asking))
        self.asking.remove(peer)
        self.machine.asked(peer, reply, self.now)
        self.carry_out()

    @rule(reply=tells)
    def one_that_was_struck_off_answers(self, reply: TellMessage) -> None:
        for peer in self.stale:
            self.machine.asked(peer, reply, self.now)
        self.carry_out()

    @precondition(lambda self: self.fetching)
    @rule(data=st.data(), outcome=st.sampled_from(["ok", "ok", "ok", "gone", "unfit", "full"]))
    def a_fetch_ends(self, data: st.DataObject, outcome: str) -> None:
        fetch = data.draw(st.sampled_from(self.fetching))
        self.fetching.remove(fetch)
        a = fetch.announcement
        if outcome == "ok":
            self.bytes_here.add(a)
            self.machine.fetched(a, fetch.source, self.now)
        elif outcome == "full":
            self.machine.storage_full(a, self.now)
        else:
            refuse = str(Gone("misshapen")) if outcome == "unfit" else ""
            self.machine.fetch_failed(a, fetch.source, self.now, refuse=refuse)
        self.carry_out()

    @precondition(lambda self: self.work is not None)
    @rule(
        good=st.sampled_from([True, True, True, False]),
        score=st.none() | st.floats(0, 1) | st.just(float("nan")),
        skip=st.sets(st.sampled_from(OTHERS)),
        worse=st.booleans(),
    )
    def the_work_ends(self, good: bool, score: float | None, skip: set[str], worse: bool = False) -> None:
        work, self.work = self.work, None
        match work:
            case want.Merge():
                bad = dict.fromkeys(sorted(skip), "not finite") if not good else {}
                here = {a.author for a in work.candidates if a not in self.lost}
                fit = sorted(here - bad.keys())
                self.machine.merged([] if worse else fit, bad, self.now, fit if worse else [])
            case want.Train():
                self.machine.trained(good or not self.halted, score, self.now)
            case want.Publish() if good:
                self.taken = work.version
                announcement = statement("me", *work.version, work.final)
                self.machine.published(announcement, self.now)
            case _:
                self.machine.published(None, self.now)
        self.carry_out()

    @precondition(lambda self: any(e.held is not None for e in self.machine.table.entries.values()))
    @rule(data=st.data())
    def bytes_are_lost(self, data: st.DataObject) -> None:
        held = sorted(self.machine.table.newest_held(), key=lambda a: a.author)
        gone = data.draw(st.sampled_from(held))
        self.bytes_here.remove(gone)
        self.lost.add(gone)
        self.machine.lost(gone, self.now)
        assert gone.version not in self.machine.table.entries[gone.author].refused
        self.carry_out()

    @rule(roster=st.sets(st.sampled_from(OTHERS)))
    def the_roster_changes(self, roster: set[str]) -> None:
        self.roster = frozenset(["me", *roster])
        self.stale = [p for p in [*self.asking, *self.stale] if p not in roster]
        self.asking = [p for p in self.asking if p in roster]
        self.machine.roster_changed(self.roster, self.now)
        self.carry_out()

    @precondition(lambda self: not self.machine.stopping)
    @rule(really=st.sampled_from([False] * 9 + [True]))
    def a_person_stops_it(self, really: bool) -> None:
        if really:
            self.machine.stop(self.now)
            self.machine.stop(self.now)
            self.carry_out()

    def teardown(self) -> None:
        """From any state it can be stopped: whatever work is under way ends, it hands over for a while, and leaves."""
        if not hasattr(self, "machine"):
            return
        self.machine.stop(self.now)
        self.carry_out()
        for _ in range(3):
            if self.work is not None:
                self.the_work_ends(good=True, score=None, skip=set())
        if not self.left:
            assert self.machine.step is Step.LEAVING
            self.time_passes(self.policy.hand_over)
        assert self.left
        assert self.machine.next_deadline() is None


Rules.TestCase.settings = settings(
    max_examples=120, stateful_step_count=60, deadline=None, derandomize=True, report_multiple_bugs=False
)
test_rules = Rules.TestCase
