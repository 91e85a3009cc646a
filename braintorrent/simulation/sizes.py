"""Bytes on the wire, estimated without encoding anything; tests/simulation holds them to network.wire."""

from __future__ import annotations

from braintorrent.protocol.messages import AskMessage, TellMessage

HEADS = 460  # of an exchange, either way: HTTP and TLS records of a connection that is open
ANNOUNCEMENT = 360  # signed
HOLD = 65  # author and version
ADDRESS = 78  # peer id and host:port
WANT = 66
NOTICE = 400
RECORD = 800  # of a model and its parents
REQUEST = HEADS
REFUSAL = HEADS


def ask(message: AskMessage) -> int:
    """Bytes of an ask."""
    return HEADS + ANNOUNCEMENT * (message.newest is not None) + HOLD * len(message.holds) + len(message.notices)


def tell(message: TellMessage) -> int:
    """Bytes of an answer."""
    rows = ANNOUNCEMENT * len(message.announcements) + ADDRESS * len(message.addresses)
    return HEADS + rows + WANT * len(message.wants) + NOTICE * len(message.notices)
