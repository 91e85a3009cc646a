"""Leave for good: a lab goes and never returns. Its last model still spreads, since whoever holds signed bytes may give
them on; what it taught stays.
"""

from braintorrent.cli.simulating import main
from braintorrent.protocol.policy import Policy
from braintorrent.simulation.scenario import Happening, Scenario

PEERS = 6
SECONDS = 120.0
LEAVES = 60.0  # the last lab
VERSION = 5.0  # seconds to train one
PACE = Policy(ask_every=2.0, ask_deadline=5.0, alone_after=5.0)


def scenario(peers: int = PEERS) -> Scenario:
    leave = Happening(LEAVES, "leave", (peers - 1,))
    return Scenario(
        "leave_for_good", __doc__, peers, SECONDS, policy=PACE, version_seconds=VERSION, happenings=(leave,)
    )


if __name__ == "__main__":
    main(scenario)
