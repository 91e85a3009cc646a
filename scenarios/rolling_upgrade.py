"""Rolling upgrade: one lab after the other restarts with a release that speaks protocols 1 and 2, and later with one
that speaks 2 alone. In between the oldest and the newest do not understand each other; what they learn passes through
the labs that speak both. Nobody starts anew, and no version is lost.
"""

from braintorrent.cli.simulating import main
from braintorrent.protocol.policy import Policy
from braintorrent.simulation.scenario import Happening, Scenario

PEERS = 6
OLD, BOTH, NEW = (1, 1), (1, 2), (2, 2)  # lowest and highest protocol that a release speaks
BEGINS, APART = 60.0, 20.0  # seconds: the first lab's first upgrade, and from one lab to the next
BETWEEN = 70.0  # seconds from a lab's first upgrade to its second
AWAY = 10.0  # seconds that each takes, a leave in good order included
VERSION = 5.0  # seconds to train one
PACE = Policy(ask_every=2.0, ask_deadline=5.0, alone_after=5.0)


def scenario(peers: int = PEERS) -> Scenario:
    upgrades = [
        Happening(at, "leave", (lab,), until=at + AWAY, protocols=speaks)
        for lab in range(peers)
        for at, speaks in ((BEGINS + APART * lab, BOTH), (BEGINS + APART * lab + BETWEEN, NEW))
    ]
    seconds = BEGINS + APART * peers + BETWEEN + BEGINS
    return Scenario(
        "rolling_upgrade", __doc__, peers, seconds, policy=PACE, version_seconds=VERSION, happenings=tuple(upgrades),
        protocols=OLD,
    )  # fmt: skip


if __name__ == "__main__":
    main(scenario)
