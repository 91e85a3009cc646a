"""Serve: answer hello, ask and blob requests of roster peers. Never waits for training."""

from __future__ import annotations

from functools import partial

from braintorrent.errors import Refused
from braintorrent.network.wire import PROTOCOL, Hello
from braintorrent.node.agreeing import objection, spoken
from braintorrent.node.asking import hello as own_hello
from braintorrent.node.context import Context, log
from braintorrent.node.finding import knocked
from braintorrent.node.inviting import Inviting
from braintorrent.protocol.messages import AskMessage, TellMessage
from braintorrent.records import short
from braintorrent.records.notice import open_chain


class Serving:
    """The network server's Handlers. `addresses` is filled once the server listens."""

    def __init__(self, context: Context) -> None:
        self.context = context
        self.addresses: tuple[str, ...] = ()
        self._met: dict[str, int] = {}  # agreed with, in this life -> the protocol it asks in
        self.join = Inviting(context).join

    def trusted(self, peer: str) -> bool:
        """Asked anew for each request: a peer taken off the roster is refused at once."""
        known = peer in self.context.lab.roster.ids
        if not known:
            knocked(self.context, peer)
        return known

    def follow(self, rotations: bytes) -> None:
        """A lab with new keys; whether it is followed is found out beside this, and it will try again."""
        for notice in open_chain(rotations):
            self.context.tell(partial(self.context.machine.heard, notice, notice.peer))

    def hello(self, caller: str, theirs: Hello) -> Hello:
        """Agree or refuse; either side is told the reason from where it stands."""
        mine, name = own_hello(self.context, self.addresses), self.context.lab.roster.name(caller)
        trouble = objection(mine, theirs, name)
        if trouble is not None:
            self._met.pop(caller, None)
            text = f"{trouble.reason}: {trouble.detail}"
            contact = self.context.machine.contacts.of.get(caller)
            if text not in (self.context.problems.get(caller), contact and contact.problem):  # either way, once
                log.warning("%s %s: %s", name, short(caller), text)
            self.context.problems[caller] = text
            raise objection(theirs, mine, mine.name) or trouble
        self.context.problems.pop(caller, None)
        self._met[caller] = spoken(mine, theirs)
        for address in filter(self.context.client.dialling.plausible, theirs.addresses):
            self.context.machine.sighted(caller, address, self.context.now)
        self.context.pump()
        return mine

    def protocol(self, caller: str) -> int:
        """In which it asks, and is told."""
        return self._met.get(caller, PROTOCOL)

    def ask(self, caller: str, message: AskMessage) -> TellMessage:
        """The machine's answer."""
        if caller not in self._met:
            raise Refused("say hello first", reason="hello")
        return self.context.tell(lambda now: self.context.machine.received(message, caller, now))

    def blob(self, caller: str, digest: str) -> tuple[int, int] | None:
        """(descriptor, size) of a blob held here, of a version of somebody trusted; the server closes the descriptor.

        Records of who is trusted no more are kept for lineage only.
        """
        if self.context.lab.members.isdisjoint(self.context.authors.get(digest, ())):
            return None
        try:
            return self.context.blobs.open(digest)
        except KeyError:
            return None
