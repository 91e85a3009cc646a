"""Straggler: one lab is ten times slower. The others do not wait for it and merge its rare versions as they come."""

from braintorrent.cli.simulating import main
from braintorrent.protocol.policy import Policy
from braintorrent.simulation.scenario import Peer, Scenario

PEERS = 6
SECONDS = 300.0
SLOW = 0.1  # of the others' speed: lab 0
VERSION = 5.0  # seconds to train one
PACE = Policy(ask_every=2.0, ask_deadline=5.0, alone_after=5.0)


def scenario(peers: int = PEERS) -> Scenario:
    slow = {0: Peer(speed=SLOW)}
    return Scenario("straggler", __doc__, peers, SECONDS, policy=PACE, version_seconds=VERSION, special=slow)


if __name__ == "__main__":
    main(scenario)
