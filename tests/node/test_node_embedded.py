"""A node in a program of one's own: `braintorrent.Node`, inside a loop that runs already."""

from __future__ import annotations

import asyncio
import subprocess
import sys

import numpy as np
import pytest

import braintorrent
from braintorrent.errors import ConfigError
from braintorrent.node.keeping import told
from braintorrent.records import Identity
from braintorrent.storage import Ledger, StatePaths

QUICK = {"listen": "127.0.0.1:0", "timing": {"ask_every": 0.1, "alone_after": 5.0, "linger": 5.0}}
ALONE = {"listen": "127.0.0.1:0", "timing": {"alone_after": 0.0, "linger": 0.1, "ask_every": 0.1}, "discovery": False}


class Half:
    """Knows one half of the truth; together labs know more."""

    samples, score = 4, "closeness"

    def __init__(self, optimum):
        self.w, self.optimum = np.zeros(2), np.array(optimum)

    def weights(self):
        return {"w": self.w}

    def load(self, weights):
        self.w = weights["w"]

    def train(self):
        self.w = self.w + 0.9 * (self.optimum - self.w)

    def evaluate(self):
        return {"closeness": -float(np.abs(self.w - 1.0).sum())}  # the truth is (1, 1)


async def test_two_labs_in_one_loop_merge_what_does_better_and_go_on_later(tmp_path):
    left, right = Half([2.0, 0.0]), Half([0.0, 2.0])

    async def learn(versions):
        options = {**QUICK, "rollback": True, "stop": {"versions": versions}}
        async with (
            asyncio.timeout(60),
            braintorrent.Node("halves-of-truth", left, folder=tmp_path / "l", **options) as a,
        ):
            told = {"folder": tmp_path / "r", "trust": [a.line]}
            async with braintorrent.Node("halves-of-truth", right, **told, **options) as b:
                a.trust(a.line, b.line)  # its own does no harm
                assert a.line.split()[:2] == ["l", a.id]
                assert a.line.split()[2].startswith("127.0.0.1:")
                assert await asyncio.gather(a.finished(), b.finished()) == ["finished", "finished"]
                return a.status(), b.status()

    for status in await learn(2):
        assert status["versions"] == 2
        assert status["metrics"]["merged"]["closeness"] > status["metrics"]["own"]["closeness"]
        assert "rollback" not in status["notes"]
    assert (left.w == right.w).all()
    # A cell run twice: the learners are trained already, and the labs agree all the same.
    models = StatePaths(tmp_path / "l").models
    start = (models / "start.safetensors").read_bytes()
    (models / "latest.safetensors").unlink()  # as a kill, or a full disk, may have it
    for status in await learn(3):
        assert status["versions"] == 3
        assert status["merges"] >= 1
    assert (models / "start.safetensors").read_bytes() == start
    names = {parent["name"] for parent in told(models, "merged")["parents"]}
    assert names == {"l", "r"}


async def test_stopping_ends_after_the_version_under_way(tmp_path, until):
    learner = Half([1.0, 1.0])
    async with asyncio.timeout(20), braintorrent.Node("alone-here", learner, folder=tmp_path / "lab", **ALONE) as node:
        await until(lambda: node.status()["versions"])
        node.stop()
        assert await node.finished() == "stopped"
    with Ledger(StatePaths(tmp_path / "lab").ledger, read_only=True) as ledger:
        assert ledger.newest().version.counter >= 1
    with pytest.raises(RuntimeError, match="async with"):
        node.status()


async def test_what_the_learner_raises_comes_out_as_it_is(tmp_path):
    class Broken(Half):
        def train(self):
            raise ZeroDivisionError("mine")

    with pytest.raises(ZeroDivisionError, match="mine"):
        async with (
            asyncio.timeout(20),
            braintorrent.Node("alone-here", Broken([1, 1]), folder=tmp_path, **ALONE) as node,
        ):
            await node.finished()


async def test_weights_that_change_shape_are_said_in_one_line(tmp_path):
    class Growing(Half):
        def train(self):
            self.w = np.append(self.w, 0.0)

        def evaluate(self):
            return {}

    node = braintorrent.Node("alone-here", Growing([1.0, 1.0]), folder=tmp_path, **ALONE)
    with pytest.raises(ConfigError, match=r"^Growing.weights\(\): w is F64 \[3\] now, was F64 \[2\]"):
        async with asyncio.timeout(20), node:
            await node.finished()
    async with braintorrent.Node("alone-here", Half([1.0, 1.0]), folder=tmp_path, **ALONE):
        pass  # nothing was left locked


@pytest.mark.parametrize(
    ("federation", "options", "words"),
    [
        ("short", {}, "braintorrent.Node: federation: id: "),
        ("long-enough", {"lissten": ":1"}, "braintorrent.Node: lissten: unknown key; allowed: name, data, listen"),
        ("long-enough", {"stop": {"version": 1}}, "braintorrent.Node: stop.version: unknown key; allowed: versions"),
        ("long-enough", {"trust": ["lab-b"]}, "a roster line has a name, a peer id"),
        (
            braintorrent.Federation(format=1, id="long-enough", task={"kind": "python"}, start={"digest": "0" * 64}),
            {}, "braintorrent.Node: federation: the learner's weights() are the start",
        ),
    ],
)  # fmt: skip
def test_wrong_options_are_named(tmp_path, federation, options, words):
    with pytest.raises(ConfigError) as error:
        braintorrent.Node(federation, Half([1.0, 1.0]), folder=tmp_path / "lab", **options)
    assert str(error.value).startswith(words)


async def test_an_address_that_cannot_be_is_named_when_it_starts(tmp_path):
    node = braintorrent.Node("long-enough", Half([1.0, 1.0]), folder=tmp_path / "lab", peers=["lab-b:0"])
    with pytest.raises(ConfigError, match=r"^braintorrent\.Node: peers: lab-b:0: port 0 cannot be dialled"):
        async with node:
            pass


def test_a_line_is_there_before_the_node_runs(tmp_path):
    node = braintorrent.Node("long-enough", Half([1.0, 1.0]), folder=tmp_path / "lab", listen="127.0.0.1:47100")
    assert node.line == f"lab {Identity.load(tmp_path / 'lab/state/key').id} 127.0.0.1:47100"


def test_the_package_loads_nothing_until_asked():
    code = (
        "import sys, braintorrent\n"
        "assert 'Node' in dir(braintorrent)\n"
        "print([m for m in ('torch', 'aiohttp', 'numpy', 'pydantic') if m in sys.modules])\n"
        "braintorrent.Node\n"
        "print('aiohttp' in sys.modules, 'torch' in sys.modules)"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert shown.splitlines() == ["[]", "True False"]
    with pytest.raises(AttributeError, match="no attribute 'Nodes'"):
        braintorrent.Nodes  # noqa: B018
