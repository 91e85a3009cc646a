"""The protocol in virtual time: a clock, a network with faults, and peers that drive the same PeerMachine as node/.

Nothing here decides what a peer says or when: a run that misbehaves points at protocol/. Everything random
comes from one seed, so that a trace can be told apart from another by its digest alone.
"""

from braintorrent.simulation.clock import Clock, Trace
from braintorrent.simulation.network import Line, Network
from braintorrent.simulation.run import Run, Series, Spread
from braintorrent.simulation.world import World

__all__ = ["Clock", "Line", "Network", "Run", "Series", "Spread", "Trace", "World"]
