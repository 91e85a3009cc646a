"""Late join: a newcomer adopts what the others have learned before it trains, and so is level with them at once."""

from braintorrent.cli.simulating import main
from braintorrent.protocol.policy import Policy
from braintorrent.simulation.scenario import Happening, Scenario

PEERS = 6
SECONDS = 120.0
JOINS = 60.0  # the last lab
VERSION = 5.0  # seconds to train one
PACE = Policy(ask_every=2.0, ask_deadline=5.0, alone_after=5.0)


def scenario(peers: int = PEERS) -> Scenario:
    join = Happening(JOINS, "join", (peers - 1,))
    return Scenario("late_join", __doc__, peers, SECONDS, policy=PACE, version_seconds=VERSION, happenings=(join,))


if __name__ == "__main__":
    main(scenario)
