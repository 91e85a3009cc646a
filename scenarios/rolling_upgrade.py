"""Rolling upgrade: one lab after the other goes over to a protocol that the old release does not speak, so that for a
while the two camps cannot talk. Each lab carries what it holds across; nobody starts anew, and no version is lost.
"""

from braintorrent.cli.simulating import main
from braintorrent.protocol.policy import Policy
from braintorrent.simulation.scenario import Happening, Scenario

PEERS = 6
BEGINS, APART = 60.0, 20.0  # seconds: the first lab's upgrade, and from one to the next
AWAY = 15.0  # seconds that it takes, of which a leave in good order takes ten
VERSION = 5.0  # seconds to train one
PACE = Policy(ask_every=2.0, ask_deadline=5.0, alone_after=5.0)


def scenario(peers: int = PEERS) -> Scenario:
    when = [BEGINS + APART * lab for lab in range(peers)]
    restarts = [Happening(at, "leave", (lab,), until=at + AWAY) for lab, at in enumerate(when)]
    camps = [
        Happening(at + AWAY, "partition", tuple(range(lab + 1)), until=at + APART + AWAY)
        for lab, at in enumerate(when[:-1])
    ]
    return Scenario(
        "rolling_upgrade", __doc__, peers, when[-1] + BEGINS, policy=PACE, version_seconds=VERSION,
        happenings=(*restarts, *camps),
    )  # fmt: skip


if __name__ == "__main__":
    main(scenario)
