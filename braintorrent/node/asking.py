"""Ask: who knows something newer. Before the first ask to a peer, hello: do we agree on what we train?"""

from __future__ import annotations

import errno
import re
import socket
import time

from braintorrent.errors import Refused, RemoteError, Unreachable
from braintorrent.network.wire import Hello
from braintorrent.node.agreeing import objection, spoken
from braintorrent.node.context import Context, Met, log
from braintorrent.node.roster import line_of
from braintorrent.protocol import effects
from braintorrent.protocol.contacts import NEVER
from braintorrent.protocol.messages import TellMessage
from braintorrent.records import short

UNREACHED = ("unreachable", "identity", "address", "closing", "internal")  # reasons that are nobody's refusal
CONNECTING = {
    errno.ECONNREFUSED: "refused the connection (not running?)", errno.EHOSTUNREACH: "cannot be reached (no route)",
    errno.ENETUNREACH: "cannot be reached (no network)", errno.ETIMEDOUT: "did not answer in time",
    errno.ECONNRESET: "broke the connection off",
}  # fmt: skip


def hello(context: Context, addresses: tuple[str, ...]) -> Hello:
    """What this lab says of itself when it meets another."""
    lab = context.lab
    return Hello(
        name=lab.peer.name, federation=lab.federation.id, agreement=lab.agreement,
        clock_ms=int(time.time() * 1000), addresses=addresses, protocols=lab.peer.protocols,
    )  # fmt: skip


async def ask(context: Context, effect: effects.Ask, addresses: tuple[str, ...]) -> None:
    """Carry out an Ask at the first address that answers, and tell the machine what came of it."""
    answer: TellMessage | RemoteError = Unreachable("no address known")
    contact = context.machine.contacts.of.get(effect.peer)
    for address in list(contact.addresses) if contact else []:
        try:
            answer = await _ask_at(context, effect, address, addresses)
        except RemoteError as error:
            answer = _explained(context, effect.peer, address, error)
            if isinstance(error, Unreachable):
                continue  # perhaps it lives at the next one
        else:
            context.machine.sighted(effect.peer, address, context.now, proven=True)
        break
    if isinstance(answer, RemoteError):
        _complain(context, effect.peer, answer, addresses)
    else:
        context.problems.pop(effect.peer, None)
    context.tell(lambda now: context.machine.asked(effect.peer, answer, now))


async def _ask_at(context: Context, effect: effects.Ask, address: str, mine: tuple[str, ...]) -> TellMessage:
    peer, deadline = effect.peer, context.machine.policy.ask_deadline
    met = context.greeted.get(peer) or await _greet(context, peer, address, mine)
    try:
        return await context.client.ask(peer, address, effect.message, deadline, met.protocol)
    except Refused as error:
        if error.reason not in ("hello", "protocol"):  # it restarted and does not remember us, or what was agreed
            raise
    met = await _greet(context, peer, address, mine)
    return await context.client.ask(peer, address, effect.message, deadline, met.protocol)


async def _greet(context: Context, peer: str, address: str, mine: tuple[str, ...]) -> Met:
    context.greeted.pop(peer, None)
    ours = hello(context, mine)
    theirs = await context.client.hello(peer, address, ours)
    trouble = objection(ours, theirs, context.lab.roster.name(peer))
    if trouble is not None:
        raise trouble
    met = context.greeted[peer] = Met(theirs.name, spoken(ours, theirs))
    for hint in filter(context.client.dialling.plausible, theirs.addresses):
        context.machine.sighted(peer, hint, context.now)
    return met


def declined(context: Context, peer: str) -> bool:
    """Whether it was reached, and one side will not learn with the other."""
    contact = context.machine.contacts.of.get(peer)
    problem = context.problems.get(peer) or (contact.problem if contact else "")
    return bool(problem) and problem.split(":", 1)[0] not in UNREACHED


def alone(context: Context) -> str:
    """Why this lab trains alone, for people."""
    refusing = sorted(context.lab.roster.name(peer) for peer in context.lab.roster.ids if declined(context, peer))
    who = f"{', '.join(refusing)} in reach, but not agreed with" if refusing else "no other peer in reach"
    return f"{who}: training alone; others are merged as soon as they appear"


def in_words(error: RemoteError, address: str) -> str:
    """What went wrong at an address, without the words of the libraries underneath."""
    cause = error.__context__
    if isinstance(cause, socket.gaierror) or isinstance(getattr(cause, "os_error", None), socket.gaierror):
        return f"{address}: no such host name here"
    number = getattr(cause, "errno", None) or next(map(int, re.findall(r"\[Errno (\d+)\]", error.detail)), 0)
    if number in CONNECTING:
        return f"{address} {CONNECTING[number]}"
    if error.detail == f"{address}: TimeoutError":
        return f"{address} did not answer in time"
    return re.sub(r" ssl:\S+( object at \w+>)?", "", error.detail)


def _explained(context: Context, peer: str, address: str, error: RemoteError) -> RemoteError:
    if error.reason == "roster" and peer in context.revokers:
        return Refused(context.revokers[peer], reason=f"revoked by {context.lab.roster.name(peer)}")
    if error.reason == "roster" and peer in context.lab.roster.ids:
        return Refused(f"{context.lab.roster.name(peer)} does not trust this lab yet", reason="roster")
    if isinstance(error, Unreachable):
        return Unreachable(in_words(error, address), reason=error.reason)
    return error


def _complain(context: Context, peer: str, error: RemoteError, mine: tuple[str, ...]) -> None:
    """Say it once per change, not once per ask; a peer that is not there yet, or not any more, is no fault."""
    contact = context.machine.contacts.of.get(peer)
    if not isinstance(error, Unreachable):
        context.greeted.pop(peer, None)
    said = f"{error.reason}: {error.detail}"
    if contact is None or said in (contact.problem, context.problems.get(peer)):
        return
    name = f"{context.lab.roster.name(peer)} {short(peer)}"
    if error.reason == "roster":
        line = line_of(context.lab.peer.name, context.lab.me, mine)
        introduced = f", or if another has introduced this one: braintorrent trust --accept {context.lab.peer.name}"
        log.warning('%s; there: braintorrent trust "%s"%s', error.detail, line, introduced)
    elif error.reason != Unreachable.reason:
        log.warning("%s: %s: %s", name, error.reason, error.detail)
    elif contact.heard == -NEVER:
        log.info("%s not there yet: %s", name, error.detail)
    elif contact.phase == "leaving":
        log.info("%s left", name)
    else:
        log.warning("%s: %s", name, error.detail)
