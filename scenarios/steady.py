"""Steady: nobody comes, nobody goes. All labs learn from all, and every other scenario is measured by this one."""

from braintorrent.cli.simulating import main
from braintorrent.protocol.policy import Policy
from braintorrent.simulation.scenario import Scenario

PEERS = 6
SECONDS = 120.0
VERSION = 5.0  # seconds to train one
PACE = Policy(ask_every=2.0, ask_deadline=5.0, alone_after=5.0)


def scenario(peers: int = PEERS) -> Scenario:
    return Scenario("steady", __doc__, peers, SECONDS, policy=PACE, version_seconds=VERSION)


if __name__ == "__main__":
    main(scenario)
