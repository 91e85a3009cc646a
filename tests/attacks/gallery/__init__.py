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

    named: a regular expression that a line of status, log or answers about this attacker matches once it was tried.
    silent: there is nothing to tell, since an honest peer might do the same, or it is passed over like any foreign
        record; then nothing that the victim says of anyone has changed.
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
    silent: bool


ATTACKS: dict[str, Attack] = {}


def attack(
    tries: str, *, named: str = "", share: float = 0.0, member: bool = True, friends: int = 0, silent: bool = False
) -> Callable[[Run], Run]:
    """Put a function among the attacks, under its own name with spaces."""

    def add(run: Run) -> Run:
        name = run.__name__.strip("_").replace("_", " ")
        assert name not in ATTACKS, f"two attacks are called {name}"
        assert bool(named) != silent, f"{name}: what shows it?"
        ATTACKS[name] = Attack(name, tries, named, run, share, member, friends, silent)
        return run

    return add


def _gather() -> None:
    from gallery import answers, doors, floods, messages, models, places, trust  # noqa: F401


_gather()
