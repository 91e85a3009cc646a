"""roster, revoke, rotate, and what trust says of names and advice. In this process: nothing runs."""

from __future__ import annotations

import io
import json
import sys

import pytest

from braintorrent.cli import main
from braintorrent.config import load_federation
from braintorrent.node.lab import ensure_identity
from braintorrent.node.roster import Roster
from braintorrent.protocol.notices import Introduction, Revocation
from braintorrent.records import Identity
from braintorrent.records.notice import rotation, sign_notice
from braintorrent.storage import Ledger, StateFolder, StatePaths

B, C = Identity.create(), Identity.create()


@pytest.fixture
def typed(monkeypatch, capsys):
    """(exit code, stdout, stderr) of a command line."""

    def run(*arguments, answer: str | None = "") -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "stdin", io.StringIO("" if answer is None else f"{answer}\n"))
        monkeypatch.setattr(sys, "argv", ["braintorrent", *map(str, arguments)])
        code = 0
        try:
            main()
        except SystemExit as end:
            code = end.code
        return (code, *capsys.readouterr())

    return run


@pytest.fixture
def folder(federate, typed):
    """A lab that trusts lab-b."""
    made = federate("lab-a", acquainted=False).folders["lab-a"]
    assert typed("trust", f"lab-b {B.id} 10.0.0.1:1", "-C", made)[0] == 0
    return made


@pytest.fixture
def advised(folder):
    """The same, and lab-b has said something."""
    federation = load_federation(folder.parent / "federation.toml").id

    def say(kind, *fields):
        notice = sign_notice(B, kind(federation, B.id, C.id, "lab-c", *fields))
        with Ledger(StatePaths(folder).ledger, identity=ensure_identity(folder)) as ledger:
            ledger.keep_notice(notice.raw, "waiting")

    return say


def shown(typed, folder):
    return json.loads(typed("roster", folder, "--json")[1])


def test_no_other_lab_is_called_like_this_one(typed, folder):
    code, _, said = typed("trust", f"lab-a {C.id}", "-C", folder)
    assert code == 2
    assert "this lab itself is called lab-a; call the other one differently: --name OTHER" in said
    assert typed("trust", f"lab-a {C.id}", "--name", "other-a", "-C", folder)[0] == 0
    assert [m["name"] for m in shown(typed, folder)["members"]] == ["lab-b", "other-a"]


def test_revoked_is_shown_with_the_reason_and_undone_only_on_purpose(typed, folder):
    code, out, _ = typed("revoke", "lab-b", "--why", "left the study", "-C", folder)
    assert code == 0
    assert out == f"{folder}: lab-b {B.id[:7]} is revoked; the others are told\n"
    found = shown(typed, folder)
    assert found["members"] == []
    (revoked,) = found["revoked"]
    assert (revoked["name"], revoked["why"], revoked["by"]) == ("lab-b", "left the study", "this lab")
    assert "left the study" in typed("roster", folder)[1]
    assert typed("trust", f"lab-b {B.id}", "-C", folder)[0] == 2
    assert typed("trust", f"lab-b {B.id}", "--replace", "-C", folder)[0] == 0
    assert shown(typed, folder)["revoked"] == []
    assert typed("audit", folder)[0] == 0


def test_a_revocation_needs_a_reason_and_somebody(typed, folder):
    assert "missing option '--why'" in typed("revoke", "lab-b", "-C", folder)[2]
    for me in ("lab-a", ensure_identity(folder).id):
        assert f"{me}: that is this lab itself" in typed("revoke", me, "--why", "x", "-C", folder)[2]
    assert "nobody here is called lab-x" in typed("revoke", "lab-x", "--why", "x", "-C", folder)[2]


@pytest.mark.parametrize("called", [None, "the-third"])
def test_an_introduction_is_accepted_by_name(typed, folder, advised, called):
    advised(Introduction, ("10.0.0.2:2",), 5)
    (waiting,) = shown(typed, folder)["waiting"]
    assert waiting["settle"] == f"to trust it: braintorrent trust --accept lab-c -C {folder}; to leave it: --decline"
    assert f"lab-b introduces lab-c {C.id[:7]}; to trust it: braintorrent trust --accept" in " ".join(
        typed("roster", folder)[1].split()
    )
    arguments = ("trust", "--accept", "lab-c", *(["--name", called] if called else []), "-C", folder)
    code, out, said = typed(*arguments, answer="n")
    assert (code, said) == (1, "braintorrent: nothing was changed\n")
    assert "Trust lab-c, introduced by lab-b? [y/N]" in out
    code, _, said = typed(*arguments, answer=None)
    assert (code, said.strip()) == (1, "braintorrent: nothing was changed; --yes asks nothing"), "nobody to answer"
    code, out, _ = typed(*arguments, "--yes")
    assert (code, out) == (0, f"{folder}: trusts {called or 'lab-c'} {C.id[:7]}\n")
    found = shown(typed, folder)
    member = next(m for m in found["members"] if m["id"] == C.id)
    assert (member["name"], member["vouched"], member["addresses"]) == (called or "lab-c", "lab-b", ["10.0.0.2:2"])
    assert found["waiting"] == []


def test_declined_advice_waits_no_more(typed, folder, advised):
    advised(Introduction, (), 5)
    assert typed("trust", "--decline", "lab-x", "-C", folder)[2].endswith("there is advice about lab-c\n")
    assert typed("trust", "--decline", "lab-c", "-C", folder)[0] == 0
    assert shown(typed, folder)["waiting"] == []
    assert Roster(StatePaths(folder).roster).ids == {B.id}
    assert typed("trust", "--accept", "lab-c", "-C", folder, "--yes")[0] == 2


def test_a_revocation_is_accepted_and_what_came_before_it_is_over(typed, folder, advised):
    assert typed("trust", f"third {C.id}", "-C", folder)[0] == 0
    advised(Introduction, (), 5)
    advised(Revocation, "spoils", 6)
    (waiting,) = shown(typed, folder)["waiting"]
    assert (waiting["kind"], waiting["name"], waiting["why"]) == ("revocation", "third", "spoils")
    assert waiting["settle"].startswith("to trust it no more: braintorrent trust --accept third -C ")
    code, out, _ = typed("trust", "--accept", "third", "-C", folder, answer="y")
    assert code == 0
    assert out.startswith("lab-b revoked third: spoils. Trust third no more? [y/N]: ")
    assert out.endswith(f"{folder}: trusts no more: third {C.id[:7]}\n")
    (revoked,) = shown(typed, folder)["revoked"]
    assert (revoked["name"], revoked["by"]) == ("third", "lab-b")
    assert typed("audit", folder)[0] == 0


def test_a_key_is_changed_while_nothing_runs(typed, folder):
    before = ensure_identity(folder).id
    with StateFolder(folder):
        code, _, said = typed("rotate", "-C", folder)
    assert code == 2
    assert "in use by process" in said
    assert typed("rotate", "-C", folder)[0] == 0
    after = ensure_identity(folder).id
    assert after != before
    assert typed("id", folder)[1].split()[1] == after
    assert typed("audit", folder)[0] == 0
    assert typed("rotate", "-C", folder / "nowhere")[0] == 2
    assert not (folder / "nowhere").exists()


def test_revoking_a_lab_names_those_on_its_word_and_takes_them_along_if_told_to(typed, folder, advised):
    advised(Introduction, (), 5)
    assert typed("trust", "--accept", "lab-c", "-C", folder, "--yes")[0] == 0
    code, out, _ = typed("revoke", "lab-b", "--why", "lies", "-C", folder)
    assert code == 0
    assert "still trusted, on the word of lab-b: lab-c; if you doubt that word: braintorrent revoke" in out
    code, out, _ = typed("revoke", B.id, "--vouched", "--why", "lies", "-C", folder)
    assert code == 0
    assert f"{folder}: lab-c {C.id[:7]} is revoked" in out
    assert Roster(StatePaths(folder).roster).ids == set()


def test_a_doubtful_new_key_is_followed_when_a_person_says_so(typed, folder):
    federation = load_federation(folder.parent / "federation.toml").id
    with Ledger(StatePaths(folder).ledger, identity=ensure_identity(folder)) as ledger:
        ledger.keep_notice(rotation(B, C, federation, 5).raw, "waiting")
    (waiting,) = shown(typed, folder)["waiting"]
    assert (waiting["kind"], waiting["name"], waiting["by"]) == ("rotation", C.id[:7], "lab-b")
    assert typed("trust", "--accept", "lab-b", "-C", folder, "--yes")[0] == 2, "that may mean anything"
    code, _, _ = typed("trust", "--accept", C.id[:7], "-C", folder, answer="y")
    assert (code, Roster(StatePaths(folder).roster).ids) == (0, {C.id})
    assert Roster(StatePaths(folder).roster).name(C.id) == "lab-b"
