"""Thin link: one lab hangs on a slow line. It gets and gives models late, and holds nobody else up."""

from braintorrent.cli.simulating import main
from braintorrent.protocol.policy import Policy
from braintorrent.simulation.scenario import Links, Peer, Scenario

PEERS = 6
SECONDS = 300.0
THIN = 100_000.0  # bytes per second, both ways: lab 0
MODEL = 2_000_000  # bytes
VERSION = 5.0  # seconds to train one
PACE = Policy(ask_every=2.0, ask_deadline=5.0, alone_after=5.0)


def scenario(peers: int = PEERS) -> Scenario:
    thin = {0: Peer(links=Links(uplink=THIN, downlink=THIN))}
    return Scenario(
        "thin_link", __doc__, peers, SECONDS, policy=PACE, version_seconds=VERSION, special=thin, model_bytes=MODEL
    )


if __name__ == "__main__":
    main(scenario)
