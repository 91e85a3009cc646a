"""Lying peer: one lab publishes poisoned models, another tells each half of the federation something else under one
version. The median bears the first (METHOD = "braintorrent" shows the mean fail); the second is caught by comparing.
"""

from braintorrent.cli.simulating import main
from braintorrent.protocol.policy import Policy
from braintorrent.simulation.scenario import Attacker, Scenario

PEERS = 9
SECONDS = 180.0
METHOD = "coordinate_median"
LIARS = (Attacker(0, "poison", scale=100.0), Attacker(1, "equivocate"))
VERSION = 5.0  # seconds to train one
PACE = Policy(ask_every=2.0, ask_deadline=5.0, alone_after=5.0)


def scenario(peers: int = PEERS) -> Scenario:
    return Scenario(
        "lying_peer", __doc__, peers, SECONDS, policy=PACE, version_seconds=VERSION, attackers=LIARS, method=METHOD
    )


if __name__ == "__main__":
    main(scenario)
