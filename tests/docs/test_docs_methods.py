"""docs/methods.md names every method with what it needs, and every key of [gates] with its default."""

import re
from pathlib import Path

from braintorrent import plugins
from braintorrent.config import GatesSection

TEXT = (Path(__file__).parents[2] / "docs/methods.md").read_text()


def test_every_method_is_in_the_table_with_what_it_needs():
    told = re.findall(r"^\| `(\w+)` \|[^|]*\| (\d+) \| (\d+) \|", TEXT, re.MULTILINE)
    needs = {name: plugins.load("methods", name).create().needs for name in plugins.names("methods")}
    assert {name: (int(others), int(newcomer)) for name, others, newcomer in told} == {
        name: (need.candidates, need.adopting) for name, need in needs.items()
    }


def test_every_paper_named_is_the_one_in_the_file():
    for name, paper in re.findall(r"^\| `(\w+)` \|.*arXiv:(\S+?)(?::| )", TEXT, re.MULTILINE):
        assert f"arXiv:{paper}" in (plugins.load("methods", name).__doc__ or ""), name


def test_every_gate_is_told_and_shown_as_it_is_read():
    shown = re.search(r"\[gates\]\n((?:    .*\n)+)", TEXT)
    assert shown
    keys = re.findall(r"^    (\w+) = ", shown[1], re.MULTILINE)
    assert keys == list(GatesSection.model_fields)
    assert f"norm = {GatesSection().norm}" in shown[1]
    assert f"drop = {GatesSection().drop}" in shown[1]
