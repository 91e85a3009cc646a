"""Daily hours: labs around the world are there in their working hours only. Some never meet, and still learn from each
other through those whose hours overlap.
"""

from braintorrent.cli.simulating import main
from braintorrent.protocol.policy import Policy
from braintorrent.simulation.scenario import Churn, Scenario, Sessions

PEERS = 30
DAYS = 2
OPENS, CLOSES = 8, 18  # local time
ZONES = (-8, -5, 0, 1, 5, 9)  # hours from UTC; the labs take turns
HOUR = 3600.0
PACE = Policy(ask_every=300.0, fanout=3, alone_after=600.0)


def scenario(peers: int = PEERS) -> Scenario:
    days = [[(24 * day + OPENS - zone, 24 * day + CLOSES - zone) for day in range(-1, DAYS + 1)] for zone in ZONES]
    hours = tuple(tuple((max(0, a) * HOUR, b * HOUR) for a, b in zone if b > 0 and a < 24 * DAYS) for zone in days)
    churn = Churn(session=Sessions(hours), crash=0.0, lost_disk=0.0, old_copy=0.0)
    return Scenario("daily_hours", __doc__, peers, 24 * DAYS * HOUR, policy=PACE, version_seconds=HOUR / 2, churn=churn)


if __name__ == "__main__":
    main(scenario)
