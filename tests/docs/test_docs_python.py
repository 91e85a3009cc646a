"""The example of docs/python.md runs, and does what the page says."""

from __future__ import annotations

import re
from pathlib import Path

from braintorrent.errors import LocalError
from braintorrent.learning.loop import VERBS
from braintorrent.node.keeping import told
from braintorrent.storage import Ledger, StatePaths

PAGE = (Path(__file__).parents[2] / "docs/python.md").read_text()


def test_the_example_runs_and_both_labs_end_with_one_model(tmp_path, monkeypatch, capsys):
    (example,) = re.findall(r"^```python\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    monkeypatch.chdir(tmp_path)
    exec(compile(example, "docs/python.md", "exec"), {"__name__": "__main__"})
    assert capsys.readouterr().out.count("r2") >= 4, "own and merged, of both"
    merged = [told(StatePaths(tmp_path / lab).models, "merged") for lab in ("lab-a", "lab-b")]
    assert merged[0]["content"] == merged[1]["content"]
    assert {parent["name"] for parent in merged[0]["parents"]} == {"lab-a", "lab-b"}
    with Ledger(StatePaths(tmp_path / "lab-a").ledger, read_only=True) as ledger:
        assert ledger.newest().version.counter == 5


def test_the_page_names_what_a_learner_has():
    told_verbs = re.findall(r"^\| `(\w+)\(", PAGE, re.MULTILINE)
    assert told_verbs[: len(VERBS)] == list(VERBS)
    assert f"`{LocalError.__module__}.{LocalError.__name__}`" in PAGE
