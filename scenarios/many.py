"""Many: the cost of a lab stays flat as the federation grows, and what one lab learns is in everyone's model after
some multiple of log N rounds. Each lab asks three others at random and merges three; 30 % of them leave in an hour.

    for n in 10 100 1000 10000; do python scenarios/many.py --peers $n --json; done
    python -m braintorrent.experiments.reach out/reach      (how soon, of ever more labs: a table and a picture)
"""

from braintorrent.cli.simulating import main
from braintorrent.protocol.policy import Policy
from braintorrent.simulation.scenario import Churn, Exponential, Scenario

PEERS = 1000
SECONDS = 3600.0
ROUND = 300.0  # seconds between asks, and to train a version
CHURN = Churn(session=Exponential(3600.0 / 0.3), absence=Exponential(600.0))
PACE = Policy(ask_every=ROUND, fanout=3, max_merge=3, alone_after=ROUND)


def scenario(peers: int = PEERS) -> Scenario:
    return Scenario(
        "many", __doc__, peers, SECONDS, policy=PACE, version_seconds=ROUND, churn=CHURN, known=8, within=ROUND
    )


if __name__ == "__main__":
    main(scenario)
