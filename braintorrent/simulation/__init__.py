"""The protocol in virtual time: a clock, a network with faults, and peers that drive the same PeerMachine as node/.

Nothing here decides what a peer says or when: a run that misbehaves points at protocol/. Everything random
comes from one seed, so that a trace can be told apart from another by its digest alone.
"""

from braintorrent.simulation.clock import Clock, Trace
from braintorrent.simulation.network import Link, Network
from braintorrent.simulation.peer import Disk, Lab, Peer
from braintorrent.simulation.world import Churn, World

__all__ = ["Churn", "Clock", "Disk", "Lab", "Link", "Network", "Peer", "Trace", "World"]
