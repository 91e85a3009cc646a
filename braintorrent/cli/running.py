"""`run`: one lab's peer, until its stop rule is met or a person stops it."""

from __future__ import annotations

import asyncio
import signal
from pathlib import Path
from typing import TYPE_CHECKING

import click

from braintorrent.cli._folder import folder_argument
from braintorrent.errors import DataError

if TYPE_CHECKING:
    from braintorrent.node.lab import Lab
    from braintorrent.node.node import Node


@click.command()
@folder_argument
@click.option("-v", "--verbose", is_flag=True, help="Say more, on the terminal and in state/log/.")
def run(folder: Path, verbose: bool) -> None:
    """Run the peer in FOLDER: find others, merge, train, announce.

    FOLDER holds peer.toml; federation.toml is there or in its parent. Ctrl-C (or SIGTERM) ends it cleanly
    and loses nothing: training goes on from the same batch at the next start. If nobody else holds its newest
    version yet, it serves that first, for a minute at most. A second Ctrl-C ends it at once, which costs the
    training since the last checkpoint. Exit code 2: something of this lab's own is wrong, said in one line.

    On several GPUs: torchrun --nproc-per-node 2 -m braintorrent run FOLDER (docs/gpus.md).
    """
    from braintorrent.config import federation_path
    from braintorrent.learning.opening import processes

    if processes()[0] > 0:
        from braintorrent.node.leading import follow

        return follow(folder)
    if (folder / "peer.toml").is_file():  # said before anything heavy is loaded; Lab.open says if it is not there
        click.echo(f"federation: {federation_path(folder)}\npeer:       {folder / 'peer.toml'}\nloading ...")
    from braintorrent.node.lab import Lab
    from braintorrent.node.leading import leading
    from braintorrent.node.logs import start_logging

    try:
        lab = Lab.open(folder)
    except DataError as error:  # the first that is wrong, and no file's name: patients are known by them
        raise DataError(f"{error} (all that is wrong, by file: braintorrent check {folder})") from None
    click.echo(
        f"id:         {lab.me}\ntrusts:     {lab.roster.names or f'nobody yet: braintorrent invite NAME -C {folder}'}"
    )
    if not lab.peer.stop.model_dump(exclude_none=True):
        click.echo("ends:       when stopped (Ctrl-C): peer.toml has no [stop]")
    start_logging(lab.state.log, verbose)
    from braintorrent.node.node import Node

    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
        # All is loaded. asyncio ends its tasks in good order on Ctrl-C, but only in place of Python's own handler.
        signal.signal(signal.SIGINT, signal.default_int_handler)
    with leading(lab):
        reason = asyncio.run(_run(Node(lab)))
    click.echo(f"{lab.peer.name}: {reason}")
    if reason == "finished":
        click.echo(_models(lab))


def _models(lab: Lab) -> str:
    """Where the run's models are, and how they do on this lab's own validation cases."""
    from braintorrent.node.keeping import told

    models, name = lab.state.models, lab.learner.score
    known = {model: told(models, model) for model in ("latest", "best", "own", "merged")}
    scores = {model: said.get("score", {}).get(name) for model, said in known.items() if said}
    said = [model if score is None else f"{model} ({name} {score:.3f})" for model, score in scores.items()]
    own, merged = scores.get("own"), scores.get("merged")
    worse = own is not None and merged is not None and merged < own
    hint = "; own does better here (--model own), merged is the one for all" if worse else ""
    return f"models:     {', '.join(said)} in {models}{hint}"


async def _run(opening: Node) -> str:
    async with opening as node:
        _stop_on_signals(node)
        click.echo(f"listening:  {', '.join(node.serving.addresses)}")
        return await node.finished()


def _stop_on_signals(node: Node) -> None:
    loop = asyncio.get_running_loop()

    def stop() -> None:
        for sign in (signal.SIGINT, signal.SIGTERM):
            loop.remove_signal_handler(sign)
            signal.signal(sign, signal.SIG_DFL)
        node.stop()
        click.echo("stopping at the next batch; once more to end at once", err=True)  # last: nobody may read it

    for sign in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(sign, stop)
