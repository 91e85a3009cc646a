"""Hostile peers as data: each a name, one line of what it tries, what must name it afterwards, and a function.

The files beside this one hold them by subject. `ATTACKS` has all, in order; docs/threats.md lists the same ones.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from gallery.mallory import Mallory

Answers = list[str] | None
Run = Callable[["Mallory"], Awaitable[Answers]]


@dataclass(frozen=True)
class Attack:
    """One of them.

    named: a regular expression that status, log or an answer matches once it was tried; empty where there is nothing to
        tell, since an honest peer might do the same, or it is passed over like any foreign record.
    share: the most that its model may weigh in a merge; 0: it is in none.
    member: whether the victim has it on its roster. friends: how many other members it brings.
    """

    name: str
    tries: str
    named: str
    run: Run
    share: float
    member: bool
    friends: int


ATTACKS: dict[str, Attack] = {}


def attack(
    tries: str, *, named: str, share: float = 0.0, member: bool = True, friends: int = 0
) -> Callable[[Run], Run]:
    """Put a function among the attacks, under its own name with spaces."""

    def add(run: Run) -> Run:
        name = run.__name__.strip("_").replace("_", " ")
        assert name not in ATTACKS, f"two attacks are called {name}"
        ATTACKS[name] = Attack(name, tries, named, run, share, member, friends)
        return run

    return add


def _gather() -> None:
    from gallery import answers, doors, floods, messages, models, places, trust  # noqa: F401


_gather()
