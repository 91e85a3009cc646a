"""A kept model that contains a lab revoked since: export refuses it, its card names everyone, the others say it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from braintorrent.cli import cli
from braintorrent.errors import ConfigError
from braintorrent.node.lab import ensure_identity
from braintorrent.node.roster import Member
from braintorrent.node.trusting import revoke, trust, untrust
from braintorrent.records import Identity
from braintorrent.storage import StatePaths
from braintorrent.workbench.exporting import export
from braintorrent.workbench.kept import find, open_folder

GONE, LEFT = Identity.create().id, Identity.create().id


@pytest.fixture(scope="module")
def folder(lab: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The trained lab's, whose merged model has a lab revoked since and one that is trusted no more."""
    root = tmp_path_factory.mktemp("revoked")
    shutil.copy(lab.folder.parent / "federation.toml", root)
    copy = root / "lab-a"
    shutil.copytree(lab.folder, copy)
    state, me = StatePaths(copy), ensure_identity(copy)
    for peer, name in ((GONE, "lab-gone"), (LEFT, "lab-left")):
        trust(state, me, peer, Member(name=name))
    revoke(state, me, "tiny-federation", "lab-gone", "withdrew its data")
    untrust(state, me, "lab-left")
    said = json.loads((state.models / "merged.json").read_text())
    said["parents"] = [
        {"name": "lab_a", "id": me.id, "version": "1000.2", "weight": 0.5},
        {"name": "", "id": GONE, "version": "7.4", "weight": 0.3},
        {"name": "", "id": LEFT, "version": "7.5", "weight": 0.2},
    ]
    (state.models / "merged.json").write_text(json.dumps(said))
    return copy


def run(*arguments: Any) -> Any:
    result = CliRunner().invoke(cli, [*map(str, arguments)], standalone_mode=False)
    assert result.exception is None, result.exception
    return result


def test_export_refuses_it_and_names_the_lab(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"merged contains lab-gone, revoked here .*; --anyway exports it"):
        export(folder, tmp_path / "bundle")
    with pytest.raises(ConfigError, match="lab-gone"):  # by its bytes, whatever it is called
        export(folder, tmp_path / "bundle", str(StatePaths(folder).models / "merged.safetensors"))
    assert not (tmp_path / "bundle").exists()
    export(folder, tmp_path / "own", "own")


def test_the_card_has_every_lab_by_name_with_its_share_and_the_mark(folder: Path, tmp_path: Path) -> None:
    bundle = tmp_path / "bundle"
    run("export", folder, "-o", bundle, "--anyway")
    card = json.loads((bundle / "docs" / "model_card.json").read_text())
    assert [(each["name"], each["influence"], each["revoked"]) for each in card["labs"]] == [
        ("lab_a", 0.5, False), ("lab-gone", 0.3, True), ("lab-left", 0.2, False),
    ]  # fmt: skip
    text = (bundle / "docs" / "README.md").read_text()
    assert f"| lab-gone | {GONE[:7]} | 1 | 30.0% | REVOKED |" in text
    assert f"| lab-left | {LEFT[:7]} | 1 | 20.0% |  |" in text
    assert f"| lab-left | {LEFT[:7]} | 7.5 | 0.200 |" in text, "by its former name among the direct ones, too"


def test_predict_and_evaluate_say_it_in_a_line(folder: Path, lab: Any, tmp_path: Path) -> None:
    found = run("predict", folder, lab.unseen, "-o", tmp_path / "seg.nii.gz")
    assert found.stderr.count("merged contains lab-gone, revoked here (braintorrent lineage merged") == 1
    assert found.stdout.splitlines()[-1] == str(tmp_path / "seg.nii.gz")
    said = run("predict", folder, lab.unseen, "-o", tmp_path / "seg.nii.gz", "--force", "--json").stdout
    assert json.loads(said)["model"]["revoked"] == ["lab-gone"]
    assert "merged contains lab-gone, revoked here" in run("evaluate", folder).stdout
    report = json.loads(run("evaluate", folder, "--json").stdout)
    assert {row["model"]: row["revoked"] for row in report["models"]} == {"own": [], "merged": ["lab-gone"]}


def test_nothing_is_said_of_a_model_without_it(lab: Any, tmp_path: Path) -> None:
    assert "revoked" not in run("predict", lab.folder, lab.unseen, "-o", tmp_path / "seg.nii.gz").output
    assert find(open_folder(lab.folder)).name == "merged"
