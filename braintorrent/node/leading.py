"""Lead and follow: one lab in the several processes that torchrun started. Without it, nothing here happens."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from braintorrent import plugins
from braintorrent.config import federation_path, load_federation, load_peer
from braintorrent.learning import open_learner
from braintorrent.learning.opening import processes
from braintorrent.node.lab import Lab
from braintorrent.storage import StatePaths


@contextmanager
def leading(lab: Lab) -> Iterator[None]:
    """Have the other processes, if any, train along with this one, and let them go at the end."""
    if processes()[1] == 1:
        yield
        return
    from braintorrent.learning.parallel import lead

    try:
        leader = lead(lab.learner, str(lab.federation_file))
    except BaseException:
        lab.state.close()
        raise
    lab.learner = leader
    try:
        yield
    finally:
        leader.end()


def follow(folder: Path) -> None:
    """What every process but the first does: open the same learner, train as told. It never looks at the network.

    It is the first that a person or torchrun stops; the others go on until they are told, so that its last batch
    is whole and its checkpoint is not missing anything.
    """
    from braintorrent.learning import parallel

    parallel.join()  # the first has then opened all this too, and found nothing wrong
    for sign in (signal.SIGINT, signal.SIGTERM):
        signal.signal(sign, signal.SIG_IGN)
    federation, peer = load_federation(federation_path(folder)), load_peer(folder)
    method = plugins.load("methods", federation.method.name).create(**federation.method.options)
    learner = open_learner(federation, peer, folder, method, StatePaths(folder).split)
    parallel.follow(learner)
