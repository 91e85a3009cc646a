"""Labs that return in virtual time, or cannot, and what is told where nobody is there."""

from __future__ import annotations

import pytest

from braintorrent.errors import ConfigError
from braintorrent.protocol.policy import Policy
from braintorrent.simulation.running import run
from braintorrent.simulation.scenario import Happening, Scenario

PACE = Policy(ask_every=2.0, ask_deadline=5.0, alone_after=5.0)


def played(*happenings: Happening):
    return run(Scenario("returns", "", 3, 60.0, PACE, 5.0, happenings=happenings), seed=0)


def test_who_is_started_while_it_leaves_starts_once_it_has_left():
    returned = played(Happening(30.0, "leave", (1,), until=30.5))
    assert returned.series.present[-1] == 3
    assert min(returned.series.present[60:]) == 2
    assert returned.versions[1] > played(Happening(30.0, "leave", (1,))).versions[1]


def test_who_is_killed_while_it_leaves_to_start_again_stays_away():
    leaves, killed = Happening(30.0, "leave", (1,), until=30.5), Happening(31.2, "kill", (1,))
    assert played(leaves, killed).series.present[-1] == 2
    assert played(leaves, Happening(31.2, "kill", (1,), until=40.0)).series.present[-1] == 3


def test_nobody_is_at_no_distance():
    left = played(Happening(30.0, "leave", (0, 1, 2)))
    assert left.series.present[-1] == 0
    assert left.figures["distance_to_optimum"] is None
    assert played().figures["distance_to_optimum"] > 0


def test_a_new_key_needs_real_processes():
    with pytest.raises(ConfigError, match=r"--real.*another joins"):
        played(Happening(30.0, "lose_all", (1,), until=35.0))
