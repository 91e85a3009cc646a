"""Ask: who knows something newer. Before the first ask to a peer, hello: do we agree on what we train?"""

from __future__ import annotations

import time

from braintorrent.errors import Refused, RemoteError, Unreachable
from braintorrent.network.wire import PROTOCOL, Hello
from braintorrent.node.context import Context, log
from braintorrent.protocol import effects
from braintorrent.protocol.messages import TellMessage
from braintorrent.records import short

CODEC = "safetensors"  # the one encoding of weights that every peer reads
MAX_CLOCK_SKEW = 3600.0  # seconds; incarnations are read off the clock, so hours off would spoil them


def hello(context: Context, addresses: tuple[str, ...]) -> Hello:
    """What this lab says of itself when it meets another."""
    lab = context.lab
    return Hello(
        name=lab.peer.name, federation=lab.federation.id, agreement=lab.agreement,
        clock_ms=int(time.time() * 1000), addresses=addresses,
    )  # fmt: skip


def objection(context: Context, theirs: Hello) -> Refused | None:
    """Why these two labs cannot learn together, naming every key they differ in; None if they can."""
    lab = context.lab
    if theirs.federation != lab.federation.id:
        return Refused(f"federation {theirs.federation} is not {lab.federation.id}", reason="federation")
    if not theirs.protocols[0] <= PROTOCOL <= theirs.protocols[1] or CODEC not in theirs.codecs:
        speaks = "protocols {} to {}".format(*theirs.protocols)
        return Refused(f"{theirs.name} speaks {speaks} and reads {', '.join(theirs.codecs)[:100]}", reason="protocol")
    keys = lab.agreement.keys() | theirs.agreement.keys()
    differing = sorted(k for k in keys if lab.agreement.get(k) != theirs.agreement.get(k))
    if differing:
        return Refused(f"{lab.peer.name} and {theirs.name} differ in {', '.join(differing)[:200]}", reason="agreement")
    skew = theirs.clock_ms / 1000 - time.time()
    if abs(skew) > MAX_CLOCK_SKEW:
        return Refused(
            f"the clocks of {lab.peer.name} and {theirs.name} differ by {abs(skew) / 3600:.1f} hours", reason="clock"
        )
    return None


async def ask(context: Context, effect: effects.Ask, addresses: tuple[str, ...]) -> None:
    """Carry out an Ask at the first address that answers, and tell the machine what came of it."""
    answer: TellMessage | RemoteError = Unreachable("no address known")
    contact = context.machine.contacts.of.get(effect.peer)
    for address in list(contact.addresses) if contact else []:
        try:
            answer = await _ask_at(context, effect, address, addresses)
        except RemoteError as error:
            answer = error
            if isinstance(error, Unreachable):
                continue  # perhaps it lives at the next one
        else:
            context.machine.sighted(effect.peer, address, context.now, proven=True)
        break
    if isinstance(answer, RemoteError):
        _complain(context, effect.peer, answer)
    else:
        context.problems.pop(effect.peer, None)
    context.tell(lambda now: context.machine.asked(effect.peer, answer, now))


async def _ask_at(context: Context, effect: effects.Ask, address: str, mine: tuple[str, ...]) -> TellMessage:
    deadline = context.machine.policy.ask_deadline
    if effect.peer not in context.greeted:
        await _greet(context, effect.peer, address, mine)
    try:
        return await context.client.ask(effect.peer, address, effect.message, deadline)
    except Refused as error:
        if error.reason != "hello":  # it restarted and does not remember us
            raise
    await _greet(context, effect.peer, address, mine)
    return await context.client.ask(effect.peer, address, effect.message, deadline)


async def _greet(context: Context, peer: str, address: str, mine: tuple[str, ...]) -> None:
    context.greeted.pop(peer, None)
    theirs = await context.client.hello(peer, address, hello(context, mine))
    trouble = objection(context, theirs)
    if trouble is not None:
        raise trouble
    context.greeted[peer] = theirs.name
    for hint in theirs.addresses:
        context.machine.sighted(peer, hint, context.now)


def _complain(context: Context, peer: str, error: RemoteError) -> None:
    contact = context.machine.contacts.of.get(peer)
    before = contact.problem if contact else ""
    if not isinstance(error, Unreachable):
        context.greeted.pop(peer, None)
    if before != f"{error.reason}: {error.detail}":  # once per change, not once per ask
        log.warning("%s %s: %s: %s", context.lab.roster.name(peer), short(peer), error.reason, error.detail)
