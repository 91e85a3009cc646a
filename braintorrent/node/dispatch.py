"""One effect, one handler: what the machine wants, started as tasks. Nothing another peer causes escapes from here."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

from braintorrent.errors import Unreachable
from braintorrent.node.asking import ask
from braintorrent.node.context import Context, log
from braintorrent.node.fetching import fetch
from braintorrent.node.merging import merge
from braintorrent.node.noticing import heard
from braintorrent.node.publishing import publish
from braintorrent.node.pushing import push
from braintorrent.node.serving import Serving
from braintorrent.node.training import keep_checkpoint, train
from braintorrent.protocol import effects
from braintorrent.records.notice import prove


class Dispatch:
    """Carries out effects. `asks`: those under way. `left`: set to the reason when the machine leaves."""

    def __init__(
        self, context: Context, serving: Serving, spawn: Callable[[Coroutine[Any, Any, None]], asyncio.Task[None]]
    ) -> None:
        self.context, self.serving, self.spawn = context, serving, spawn
        self.asks: set[asyncio.Task[None]] = set()
        self.left: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._keeping: asyncio.Task[None] | None = None  # a checkpoint, before this process ends

    def carry_out(self, effect: effects.Effect) -> None:
        """Begin what `effect` wants."""
        context = self.context
        match effect:
            case effects.Ask():
                task = self.spawn(self._ask(effect))
                self.asks.add(task)
                task.add_done_callback(self.asks.discard)
            case effects.Fetch():
                self.spawn(self._fetch(effect))
            case effects.Push():
                self.spawn(self._push(effect))
            case effects.Merge():
                self.spawn(merge(context, effect))
            case effects.Train():
                self.spawn(train(context, effect))
            case effects.Publish():
                self.spawn(publish(context, effect))
            case effects.Forget():
                self.spawn(context.keep(context.forget, effect.announcement))
            case effects.Quarantine():
                self.spawn(self._quarantine(effect))
            case effects.Heard():
                self.spawn(self._heard(effect))
            case effects.Halt():
                context.halt.set()
            case effects.HandOver():
                self.spawn(self._hand_over(effect))
            case effects.Leave():
                self.spawn(self._leave(effect))

    async def _ask(self, effect: effects.Ask) -> None:
        try:
            await ask(self.context, effect, self.serving.addresses)
        except Exception as error:  # a bug that a remote's answer set off must not end this process
            log.exception("asking %s", effect.peer)
            trouble = Unreachable(type(error).__name__, reason="internal")
            self.context.tell(lambda now: self.context.machine.asked(effect.peer, trouble, now))

    async def _fetch(self, effect: effects.Fetch) -> None:
        try:
            await fetch(self.context, effect)
        except Exception:  # likewise
            log.exception("fetching %s", effect.announcement.version)
            found = effect.announcement, effect.source
            self.context.tell(lambda now: self.context.machine.fetch_failed(*found, now))

    async def _push(self, effect: effects.Push) -> None:
        try:
            await push(self.context, effect)
        except Exception:  # likewise
            log.exception("pushing to %s", effect.peer)
        self.context.tell(lambda now: self.context.machine.pushed(effect.peer, now))

    async def _heard(self, effect: effects.Heard) -> None:
        try:
            await heard(self.context, effect)
        except Exception:  # likewise
            log.exception("a notice of %s", effect.notice.author)

    async def _quarantine(self, effect: effects.Quarantine) -> None:
        context, first, second = self.context, effect.first, effect.second
        name = context.lab.roster.name(first.author)
        log.warning("%s signed two contents for version %s: this life of it is quarantined", name, first.version)
        await context.keep(context.ledger.equivocated, first, second)
        await context.keep(context.ledger.keep_notice, prove(first, second).raw, "own")  # and so the others hear of it

    async def _hand_over(self, effect: effects.HandOver) -> None:
        await self._kept()  # so that a second Ctrl-C, of which people read below, loses nothing
        version, seconds = effect.announcement.version.counter, self.context.machine.policy.hand_over
        how_long = f"at most {seconds:g} s; a second Ctrl-C ends it at once"
        self.context.notes["stopping"] = f"waiting until another lab holds version {version}, {how_long}"
        log.info(self.context.notes["stopping"])

    async def _kept(self) -> None:
        if self._keeping is None:
            self._keeping = self.spawn(self._keep())
        await self._keeping

    async def _keep(self) -> None:
        self.context.halt.set()
        if not self.context.halted:
            await self.context.in_worker(keep_checkpoint, self.context, False)

    async def _leave(self, effect: effects.Leave) -> None:
        if effect.reason == "stopped":
            await self._kept()
        if effect.alone:
            version = self.context.machine.counter
            log.info("no lab that stays is known to hold version %d: it will be told at the next start", version)
        if not self.left.done():
            self.left.set_result(effect.reason)
