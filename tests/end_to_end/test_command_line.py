"""What the command line says to who types something wrong, or wants trust back. In this process: nothing runs."""

from __future__ import annotations

import fcntl
import json
import os
import socket
import sys

import pytest

from braintorrent.cli import VERBS, main
from braintorrent.cli.running import _models
from braintorrent.errors import ConfigError
from braintorrent.experiments.processes import Processes, introduce, peer_folders
from braintorrent.node.lab import Lab, ensure_identity
from braintorrent.node.roster import Roster
from braintorrent.protocol.messages import Announcement
from braintorrent.protocol.version import Version
from braintorrent.records import Identity, is_peer_id, sign_announcement
from braintorrent.storage import Ledger, StatePaths


@pytest.fixture
def typed(monkeypatch, capsys):
    """(exit code, stdout, stderr) of a command line."""

    def run(*arguments) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["braintorrent", *map(str, arguments)])
        code = 0
        try:
            main()
        except SystemExit as end:
            code = end.code
        return (code, *capsys.readouterr())

    return run


@pytest.fixture
def folder(federate):
    return federate("lab-a", acquainted=False).folders["lab-a"]


STRANGER = Identity.create().id


@pytest.mark.parametrize(
    "arguments",
    [["id"], ["run"], ["status"], ["trust", f"lab-b {STRANGER}", "-C"], ["trust", "--remove", "lab-b", "-C"]],
    ids=["id", "run", "status", "trust", "trust --remove"],
)
def test_a_misspelt_folder_is_not_made(typed, tmp_path, arguments):
    code, _, said = typed(*arguments, tmp_path / "lba-a")
    assert code == 2
    where = f"braintorrent: {tmp_path / 'lba-a'}"
    make = "make one with `braintorrent new` or `braintorrent join`, or give the folder (-C)"
    assert said == f"{where}: no such folder; {make}\n"
    assert not (tmp_path / "lba-a").exists()


def test_a_folder_without_peer_toml_gets_no_key(typed, tmp_path):
    code, _, said = typed("id", tmp_path)
    assert code == 2
    assert "no peer.toml in it" in said
    assert not any(tmp_path.iterdir())


def test_the_key_is_hidden_from_git_before_any_run(typed, folder):
    found = json.loads(typed("id", folder, "--json")[1])
    assert (folder / "state/.gitignore").read_text() == "*\n"
    assert found["line"] == typed("id", folder)[1].strip()


def test_a_name_or_id_taken_is_replaced_only_on_purpose(typed, folder):
    first, second = f"lab-b {STRANGER}", f"lab-b {Identity.create().id}"
    assert typed("trust", first, "-C", folder)[0] == 0
    assert typed("trust", f"{first} 127.0.0.1:47100", "-C", folder)[0] == 0, "new addresses are no change of trust"
    for line in (second, f"lab-c {STRANGER}"):
        code, _, said = typed("trust", line, "-C", folder)
        assert code == 2
        assert "--replace" in said
    assert Roster(StatePaths(folder).roster).ids == {STRANGER}
    assert typed("trust", second, "--replace", "-C", folder)[0] == 0
    assert Roster(StatePaths(folder).roster).ids == {second.split()[1]}
    assert typed("trust", "--remove", "lab-b", "-C", folder)[0] == 0
    assert not Roster(StatePaths(folder).roster).ids
    code, _, said = typed("trust", "--remove", "lab-b", "-C", folder)
    assert code == 2
    assert "nobody here is called lab-b" in said


def test_a_peer_id_has_one_spelling():
    other = {"a": "b", "q": "r"}[STRANGER[-1]]  # differs in bits that carry nothing
    assert is_peer_id(STRANGER)
    assert not is_peer_id(STRANGER[:-1] + other)


def test_a_quarantine_is_lifted_by_name(typed, folder):
    me, other = ensure_identity(folder), Identity.create()
    typed("trust", f"lab-b {other.id}", "-C", folder)
    assert "nobody called lab-b is in quarantine" in typed("trust", "--lift", "lab-b", "-C", folder)[2]
    two = [
        sign_announcement(other, Announcement(
            federation="testing-0001", author=other.id, version=Version(7, 1), content=digit * 64, samples=3, steps=5,
            seconds=1.0, schema="0" * 64, record="1" * 64, record_size=9, final=False,
        ))
        for digit in "ab"
    ]  # fmt: skip
    with Ledger(StatePaths(folder).ledger, identity=me) as ledger:
        ledger.equivocated(*two)
        assert ledger.entries(me.id)[other.id].quarantined == {7}
    code, said, _ = typed("trust", "--lift", "lab-b", "-C", folder)
    assert (code, said) == (0, f"{folder}: the quarantine of lab-b is lifted\n")
    with Ledger(StatePaths(folder).ledger, read_only=True) as ledger:
        assert other.id not in ledger.entries(me.id)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["lauch"], "braintorrent: no such command 'lauch'; did you mean launch?; see: "),
        (["xyz"], f"braintorrent: no such command 'xyz'; verbs: {', '.join(VERBS)}; see: "),
        (
            ["trust"],
            "braintorrent: give one of: LINE, --accept NAME, --decline NAME, --remove NAME, --lift NAME; see: ",
        ),
        (["run", "--vrebose"], "braintorrent: no such option"),
    ],
    ids=["nearly", "verb", "argument", "option"],
)
def test_wrong_words_are_one_line(typed, arguments, says):
    code, _, said = typed(*arguments)
    assert code == 2
    assert said.startswith(says)
    assert said.endswith("--help\n")
    assert said.count("\n") == 1
    assert ".;" not in said


def test_status_of_who_never_ran_and_of_who_starts(typed, folder):
    code, said, _ = typed("status", folder, "--json")
    assert (code, json.loads(said)) == (1, {"versions": 0, "metrics": {}, "running": False, "clean": None})
    ensure_identity(folder)
    with (StatePaths(folder).path / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        lock.write(str(os.getpid()))
        lock.flush()
        code, said, _ = typed("status", folder)
        assert (code, said) == (1, f"{folder}: starting (process {os.getpid()})\n")
    assert "no peer runs" in typed("status", folder)[2]
    assert typed("trust", f"lab-b {Identity.create().id}", "-C", folder)[0] == 0
    assert (StatePaths(folder).ledger).exists()
    assert "without a farewell" not in typed("status", folder)[1], "it never ran"


def test_launch_says_at_once_whose_process_failed_and_why(typed, federate):
    labs = federate("lab-a", "lab-b", stop={"versions": 1}, timing={"alone_after": 0.2, "linger": 0.2})
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        toml = labs.folders["lab-a"] / "peer.toml"
        toml.write_text(toml.read_text().replace("127.0.0.1:0", f"127.0.0.1:{port}"))
        code, said, words = typed("launch", labs.root)
    assert code == 1
    first, rest = said.split("lab-a failed (2): braintorrent: ", 1)
    assert "done" not in first
    assert rest.startswith(f"port {port} is in use")
    assert said.count("failed (2): ") == 1
    assert "done" in next(line for line in rest.splitlines() if "│ lab-b" in line)
    assert str(port) in words


def test_launch_repeats_what_a_process_said_as_it_is(typed, federate):
    labs = federate("lab-a", "lab-b", task={"kind": "[/scans]"})
    code, said, _ = typed("launch", labs.root)
    assert code == 1
    for name in ("lab-a", "lab-b"):
        assert f"{name} failed (2): braintorrent: " in said
    assert said.count("[/scans]") >= 2


def test_launch_names_what_it_cannot_tell_apart(typed, federate):
    labs = federate("lab-a", "lab-b", acquainted=False)
    code, _, said = typed("launch", labs.folders["lab-a"])
    assert code == 2
    assert "give its parent" in said
    assert typed("launch", labs.root, "--prepare")[2].startswith("nothing to make; next: ")
    toml = labs.folders["lab-b"] / "peer.toml"
    toml.write_text(toml.read_text().replace("lab-b", "lab-a"))
    with pytest.raises(ConfigError, match="all are named lab-a"):
        Processes(peer_folders(labs.root))


def test_a_status_of_an_earlier_life_is_not_shown(federate):
    labs = federate("lab-a", timing={"alone_after": 0.0, "linger": 0.0}, stop={"versions": 1})
    labs.start()
    assert labs.process("lab-a").wait(30) == 0
    assert labs.processes.poll()["lab-a"]["versions"] == 1
    again = Processes(labs.folders.values())
    with again:
        assert again.poll() == {"lab-a": None}


def test_lineage_takes_a_version_and_says_so_to_who_gives_a_folder(typed, folder):
    code, _, said = typed("lineage", folder)
    assert (code, said) == (2, f"braintorrent: {folder} is a folder, no version: braintorrent lineage -C {folder}\n")


def test_a_lab_that_was_taken_off_a_roster_is_put_back_by_launch_with_a_word(typed, federate):
    labs, said = federate("lab-a", "lab-b"), []
    assert typed("trust", "--remove", "lab-b", "-C", labs.folders["lab-a"])[0] == 0
    introduce(labs.folders.values(), said.append)
    assert said == ["lab-a now trusts lab-b"]
    introduce(labs.folders.values(), said.append)
    assert len(said) == 1


@pytest.mark.parametrize(
    ("merged", "hint"), [(0.5, "; own does better here (--model own), merged is the one for all"), (0.9, "")]
)
def test_a_run_that_finished_says_where_its_models_are_and_which_does_better_here(folder, merged, hint):
    ensure_identity(folder)
    lab = Lab.open(folder)
    for name, said in (("latest", {}), ("own", {"score": 0.8}), ("merged", {"score": merged})):
        (lab.state.models / f"{name}.json").write_text(json.dumps({"score": said}))
    scores = f"latest, own (score 0.800), merged (score {merged:.3f})"
    assert _models(lab) == f"models:     {scores} in {lab.state.models}{hint}"
    lab.state.close()
