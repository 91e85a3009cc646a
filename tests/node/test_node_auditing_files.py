"""Audit of what lies beside the ledger: kept models, the shared start, and what the last start began with."""

from __future__ import annotations

import json
import shutil

import pytest
from click.testing import CliRunner

from braintorrent.cli import cli
from braintorrent.errors import ConfigError
from braintorrent.node.auditing import audit
from braintorrent.records import Identity
from braintorrent.storage import Ledger, StatePaths, file_digest


def broken(folder):
    return [f"{found.what}: {found.said}" for found in audit(folder) if not found.whole]


def said(folder):
    return {found.what: found.said for found in audit(folder)}


def spoil(file):
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)


MODELS = [
    (lambda at: (at / "latest.json").write_bytes(b"\xff{"), "models: latest.json does not say what"),
    (lambda at: (at / "latest.json").write_text("[]"), "models: latest.json does not say what"),
    (lambda at: (at / "latest.json").unlink(), "models: latest.safetensors has no latest.json"),
    (lambda at: (at / "latest.safetensors").unlink(), "models: latest.safetensors is missing"),
    (lambda at: spoil(at / "merged.safetensors"), "models: merged.safetensors is not what merged.json says"),
    (lambda at: shutil.copyfile(at / "merged.json", at / "latest.json"), "models: latest.safetensors is not what"),
    (lambda at: spoil(at / "start.safetensors"), "start: start.safetensors is not what this lab began from"),
]


@pytest.mark.parametrize(("damage", "says"), MODELS)
def test_a_kept_model_that_is_not_what_is_told_of_it_is_a_break(stopped, damage, says):
    assert broken(stopped[0]) == []
    assert said(stopped[0])["start"] == "as the ledger says"
    damage(StatePaths(stopped[0]).models)
    (found,) = broken(stopped[0])
    assert found.startswith(says)


def test_after_a_kill_a_model_and_its_json_may_be_of_two_own_versions_but_of_nothing_else(stopped):
    state = StatePaths(stopped[0])
    with Ledger(state.ledger, read_only=True) as ledger:
        older, newest = (a.content for a in ledger.own()[-2:])
    file = state.models / "latest.json"
    told = json.loads(file.read_bytes())
    assert told["content"] == newest
    file.write_text(json.dumps({**told, "content": older}))
    assert broken(stopped[0])
    state.control.write_text("{}")  # what a killed node leaves
    assert not broken(stopped[0])
    file.write_text(json.dumps({**told, "content": "0" * 64}))
    assert broken(stopped[0])


def test_a_federation_changed_since_the_last_start_is_told_and_a_split_changed_is_a_break(stopped):
    folder, state = stopped[0], StatePaths(stopped[0])
    federation = folder.parent / "federation.toml"
    assert said(folder)["files"].startswith("federation.toml as at the last start; not covered: peer.toml")
    state.split.write_text("{}")
    assert broken(folder) == ["files: split.json came after the last start"]
    files = {file.name: file_digest(file) for file in (federation, state.split)}
    with Ledger(state.ledger, identity=Identity.load(state.key)) as ledger:
        ledger.begin_incarnation(0, files={**files, "start": "0" * 64})
    assert said(folder)["files"].startswith("federation.toml and split.json as at")
    federation.write_text(federation.read_text() + "# a word more\n")
    assert said(folder)["files"].startswith("federation.toml changed since the last start; ")
    assert CliRunner().invoke(cli, ["audit", str(folder)]).exit_code == 0
    federation.unlink()
    assert said(folder)["files"].startswith("federation.toml is missing since the last start; ")
    state.split.write_text("{ }")
    assert broken(folder) == ["files: split.json changed since the last start"]


def test_a_life_of_an_older_release_told_of_no_files(folders):
    (folder,) = folders("lab-a")
    state = StatePaths(folder)
    with Ledger(state.ledger, identity=Identity.load(state.key)) as ledger:
        ledger.begin_incarnation(1)
    (state.models).mkdir()
    (state.models / "start.safetensors").write_bytes(b"weights")
    assert broken(folder) == []
    assert said(folder)["start"] == "nobody wrote down what it was"
    assert said(folder)["files"].startswith("no start told of them yet")


def test_a_file_that_is_no_ledger_is_damage_and_no_other_format(stopped):
    state = StatePaths(stopped[0])
    state.ledger.with_suffix(".seal").unlink()
    state.ledger.write_bytes(b"")
    (found,) = broken(stopped[0])
    assert found.endswith("ledger.sqlite: damaged, or no ledger")


def test_a_folder_that_never_ran_is_nothing_to_audit_unless_its_ledger_was_taken_away(stopped, tmp_path):
    fresh = tmp_path / "fresh"
    fresh.mkdir()
    (fresh / "peer.toml").write_text('name = "fresh"\n')
    with pytest.raises(ConfigError, match="nothing was ever recorded here"):
        broken(fresh)
    StatePaths(stopped[0]).ledger.unlink()
    StatePaths(stopped[0]).ledger.with_suffix(".seal").unlink()
    assert broken(stopped[0]) == ["ledger: ledger.sqlite is missing, though a node ran here"]
