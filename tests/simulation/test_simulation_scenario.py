"""What no scenario may say: it would play as if nothing had been said."""

import pytest

from braintorrent.errors import ConfigError
from braintorrent.simulation.scenario import Attacker, Happening, Scenario


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"what": "partiton"}, "no happening is called 'partiton'; there are: join, leave, kill, "),
        ({"what": "kill", "until": 100.0}, "kill until 300 s cannot end before, at 100 s"),
        ({"what": "kill", "until": 305.0, "over": 10.0}, "kill until 310 s cannot end before, at 305 s"),
        ({"what": "pause", "who": (-1,)}, "pause: who is a share"),
        ({"what": "pause", "who": (0.5,)}, "pause: who is a share"),
        ({"what": "pause", "who": 2.0}, "pause: who is a share, up to 1.0, or labs by their numbers, as in (0, 3)"),
        ({"what": "pause", "who": 0.0}, "pause: who is a share"),
        ({"what": "pause", "who": 3}, "pause: who is a share"),
    ],
)
def test_a_happening_that_could_not_be_is_an_error(values, said):
    with pytest.raises(ConfigError, match="^" + said.replace("(", r"\(").replace(")", r"\)")):
        Happening(300.0, **values)


@pytest.mark.parametrize("told", [{"happenings": (Happening(3.0, "kill", (40,)),)}, {"attackers": (Attacker(40),)}])
def test_nothing_befalls_labs_that_are_not_there(told):
    with pytest.raises(ConfigError, match="there is no lab 40; the 12 labs are 0 to 11"):
        Scenario("story", "", 12, 60.0, **told)


def test_who_is_killed_may_return_at_once():
    assert Happening(3.0, "kill", (0,), until=3.0).until == 3.0


def test_a_story_for_more_labs_goes_on_with_those_there_are():
    assert Scenario("story", "", 12, 60.0, happenings=(Happening(3.0, "kill", (11, 12)),)).peers == 12
