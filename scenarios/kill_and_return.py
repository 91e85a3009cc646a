"""Kill and return: every few seconds some lab is killed in the middle of what it does, and soon starts again; one
loses its disk and has only its key left. No version is lost, and nobody waits for the dead.
"""

from braintorrent.cli.simulating import main
from braintorrent.protocol.policy import Policy
from braintorrent.simulation.scenario import Happening, Scenario

PEERS = 6
SECONDS = 330.0
KILLS = range(15, 301, 15)  # seconds: a lab drawn at random
LOST = 157.0  # when lab 0 loses its disk
AWAY = 5.0  # seconds until the process runs again
VERSION = 5.0  # seconds to train one
PACE = Policy(ask_every=2.0, ask_deadline=5.0, alone_after=5.0)


def scenario(peers: int = PEERS) -> Scenario:
    kills = [Happening(at, "kill", 1 / peers, until=at + AWAY) for at in KILLS]
    lost = Happening(LOST, "lose_disk", (0,), until=LOST + AWAY)
    return Scenario(
        "kill_and_return", __doc__, peers, SECONDS, policy=PACE, version_seconds=VERSION, happenings=(*kills, lost)
    )


if __name__ == "__main__":
    main(scenario)
