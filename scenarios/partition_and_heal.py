"""Partition and heal: the line between two halves of the federation is cut. Both go on learning, each towards its own
labs; soon after it is mended all hold each other's newest versions again.
"""

from dataclasses import replace

from braintorrent.cli.simulating import main
from braintorrent.protocol.policy import Policy
from braintorrent.simulation.scenario import Happening, Scenario

PEERS = 6
SECONDS = 240.0
CUT, MENDED = 60.0, 150.0
VERSION = 5.0  # seconds to train one
PACE = Policy(ask_every=2.0, ask_deadline=5.0, alone_after=5.0)


def scenario(peers: int = PEERS) -> Scenario:
    cut = Happening(CUT, "partition", tuple(range(peers // 2)), until=MENDED)
    pace = replace(PACE, max_merge=max(PACE.max_merge, peers))  # or not all could be in hand at once
    return Scenario(
        "partition_and_heal", __doc__, peers, SECONDS, policy=pace, version_seconds=VERSION, happenings=(cut,)
    )


if __name__ == "__main__":
    main(scenario)
