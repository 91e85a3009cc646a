"""The node: the protocol machine with real sockets, a real disk, and one timer.

`Node` opens everything in order, lets effects happen (dispatch.py), and closes in the opposite order. It
decides nothing: what to say and when is protocol/'s affair.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import secrets
from collections.abc import Coroutine
from types import TracebackType
from typing import Any

from braintorrent.errors import ConfigError
from braintorrent.network.address import own_addresses, parse_address
from braintorrent.network.client import Client
from braintorrent.network.conduct import Conduct
from braintorrent.network.dialling import Dialling
from braintorrent.network.discovery import Discovery
from braintorrent.network.server import Server
from braintorrent.network.wire import encode_hello
from braintorrent.node.asking import hello
from braintorrent.node.auditing import find_roster
from braintorrent.node.board import Board
from braintorrent.node.context import Context, log
from braintorrent.node.control import Control
from braintorrent.node.dispatch import Dispatch
from braintorrent.node.fetching import give_up
from braintorrent.node.finding import carry_over, find_static, nearby, sighted, watch_roster
from braintorrent.node.keeping import recall
from braintorrent.node.kept import own_rotations
from braintorrent.node.lab import Lab, policy
from braintorrent.node.noticing import watch_notices
from braintorrent.node.restoring import restore
from braintorrent.node.rollback import own_scores
from braintorrent.node.serving import Serving
from braintorrent.node.status import status
from braintorrent.node.traffic import Traffic
from braintorrent.protocol.machine import PeerMachine
from braintorrent.protocol.table import Table
from braintorrent.records.notice import encode_chain
from braintorrent.storage import BlobStore, Ledger

FLUSH_EVERY = 5.0  # seconds until what may be lost in a crash is durable all the same
FAREWELL = 2.0  # seconds for the last asks, which tell the others that this peer leaves


class Node:
    """One lab's running peer: `async with Node(lab) as node: reason = await node.finished()`."""

    def __init__(self, lab: Lab) -> None:
        self.lab = lab
        self._exit = contextlib.AsyncExitStack()
        self._tasks: asyncio.TaskGroup
        self._running: set[asyncio.Task[None]] = set()
        self._timer: asyncio.TimerHandle | None = None
        self._pumping = False
        self._drawn = -1  # the version whose traffic TensorBoard has
        self._opened = self._closed = False

    async def __aenter__(self) -> Node:
        try:
            await self._open()
        except BaseException:
            await self.close()
            raise
        return self

    async def _open(self) -> None:
        lab, loop = self.lab, asyncio.get_running_loop()
        self._exit.callback(lab.state.close)
        blobs = BlobStore(lab.state.blobs, int(lab.peer.disk_gib * 2**30))
        opened = blobs.with_room(lambda: Ledger(lab.state.ledger, identity=lab.identity))
        ledger = self._exit.enter_context(opened)
        find_roster(lab.state, ledger)
        restored, pending = restore(lab, ledger, blobs)
        own = await asyncio.to_thread(own_scores, lab, recall(lab, ledger, blobs, restored.newest), restored.newest)
        conduct, dialling = Conduct(), Dialling(nearby(lab))
        carry_over(lab.roster, Table(restored.entries), conduct)
        machine = PeerMachine(
            lab.me, lab.federation.id, lab.members, policy(lab.peer, lab.method), random.Random(secrets.randbits(64)),
            restored, loop.time(),
        )  # fmt: skip
        client = await self._exit.enter_async_context(
            Client(
                lab.identity, lambda peer: peer in lab.roster.ids, dialling=dialling, conduct=conduct,
                rotation=encode_chain(own_rotations(ledger, lab.me)),
            )
        )  # fmt: skip
        board = Board(lab.state.tensorboard)
        self._exit.callback(board.close)
        self.context = context = Context(
            lab, machine, blobs, ledger, client, self.pump, pending, board, conduct, part=self._part,
            pace=lambda peer, size: self.server.pace.sent(peer, size),
        )  # fmt: skip
        self._exit.callback(context.worker.shutdown)
        for digest, author in filter(lambda of: blobs.has(of[0]), ledger.authors()):
            context.authors.setdefault(digest, set()).add(author)
        if own:
            context.metrics["own"] = own
        self.serving = Serving(context)
        self._dispatch = Dispatch(context, self.serving, self._spawn)
        rate = lab.peer.serve_mib_per_second
        self.server = await self._exit.enter_async_context(Server(
            lab.identity, self.serving, lab.peer.listen, conduct=conduct, inbox=context.inbox,
            bytes_per_second=rate * 2**20 if rate is not None else None,
        ))  # fmt: skip
        self.listening = str(self.server.address)
        self.traffic = Traffic(ledger, client, self.server)
        self.serving.addresses = tuple(lab.peer.advertise) or own_addresses(self.server.address)
        self._check_hello()
        self.control = Control(lab.state, lambda: status(self))
        self._exit.push_async_callback(self.control.close)
        await self.control.start()
        self._tasks = await self._exit.enter_async_context(asyncio.TaskGroup())
        self._exit.push_async_callback(self._end_tasks)
        self._exit.push_async_callback(self.server.close)  # 503 to newcomers, then finish serving
        self._spawn(watch_roster(context))
        self._spawn(watch_notices(context))
        self._spawn(self._flush())
        self._spawn(context.keep(context.look_back))
        if lab.peer.peers:
            self._spawn(find_static(context, client, lab.peer.peers))
        if lab.peer.discovery:
            await self._discover()
        self._opened = True
        self.pump()

    def _check_hello(self) -> None:
        """What this lab will say of itself must fit the caps that others hold it to."""
        try:
            encode_hello(hello(self.context, self.serving.addresses))
        except ValueError as error:
            what = str(error).splitlines()[0]
            raise ConfigError(f"{self.lab.federation_file}: a message cannot carry it: {what}") from None

    async def _discover(self) -> None:
        context, host = self.context, parse_address(self.lab.peer.listen).host
        discovery = Discovery(
            self.lab.me, self.lab.federation.id, self.server.address.port, host,
            lambda peer, address: sighted(context, peer, address), lambda peer: peer in self.lab.roster.ids,
        )  # fmt: skip
        await self._exit.enter_async_context(discovery)
        if discovery.problem:
            context.notes["discovery"] = discovery.problem
            log.warning("mDNS: %s; static addresses still work", discovery.problem)

    # ------------------------------------------------------------- running

    def pump(self) -> None:
        """Carry out what the machine wants now, then set the timer for what it wants later."""
        if self._pumping or self._closed or not self._opened:
            return  # already inside this loop, or there is nothing to carry effects out with
        self._pumping = True
        try:
            while wants := self.context.machine.effects():
                for effect in wants:
                    self._dispatch.carry_out(effect)
        finally:
            self._pumping = False
        self._set_timer()

    def _set_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        deadline = self.context.machine.next_deadline()
        if deadline is not None and not self._closed:
            self._timer = asyncio.get_running_loop().call_at(deadline, self._tick)

    def _tick(self) -> None:
        self.context.tell(self.context.machine.tick)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = self._tasks.create_task(work)
        self._running.add(task)
        task.add_done_callback(self._running.discard)
        return task

    async def _flush(self) -> None:
        while True:
            await asyncio.sleep(FLUSH_EVERY)
            self._note_traffic()
            await self.context.keep(self.context.ledger.flush)

    def _part(self, peer: str) -> None:
        self.server.disconnect(peer)
        self._spawn(self.context.client.forget(peer))
        self._spawn(self.context.keep(give_up, self.context, peer))

    def _note_traffic(self) -> None:
        self.traffic.note()
        counter = self.context.machine.counter
        if counter != self._drawn:
            received, sent = self.traffic.total()
            self.context.board.add(counter, {"traffic/received": received, "traffic/sent": sent})
            self._drawn = counter

    def stop(self) -> None:
        """Finish the batch, wait (a minute at most) until another lab holds the newest version, say farewell, leave.

        `finished` then returns. Safe to call at any time, more than once.
        """
        self.context.tell(self.context.machine.stop)

    async def finished(self) -> str:
        """Wait until the machine leaves: "finished" (stop rule met, last merge done) or "stopped"."""
        return await asyncio.shield(self._dispatch.left)

    # ------------------------------------------------------------- closing

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Withdraw from discovery, let requests end, stop training, flush, close sockets. Idempotent."""
        if self._closed:
            return
        self._closed = True
        if self._opened:
            self.context.halt.set()
            if self._dispatch.asks:  # the farewell
                await asyncio.wait(self._dispatch.asks, timeout=FAREWELL)
            self._note_traffic()
        if self._timer is not None:
            self._timer.cancel()
        await self._exit.aclose()

    async def _end_tasks(self) -> None:
        for task in list(self._running):
            task.cancel()
