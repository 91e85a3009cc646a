"""Flash crowd: two labs become two hundred within a minute. No lab is overrun, since who has a model also serves it;
the newcomers adopt it instead of drowning it in models that have learned little.
"""

from braintorrent.cli.simulating import main
from braintorrent.protocol.policy import Policy
from braintorrent.simulation.scenario import Happening, Scenario

PEERS = 200
FIRST = 2  # there from the beginning
RUSH, LASTS = 60.0, 60.0  # seconds: when the others come, and until the last is there
SECONDS = 240.0
VERSION = 30.0  # seconds to train one
PACE = Policy(ask_every=10.0, ask_deadline=5.0, fanout=3, alone_after=10.0)


def scenario(peers: int = PEERS) -> Scenario:
    crowd = Happening(RUSH, "join", tuple(range(FIRST, peers)), over=LASTS)
    return Scenario("flash_crowd", __doc__, peers, SECONDS, policy=PACE, version_seconds=VERSION, happenings=(crowd,))


if __name__ == "__main__":
    main(scenario)
