"""Many: the cost of a lab stays flat as the federation grows, and what one lab publishes has reached everyone after
some multiple of log N rounds: they hold it, or a model that merged it. Each lab asks three others at random and merges
three; 30 % of them leave in an hour.

    for n in 10 100 1000 10000; do python scenarios/many.py --peers $n --json; done
    python -m braintorrent.experiments.reach out/reach      (how soon, of ever more labs: a table and a picture)

An hour has 12 versions, and publishes of the second to the fourth are followed: too short for 2,000 labs and more,
whose intervals_to_99 is null. The second command plays 30 versions.
"""

from braintorrent.cli.simulating import main
from braintorrent.protocol.policy import Policy
from braintorrent.simulation.scenario import Churn, Exponential, Scenario

PEERS = 1000
SECONDS = 3600.0
ROUND = 300.0  # seconds between asks, and to train a version
CHURN = Churn(session=Exponential(3600.0 / 0.3), absence=Exponential(600.0))
# Each model that a version merges costs bytes, and the simulation time. With eight a publish reaches a thousand labs in
# three quarters of the versions, for 2.6 times the bytes and 1.4 times the time.
PACE = Policy(ask_every=ROUND, fanout=3, max_merge=3, alone_after=ROUND)


def scenario(peers: int = PEERS) -> Scenario:
    return Scenario(
        "many", __doc__, peers, SECONDS, policy=PACE, version_seconds=ROUND, churn=CHURN, known=8, within=ROUND
    )


if __name__ == "__main__":
    main(scenario)
