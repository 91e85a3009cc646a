"""Paper: the setting of Roy et al. (arXiv:1905.06731). One lab after the other, drawn at random, asks all others,
merges what is newer and trains on; there is no round and no server. The paper has 5, 7, 10 and 20 labs: --peers.
Its table, with FedAvg, pooled scans and each lab alone beside it: `make paper DATA=...`.
"""

from braintorrent.cli.simulating import main
from braintorrent.protocol.policy import Policy
from braintorrent.simulation.scenario import Scenario

PEERS = 10
TURNS = 30  # of each lab, on average
VERSION = 5.0  # seconds to train one, and on average between two labs' turns


def scenario(peers: int = PEERS) -> Scenario:
    turn = peers * VERSION
    pace = Policy(ask_every=VERSION, ask_deadline=5.0, alone_after=5.0, mean_interval=turn)
    return Scenario("paper", __doc__, peers, TURNS * turn, policy=pace, version_seconds=VERSION)


if __name__ == "__main__":
    main(scenario)
