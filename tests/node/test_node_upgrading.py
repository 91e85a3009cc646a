"""Releases that speak different protocols: who understands whom, what the others are told, and how models pass."""

import tomllib

import pytest
import tomli_w

from braintorrent.errors import ConfigError
from braintorrent.node.lab import Lab
from braintorrent.node.status import status

LASTS = {"seconds": 0.4}


def speak(folder, lowest, highest):
    peer = tomllib.loads((folder / "peer.toml").read_text())
    (folder / "peer.toml").write_text(tomli_w.dumps(peer | {"protocols": [lowest, highest]}))


def seen(node, other):
    return next(peer for peer in status(node)["peers"] if peer["id"] == other.lab.me)


async def test_models_pass_between_the_oldest_and_the_newest_through_one_that_speaks_both(folders, run, until):
    made = folders("old", "both", "new", task=LASTS)
    for folder, protocols in zip(made, ((1, 1), (1, 2), (2, 2)), strict=True):
        speak(folder, *protocols)
    old, both, new = await run(*made)
    await until(lambda: all(seen(one, other)["merged"] for one, other in ((old, new), (new, old), (both, old))))
    assert [seen(both, other)["protocol"] for other in (old, new)] == [1, 2]
    assert [seen(other, both)["protocol"] for other in (old, new)] == [1, 2]
    assert [status(one)["protocols"] for one in (old, both, new)] == [[1, 1], [1, 2], [2, 2]]
    await until(lambda: seen(old, new)["problem"] and seen(new, old)["problem"])
    assert seen(old, new)["declined"]
    assert seen(old, new)["protocol"] is None
    assert "new speaks protocol 2, this lab protocol 1: update braintorrent here" in seen(old, new)["problem"]
    assert "old speaks protocol 1, this lab protocol 2: update braintorrent at old" in seen(new, old)["problem"]


@pytest.mark.parametrize(
    ("protocols", "said"),
    [
        ((2, 1), "the lowest comes first: [1, 2]"),
        ((0, 1), "greater than or equal to 1"),
        ((1, 3), "less than or equal to 2"),
    ],
)
def test_a_range_that_nobody_can_speak_is_one_line(folders, protocols, said):
    (folder,) = folders("lab-a")
    speak(folder, *protocols)
    with pytest.raises(ConfigError) as error:
        Lab.open(folder)
    assert "protocols" in str(error.value)
    assert said in str(error.value)
    assert "\n" not in str(error.value)


async def test_labs_that_come_back_with_another_release_agree_anew(folders, run, until):
    first, second = folders("lab-a", "lab-b", task=LASTS)
    speak(first, 1, 2)
    speak(second, 1, 2)
    one, two = await run(first, second)
    await until(lambda: seen(one, two)["merged"] and seen(two, one)["merged"])
    assert seen(one, two)["protocol"] == 2
    before = two.context.machine.counter
    two.stop()
    await two.finished()
    await two.close()
    speak(second, 1, 1)
    (again,) = await run(second)
    await until(lambda: seen(one, again)["protocol"] == seen(again, one)["protocol"] == 1)
    merges = one.context.merges
    await until(lambda: one.context.merges > merges + 1 and again.context.machine.counter > before)
    assert "alone" not in again.context.notes
