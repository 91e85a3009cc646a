"""Announcements, and a shell around one machine that does what is asked of it when told to."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from hashlib import sha256
from random import Random
from typing import Any

import pytest
from hypothesis import settings

from braintorrent.errors import Unreachable
from braintorrent.protocol import effects as want
from braintorrent.protocol.machine import PeerMachine
from braintorrent.protocol.messages import Announcement, AskMessage, TellMessage
from braintorrent.protocol.policy import Policy
from braintorrent.protocol.steps import Restored, Step
from braintorrent.protocol.version import Version

settings.register_profile("same-every-time", derandomize=True, deadline=None)
settings.load_profile("same-every-time")


def announce(
    author: str, incarnation: int = 1, counter: int = 1, *, final: bool = False, content: str = ""
) -> Announcement:
    """A verified announcement."""
    digest = sha256(f"{author} {incarnation} {counter} {content}".encode()).hexdigest()
    return Announcement("fed", author, Version(incarnation, counter), digest, 10, 1, 1.0, "0" * 64, digest, 100, final)


ROUND_TRIP = 0.001  # seconds


@dataclass
class Shell:
    """Drives one machine in virtual time. Asks, fetches and work wait until a test answers them."""

    machine: PeerMachine
    now: float = 0.0
    asks: list[want.Ask] = field(default_factory=list)
    fetches: list[want.Fetch] = field(default_factory=list)
    work: list[want.Merge | want.Train | want.Publish] = field(default_factory=list)
    others: list[want.Effect] = field(default_factory=list)

    def feed(self, event: str, *args: Any, **named: Any) -> Any:
        """Give the machine an event, and sort what it wants."""
        result = getattr(self.machine, event)(*args, self.now, **named)
        self.drain()
        return result

    def drain(self) -> None:
        for effect in self.machine.effects():
            match effect:
                case want.Ask():
                    self.asks.append(effect)
                case want.Fetch():
                    self.fetches.append(effect)
                case want.Merge() | want.Train() | want.Publish():
                    self.work.append(effect)
                case _:
                    self.others.append(effect)
        deadline = self.machine.next_deadline()
        assert deadline is None or deadline > self.now, "a busy loop"

    def wait(self, seconds: float, meanwhile: Callable[[], None] = lambda: None) -> None:
        """Let time pass, waking the machine when it wants to be woken."""
        end = self.now + seconds
        while (deadline := self.machine.next_deadline()) is not None and deadline <= end:
            self.now = deadline
            self.feed("tick")
            meanwhile()
        self.now = end

    def reply(self, peer: str, *announcements: Announcement, phase: str = "working", settled: bool = False) -> None:
        """Answer the ask under way to `peer`."""
        ask = next(a for a in self.asks if a.peer == peer)
        self.asks.remove(ask)
        self.now += ROUND_TRIP
        self.feed("asked", peer, TellMessage(announcements, phase, settled))

    def silence(self, peer: str) -> None:
        """The ask under way to `peer` fails."""
        ask = next(a for a in self.asks if a.peer == peer)
        self.asks.remove(ask)
        self.feed("asked", peer, Unreachable("no answer"))

    def asked_by(
        self, peer: str, newest: Announcement | None = None, phase: str = "working", **holds: Version
    ) -> TellMessage:
        """`peer` asks."""
        return self.feed("received", AskMessage(newest, holds, phase=phase), peer)

    def fetch_all(self) -> None:
        """Every fetch under way, and those that follow, succeed."""
        while self.fetches:
            fetch = self.fetches.pop(0)
            self.feed("fetched", fetch.announcement, fetch.source)

    def merge(self, **skipped: str) -> want.Merge:
        """The merge under way ends."""
        effect = self.work.pop()
        assert isinstance(effect, want.Merge)
        included = [a.author for a in effect.candidates if a.author not in skipped]
        self.feed("merged", included, skipped)
        return effect

    def train(self, score: float | None = None) -> want.Train:
        """The training under way ends."""
        effect = self.work.pop()
        assert isinstance(effect, want.Train)
        self.feed("trained", True, score)
        return effect

    def publish(self) -> Announcement:
        """The publication under way becomes durable."""
        effect = self.work.pop()
        assert isinstance(effect, want.Publish)
        announcement = announce("me", *effect.version, final=effect.final)
        self.feed("published", announcement)
        return announcement

    def left(self) -> str | None:
        """Why it left, if it did."""
        return next((e.reason for e in self.others if isinstance(e, want.Leave)), None)

    @property
    def step(self) -> Step:
        return self.machine.step


@pytest.fixture
def said() -> Callable[..., Announcement]:
    return announce


@pytest.fixture
def shell() -> Callable[..., Shell]:
    def make(
        others: str = "ab", *, restored: Restored | None = None, meet: bool = True, seed: int = 7, **policy: Any
    ) -> Shell:
        """A machine `me` with others of one letter each, all sighted if `meet`."""
        roster = frozenset(["me", *others])
        restored = restored or Restored(incarnation=10)
        made = Shell(PeerMachine("me", "fed", roster, Policy(**policy), Random(seed), restored, 0.0))
        made.drain()
        for other in others if meet else "":
            made.feed("sighted", other, f"{other}:1")
        return made

    return make
