"""NAT: one lab can only dial out, nobody can dial it. It takes full part: what it has is announced in its asks, and it
pushes its models to those who say that they want them.
"""

from braintorrent.cli.simulating import main
from braintorrent.protocol.policy import Policy
from braintorrent.simulation.scenario import Peer, Scenario

PEERS = 6
SECONDS = 120.0
VERSION = 5.0  # seconds to train one
PACE = Policy(ask_every=2.0, ask_deadline=5.0, alone_after=5.0)


def scenario(peers: int = PEERS) -> Scenario:
    behind = {peers - 1: Peer(nat=True)}
    return Scenario("nat", __doc__, peers, SECONDS, policy=PACE, version_seconds=VERSION, special=behind)


if __name__ == "__main__":
    main(scenario)
