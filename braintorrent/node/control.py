"""Control: loopback HTTP on a random port, guarded by a token in `state/control.json` (0600).

`status`, `launch` and the demo's table read it. It changes nothing; processes are ended by signals.
"""

from __future__ import annotations

import contextlib
import fcntl
import hmac
import json
import os
import secrets
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

from aiohttp import web

from braintorrent.errors import StorageFull
from braintorrent.node.going_on import current, gone_back
from braintorrent.node.lineage import Ancestry
from braintorrent.node.roster import Roster
from braintorrent.storage import Ledger, StatePaths, write_atomically


class Control:
    """The listening side, inside a node."""

    def __init__(self, paths: StatePaths, status: Callable[[], dict[str, Any]]) -> None:
        self.paths, self.status = paths, status
        self._token = secrets.token_urlsafe(32)
        self._runner: web.AppRunner | None = None

    async def start(self) -> None:
        """Listen, then write where and with what token."""
        app = web.Application()
        app.router.add_get("/status", self._status)
        self._runner = web.AppRunner(app, access_log=None)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        port = self._runner.addresses[0][1]
        content = json.dumps({"port": port, "token": self._token, "pid": os.getpid()})
        write_atomically(self.paths.control, content.encode())

    async def close(self) -> None:
        """Stop listening and leave the last status behind; idempotent."""
        if self._runner is not None:
            self.paths.control.unlink(missing_ok=True)
            with contextlib.suppress(StorageFull):
                write_atomically(self.paths.last_status, json.dumps(self.status()).encode())
            await self._runner.cleanup()
            self._runner = None

    async def _status(self, request: web.Request) -> web.Response:
        given = request.headers.get("Authorization", "")
        if not hmac.compare_digest(given.encode(), f"Bearer {self._token}".encode()):
            return web.json_response({"error": "token"}, status=401)
        return web.json_response(self.status())


def read_status(folder: Path, timeout: float = 5.0) -> dict[str, Any] | None:
    """The status of the node running in a peer folder; None if none answers."""
    try:
        where = json.loads(StatePaths(folder).control.read_text())
        request = urllib.request.Request(f"http://127.0.0.1:{where['port']}/status")
        request.add_header("Authorization", f"Bearer {where['token']}")
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # a proxy must not see the token
        with opener.open(request, timeout=timeout) as answer:
            status: dict[str, Any] = json.load(answer)
            return status
    except (OSError, ValueError, KeyError, urllib.error.URLError):
        return None


def holder(folder: Path) -> int | None:
    """The process that holds a peer folder, whether or not it answers yet or still; None if none does."""
    try:
        with (StatePaths(folder).path / "lock").open("rb") as file:
            process = int(file.read(20))
            os.kill(process, 0)  # first, since trying the lock of a folder about to be opened could get in its way
            try:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                return process
    except (OSError, ValueError):
        pass
    return None


def ended(folder: Path) -> dict[str, Any]:
    """What a folder without a running node says of the last: its last status, corrected from the ledger.

    clean: it ended on purpose, and so left its last status behind; None if none ever ran.
    """
    paths, last = StatePaths(folder), last_status(folder)
    found: dict[str, Any] = {"versions": 0, "metrics": {}, **(last or {}), "running": False, "clean": None}
    if not paths.ledger.exists():
        return found
    roster = Roster(paths.roster)
    with Ledger(paths.ledger, read_only=True) as ledger:
        if last is None and not ledger.lived():
            return found
        newest, measured, gone = ledger.newest(), ledger.metrics(), gone_back(ledger)
        inside = Ancestry(ledger, paths.blobs).authors(current(ledger)) if roster.revoked else frozenset()
    found["goes_on"] = f"the next run goes on from {gone}" if gone else None
    if gone:  # what was said of the version gone back from
        found["notes"] = {what: text for what, text in found.get("notes", {}).items() if what != "lineage"}
    found["contains_revoked"] = sorted({roster.name(peer) for peer in inside & roster.revoked.keys()})
    for m in measured:
        if m.value is not None:
            found["metrics"].setdefault(m.stage, {})[m.name] = m.value
    if newest is not None:
        found.update(version=str(newest.version), versions=newest.version.counter, final=newest.final)
    return {**found, "clean": last is not None and not paths.control.exists()}


def last_status(folder: Path) -> dict[str, Any] | None:
    """What the last node in a peer folder said as it ended cleanly; None if there is no such word."""
    try:
        status: dict[str, Any] = json.loads(StatePaths(folder).last_status.read_bytes())
        return status
    except (OSError, ValueError):
        return None
