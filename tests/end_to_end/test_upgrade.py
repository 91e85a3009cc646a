"""Real processes of three releases at once: what the newest learns reaches the oldest through one that speaks both."""

from __future__ import annotations

from pathlib import Path

from braintorrent.experiments.real import run_real
from braintorrent.experiments.real_ledgers import read
from braintorrent.protocol.policy import Policy
from braintorrent.simulation.scenario import Happening, Scenario
from braintorrent.storage import StatePaths

PACE = Policy(ask_every=0.5, ask_deadline=2.0, alone_after=2.0)


def test_labs_are_upgraded_one_after_the_other_and_nobody_starts_anew(tmp_path: Path) -> None:
    scenario = Scenario(
        "upgrade", "", peers=3, seconds=20.0, policy=PACE, version_seconds=1.0, within=0.5, model_bytes=40_000,
        happenings=(
            Happening(4.0, "leave", (0,), until=5.0, protocols=(1, 2)),
            Happening(6.0, "leave", (1,), until=7.0, protocols=(2, 2)),
        ),
    )  # fmt: skip
    run = run_real(scenario, tmp_path / "labs", seed=0)
    folders = sorted((tmp_path / "labs").glob("lab-*"))
    both, new, old = map(read, folders)
    assert run.figures["versions_lost"] == 0
    assert [len(story.lives) for story in (both, new, old)] == [2, 2, 1]
    for story in (both, new):
        counters = [version.counter for version, _ in story.own]
        assert counters == list(range(1, len(counters) + 1)), "nobody counted from one again"
    newest = {author: part.version for _, merged in old.merges for author, part in merged.included.items()}
    assert newest[new.me].incarnation / 1000 >= new.lives[-1] - 1, "of its life with the new release"
    for folder, who in ((folders[2], "here"), (folders[1], "at lab-c")):
        said = (StatePaths(folder).log / "node.jsonl").read_text()
        assert f"update braintorrent {who};" in said
