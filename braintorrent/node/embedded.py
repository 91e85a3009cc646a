"""A lab's peer inside a program of one's own, a script or a notebook, without TOML: `braintorrent.Node`."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from types import TracebackType
from typing import Any

from braintorrent.config import Federation, Peer, validate
from braintorrent.errors import ConfigError
from braintorrent.learning.loop import LoopLearner
from braintorrent.learning.opening import read_weights
from braintorrent.methods import Method
from braintorrent.node import node as running
from braintorrent.node.lab import Lab, hints, make_identity
from braintorrent.node.roster import line_of, parse_line
from braintorrent.node.status import status
from braintorrent.node.trusting import trust
from braintorrent.storage import Ledger, StatePaths

WHERE = "braintorrent.Node"


class Node:
    """One lab's peer: `async with Node(federation, learner, folder="lab-a") as node: await node.finished()`.

    federation: the id all labs agreed on (8 to 64 of a-z, 0-9 and dash), or a braintorrent.Federation.
    learner: an object with weights, load, train, evaluate and samples (learning/loop.py says what each gives).
    folder: where this lab's `state/` lies: key, roster, ledger, models. One process at a time; a second run goes on.
    trust: lines of other labs (`node.line` there); this lab's own among them does no harm.
    options: what peer.toml may hold: name (default: the folder's), listen, peers, stop={"versions": 5},
        timing={"ask_every": 1.0}, rollback=True ...

    LocalError where anything of this lab's own is wrong; what the learner raises comes out of `async with` as it is.
    """

    def __init__(
        self,
        federation: str | Federation,
        learner: Any,
        *,
        folder: str | Path,
        trust: Iterable[str] = (),
        **options: Any,
    ) -> None:
        if isinstance(federation, str):
            told = {"format": 1, "id": federation, "task": {"kind": "python"}}
            federation = validate(Federation, told, f"{WHERE}: federation")
        if federation.start.weights or federation.start.digest:
            raise ConfigError(f"{WHERE}: federation: the learner's weights() are the start; leave start.* out")
        self.federation, self.learner, self.folder = federation, learner, Path(folder)
        self.peer = validate(Peer, {"name": self.folder.resolve().name, **options}, WHERE)
        self._identity = make_identity(StatePaths(self.folder))
        self._node: running.Node | None = None
        self.trust(*trust)

    @property
    def id(self) -> str:
        """This peer's id."""
        return self._identity.id

    @property
    def line(self) -> str:
        """What other labs trust: name, id, and the addresses known, which are all once the node runs."""
        addresses = self._node.serving.addresses if self._node else hints(self.peer, WHERE)
        return line_of(self.peer.name, self.id, addresses)

    def trust(self, *lines: str) -> None:
        """Put the peers of these lines on the roster; a running node notices within two seconds."""
        for peer, member in map(parse_line, lines):
            if peer != self.id:
                trust(StatePaths(self.folder), self._identity, peer, member)

    async def finished(self) -> str:
        """Wait until the stop rule is met and the last merge done ("finished"), or somebody stops it ("stopped")."""
        return await self._running.finished()

    def stop(self) -> None:
        """End after the version under way, and lose nothing; `finished` then returns.

        Before that it waits, a minute at most, until another lab holds the newest version.
        """
        self._running.stop()

    def status(self) -> dict[str, Any]:
        """What `braintorrent status --json` shows."""
        return status(self._running)

    @property
    def _running(self) -> running.Node:
        if self._node is None:
            raise RuntimeError("not running: use it inside `async with braintorrent.Node(...) as node:`")
        return self._node

    async def __aenter__(self) -> Node:
        lab = Lab.assemble(self.folder, Path(WHERE), self.federation, self.peer, self._bring, WHERE)
        node = running.Node(lab)
        await node.__aenter__()
        self._node = node
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        node, self._node = self._running, None
        try:
            await node.close()
            return
        except BaseExceptionGroup as group:
            fault = _only(group)
        raise fault

    def _began(self) -> bool:
        """Whether there is a version; `latest` may be missing, after a kill or on a full disk."""
        path = StatePaths(self.folder).ledger
        if not path.exists():
            return False
        with Ledger(path, read_only=True) as ledger:
            return ledger.newest() is not None

    def _bring(self, _federation: Federation, _peer: Peer, _folder: Path, method: Method, *_: Any) -> LoopLearner:
        if method.needs.hooks:
            raise ConfigError(f"{WHERE}: method {self.federation.method.name} needs a task of a federation.toml")
        learner, models = LoopLearner(self.learner, method.role), StatePaths(self.folder).models
        start = models / "start.safetensors"
        if not self._began():
            start.unlink(missing_ok=True)
        elif start.exists():
            learner.load(read_weights(start, learner.schema))  # a cell run twice: the network is trained already
        return learner


def _only(error: BaseException) -> BaseException:
    """What went wrong, without the groups around it where it was one thing."""
    while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    return error
