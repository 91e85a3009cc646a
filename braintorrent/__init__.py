"""BrainTorrent: a peer-to-peer node for decentralised learning on medical images.

Every lab runs one peer beside its scans. There is no server and no coordinator; no scan leaves its lab.
After Roy et al., *BrainTorrent* (arXiv:1905.06731). One word for each step, the same in every room:

    discover -> ask -> fetch -> verify -> merge -> train -> publish

    errors       every error, one tree
    protocol/    what peers say, and when; pure
    records/     keys, and signed statements
    config, contracts, plugins
    weights/     tensors by role, schema, flat buffers, arithmetic by blocks
    methods/     one file = one federated method
    tasks/       one file = one kind of task
    learning/    train, merge, evaluate
    network/     discovery, TLS, server, client, wire format
    storage/     blobs, ledger, checkpoints
    node/        one file per verb
    simulation/  the same protocol in virtual time
    workbench/   one lab by itself: new, check, evaluate, predict, export
    experiments/ several processes on one host, baselines, reports, the demo
    cli/         the command line

For a program of one's own: `braintorrent.Node` and `braintorrent.Federation`, see docs/python.md.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from braintorrent.config import Federation
    from braintorrent.node.embedded import Node

__all__ = ["Federation", "Node"]

_HOMES = {"Federation": "braintorrent.config", "Node": "braintorrent.node.embedded"}


def __getattr__(name: str) -> Any:
    """Loads what is asked for, and no sooner: `braintorrent --help` needs none of it."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return [*globals(), *__all__]
