"""A lab that is stopped: it serves until another holds its newest version, says so, and waits for nobody in vain."""

import asyncio
import logging
import threading

from braintorrent.node import dispatch
from braintorrent.node.status import status
from braintorrent.protocol.steps import Step


def seen(node, other):
    return next(peer for peer in status(node)["peers"] if peer["id"] == other.lab.me)


async def test_a_lab_that_is_stopped_serves_until_another_holds_its_newest_version(folders, run, until, caplog):
    caplog.set_level(logging.INFO, "braintorrent.node")
    task = {"size": 500_000, "seconds": 0.5}  # 2 MB, which take two seconds
    one, two = await run(*folders("lab-a", "lab-b", task=task, serve_mib_per_second=1.0))
    await until(lambda: seen(two, one)["held"] and seen(two, one)["held"] != status(one)["version"])
    one.stop()
    await until(lambda: "stopping" in status(one)["notes"])
    waiting = f"waiting until another lab holds version {status(one)['versions']}, at most 60 s"
    assert status(one)["notes"]["stopping"].startswith(waiting)
    assert waiting in caplog.text
    assert seen(two, one)["held"] != status(one)["version"]
    assert await asyncio.wait_for(one.finished(), 20) == "stopped"
    assert seen(two, one)["held"] == status(one)["version"]


async def test_the_last_two_that_are_stopped_together_wait_for_nobody(folders, run, until):
    nodes = await run(*folders("lab-a", "lab-b"))
    await until(lambda: all(status(node)["merges"] for node in nodes))
    for node in nodes:
        node.stop()
    assert await asyncio.wait_for(asyncio.gather(*(node.finished() for node in nodes)), 3) == ["stopped", "stopped"]


async def test_nobody_waits_for_a_lab_that_is_not_there_any_more(folders, run, until, caplog):
    caplog.set_level(logging.INFO, "braintorrent.node")
    one, two = await run(*folders("lab-a", "lab-b", task={"seconds": 1.0}))
    await until(lambda: status(one)["merges"] and status(two)["merges"])
    await two.close()  # without a farewell
    version = status(one)["versions"]
    await until(lambda: status(one)["versions"] > version)
    one.stop()
    assert await asyncio.wait_for(one.finished(), 3) == "stopped"
    assert f"no lab that stays is known to hold version {status(one)['versions']}" in caplog.text


async def test_what_was_trained_outlives_a_stop_during_its_evaluation_and_a_full_disk(folders, run, until):
    (one,) = await run(*folders("lab-a", timing={"alone_after": 0.0}))
    evaluate, begun, may = one.lab.learner.evaluate, threading.Event(), threading.Event()

    def slowly():
        begun.set()
        may.wait(20)
        return evaluate()

    one.lab.learner.evaluate = slowly
    one.context.blobs.limit_bytes = 1000  # no room in the store; there is for a checkpoint
    await asyncio.to_thread(begun.wait, 20)
    one.stop()
    may.set()
    assert await asyncio.wait_for(one.finished(), 10) == "stopped"
    assert one.lab.state.checkpoint.exists()


async def test_who_waits_for_another_lab_keeps_a_checkpoint_meanwhile_and_goes_no_sooner(
    folders, run, until, monkeypatch
):
    keep, begun, kept, may = dispatch.keep_checkpoint, [], [], threading.Event()

    def slowly(context, inside):
        begun.append(context.machine.step)
        may.wait(20)
        keep(context, inside)
        kept.append(context.lab.state.checkpoint.exists())

    monkeypatch.setattr(dispatch, "keep_checkpoint", slowly)
    pauses = {"ask_every": 0.1, "alone_after": 3.0, "cadence": "poisson", "interval": 0.5}
    task = {"size": 125_000}  # half a MB, which takes half a second
    one, two = await run(*folders("lab-a", "lab-b", task=task, serve_mib_per_second=1.0, timing=pauses))

    def stopped():
        if status(one)["step"] == "ready" and seen(two, one)["held"] not in (None, status(one)["version"]):
            one.stop()
        return begun

    await until(stopped)
    finished = asyncio.ensure_future(one.finished())
    await until(lambda: status(one)["step"] == "left")
    await asyncio.sleep(0.2)
    assert (finished.done(), kept) == (False, [])
    may.set()
    assert await asyncio.wait_for(finished, 5) == "stopped"
    assert (begun, kept) == ([Step.LEAVING], [True])
