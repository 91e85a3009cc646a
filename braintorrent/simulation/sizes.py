"""Bytes on the wire above TCP, without encoding anything. Measured: tests hold them to what real labs send.

tests/simulation/test_simulation_sizes.py compares messages, tests/network/test_network_overhead.py whole exchanges.
"""

from __future__ import annotations

from braintorrent.protocol.messages import AskMessage, TellMessage

ASK, TELL = 106, 170  # empty ones over a connection that is open, with their HTTP heads and TLS records
ANNOUNCEMENT = 357  # signed
HOLD = 64  # author and version
ADDRESS = 75  # peer id and host:port
WANT = 66
NOTICE = 250
RECORD = 1020  # of a model that six were merged into
REQUEST = 1017  # of a record, and of its weights over a connection of their own, whose handshake is most of it
WEIGHTS = 935  # what comes before weights on that connection
TLS = 1 + 22 / 16384  # bytes of a large body with its TLS records, for each
REFUSAL = 200


def ask(message: AskMessage) -> int:
    """Bytes of an ask."""
    return ASK + ANNOUNCEMENT * (message.newest is not None) + HOLD * len(message.holds) + len(message.notices)


def tell(message: TellMessage) -> int:
    """Bytes of an answer."""
    rows = ANNOUNCEMENT * len(message.announcements) + ADDRESS * len(message.addresses)
    return TELL + rows + WANT * len(message.wants) + NOTICE * len(message.notices)


def model(weights: int) -> float:
    """Bytes that answer a fetch: a record, and then weights of so many bytes."""
    return TELL + RECORD + WEIGHTS + TLS * weights
