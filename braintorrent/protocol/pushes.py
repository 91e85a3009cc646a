"""What others, which cannot dial this peer, wait to be sent: one push to each at a time, and a few in all."""

from __future__ import annotations

from collections.abc import Iterable

from braintorrent.protocol.effects import Push


class Pushes:
    """most: at once."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._flying: set[str] = set()
        self._waiting: dict[str, tuple[str, ...]] = {}  # peer -> the digests it wanted last

    def want(self, peer: str, digests: tuple[str, ...]) -> None:
        """What `peer` wants now. What it wanted before and was not sent, it says again if it still does."""
        if digests:
            self._waiting[peer] = digests

    def start(self) -> Iterable[Push]:
        """Begin what may begin."""
        if not self._waiting:
            return ()
        ready = [peer for peer in self._waiting if peer not in self._flying][: self._most - len(self._flying)]
        self._flying.update(ready)
        return [Push(peer, self._waiting.pop(peer)) for peer in ready]

    def ended(self, peer: str) -> None:
        """A push came back, well or not."""
        self._flying.discard(peer)

    def forget(self, peer: str) -> None:
        """`peer` is off the roster."""
        self._waiting.pop(peer, None)
