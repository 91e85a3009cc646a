"""The documents are true: what they say in numbers, names and bytes is compared with the code.

`python tests/docs/test_docs.py` prints the test vectors of docs/protocol.md anew, for a change of format that is meant.
"""

from __future__ import annotations

import re
import tomllib
from dataclasses import fields, replace
from importlib import import_module
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
from blake3 import blake3
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from pydantic import BaseModel

import braintorrent
from braintorrent import plugins
from braintorrent.config import Federation, Peer, Section, StopSection, TimingSection, agreement
from braintorrent.experiments.processes import GRACE
from braintorrent.network import limits
from braintorrent.network.joining import JoinRequest, Welcome, encode_join, encode_welcome
from braintorrent.network.tls import certificate, to_der
from braintorrent.network.wire import Hello, encode_ask, encode_error, encode_hello, encode_tell
from braintorrent.node.node import FAREWELL
from braintorrent.protocol.messages import PHASES, Announcement, AskMessage, TellMessage
from braintorrent.protocol.notices import Introduction, Notices, Revocation
from braintorrent.protocol.policy import Policy
from braintorrent.protocol.steps import PHASE, Step
from braintorrent.protocol.version import Version
from braintorrent.records import (
    Artifact,
    Identity,
    Invite,
    Parent,
    Record,
    digest,
    encode_invite,
    encode_record,
    peer_id,
    sign_announcement,
)
from braintorrent.records.canonical import unpack
from braintorrent.records.notice import KINDS, prove, rotation, sign_notice
from braintorrent.simulation.scenario import Churn, Happening, Links, Scenario, What
from braintorrent.weights import Role, Schema, TensorSpec, Weights, weighted_mean

ROOT = Path(__file__).parents[2]
PACKAGE = Path(braintorrent.__file__).parent
PROTOCOL = (ROOT / "docs/protocol.md").read_text()
ARCHITECTURE = (ROOT / "docs/architecture.md").read_text()
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
SCENARIOS = sorted((ROOT / "scenarios").glob("*.py"))
PROSE = [path for path in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))) if path.is_file()]


# ------------------------------------------------------------- reading the documents


def rows(text: str, *header: str) -> list[list[str]]:
    """The body rows of every table whose header begins with these cells."""
    found, inside = [], False
    for line in text.splitlines():
        cells = [cell.strip() for cell in line.strip().strip("|").split("|")] if line.startswith("|") else []
        if cells[: len(header)] == list(header):
            inside = True
        elif not cells:
            inside = False
        elif inside and not set(line) <= set("|-: "):
            found.append(cells)
    assert found, f"no table with columns {header}"
    return found


def blocks(text: str, kind: str) -> list[str]:
    """The fenced blocks of one info string."""
    return re.findall(rf"^```{kind}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


def bare(cell: str) -> str:
    """A cell without its code quotes."""
    return cell.strip("`")


# ------------------------------------------------------------- test vectors


def vectors() -> dict[str, str]:
    """Name -> text, made by the code alone."""
    me, you = (Identity(Ed25519PrivateKey.from_private_bytes(bytes(range(n, n + 32)))) for n in (0, 32))
    schema = Schema.of([TensorSpec("w", "F32", (2,)), TensorSpec("n", "I64", (), Role.COUNTER)])
    weights = Weights(schema)
    weights.view("w")[:], weights.view("n")[...] = (1.0, -2.5), 7
    blob = b"".join(weights.parts)
    content = digest(blob)
    artifact = Artifact(kind="weights", codec="safetensors", size=len(blob), digest=content, chunks=(content,))
    parent = Parent(author=you.id, incarnation=1700000000000, counter=3, content=digest(b"parent"), weight=1.0)
    record = encode_record(Record(parents=(parent,), artifacts=(artifact,), metrics=(("dice", 0.75),)))
    announcement = sign_announcement(me, Announcement(
        "example-federation", me.id, Version(1700000000001, 1), content, 10, 12, 1.5, schema.digest,
        digest(record), len(record), False,
    ))  # fmt: skip
    agreed = agreement(
        Federation(format=1, id="example-federation", task={"kind": "standin", "rate": 0.1, "tags": ["a", "é"]}),
        {"start.weights": digest(b"start"), "task.schema": schema.digest},
    )
    hello = Hello("lab-a", "example-federation", (1, 1), ("safetensors",), agreed, 1700000000002, ("192.0.2.7:47100",))
    third = peer_id(bytes(32))
    introduction = sign_notice(me, Introduction(
        "example-federation", me.id, third, "lab-b", ("192.0.2.8:47100",), 1700000000003,
    ))  # fmt: skip
    revocation = sign_notice(me, Revocation(
        "example-federation", me.id, third, "lab-b", "left the study", 1700000000004,
    ))  # fmt: skip
    rotated = rotation(me, you, "example-federation", 1700000000005)
    proof = prove(announcement, sign_announcement(me, replace(announcement, content=digest(b"another"))))
    notices = Notices()
    for notice in (introduction, rotated):
        notices.add(notice)
    ask = AskMessage(announcement, {you.id: Version(1700000000000, 3)}, (0, 1), "working", notices.digest)
    told = (introduction, rotated)
    tell = TellMessage((announcement,), "final", True, {you.id: ("[fd00::7]:47100",)}, notices=told)
    invite = Invite(me.id, "example-federation", bytes(range(16)), 1700003600, ("192.0.2.7:47100",), "lab-c")
    join = encode_join(you, invite, "join", "lab-c", ("[fd00::7]:47100",))
    members = ((third, "lab-b", ("192.0.2.8:47100",)),)
    welcome = Welcome("lab-a", 'format = 1\nid = "example-federation"\n', digest(b"start"), members, 1700000000002)
    models = [np.array([1.0, -2.5, 0.1], "<f4"), np.array([3.0, -2.5, 0.3], "<f4"), np.array([-5.0, -2.5, 0.7], "<f4")]
    mean = np.empty_like(models[0])
    weighted_mean(models, [20 / 90, 30 / 90, 40 / 90], mean)
    return {
        "private key seed": bytes(range(32)).hex(),
        "public key": me.public_key.hex(),
        "peer id": me.id,
        "certificate": to_der(certificate(me)).hex(),
        "txt fed": blake3(b"example-federation").hexdigest()[:16],
        "blob": blob.hex(),
        "schema digest": schema.digest,
        "content digest": content,
        "record": record.hex(),
        "record digest": digest(record),
        "announcement body": unpack(announcement.raw, 1024)[2].hex(),
        "announcement": announcement.raw.hex(),
        **{f"agreement {key}": value for key, value in agreed.items()},
        "hello": encode_hello(hello).hex(),
        "ask": encode_ask(ask).hex(),
        "tell": encode_tell(tell).hex(),
        "introduction": introduction.raw.hex(),
        "revocation": revocation.raw.hex(),
        "rotation": rotated.raw.hex(),
        "proof": proof.raw.hex(),
        "invite": encode_invite(invite),
        "one-time peer id": invite.key.id,
        "join": join.hex(),
        "welcome": encode_welcome(welcome).hex(),
        "error": encode_error("roster", "not on my roster").hex(),
        "mean": mean.tobytes().hex(),
    }


def shown(made: dict[str, str]) -> str:
    """The vectors as they stand in the document: long ones go on in indented lines."""
    lines = []
    for name, value in made.items():
        pieces = [value[at : at + 116] for at in range(0, len(value), 116)]
        lines += [f"{name}:"] + [f"    {piece}" for piece in pieces] if len(pieces) > 1 else [f"{name}: {value}"]
    return "\n".join(lines) + "\n"


def test_the_test_vectors_are_what_the_code_makes():
    told: dict[str, str] = {}
    for line in "".join(blocks(PROTOCOL, "vectors")).splitlines():
        if line.startswith(" "):
            told[next(reversed(told))] += line.strip()
        else:
            name, _, value = line.partition(":")
            told[name] = value.strip()
    made = vectors()
    assert told.keys() == made.keys()
    wrong = [name for name in made if told[name] != made[name]]
    assert not wrong, f"docs/protocol.md has other bytes for {wrong}"


# ------------------------------------------------------------- numbers


def constants() -> list[tuple[str, str, str]]:
    """(name, module, value) of every constant in the tables of caps."""
    return [(bare(name), bare(module), value) for name, module, value, *_ in rows(PROTOCOL, "constant", "module")]


@pytest.mark.parametrize(("name", "module", "value"), constants())
def test_a_constant_has_the_value_in_the_code(name, module, value):
    assert getattr(import_module(f"braintorrent.{module}"), name) == float(value.split()[0])


def test_every_constant_named_is_in_a_table_and_every_cap_of_the_network_is_told():
    tabled = {name for name, _, _ in constants()}
    named = set(re.findall(r"`([A-Z]+_[A-Z_]+)`", PROTOCOL))
    assert named <= tabled, f"named without a value: {sorted(named - tabled)}"
    caps = {name for name in vars(limits) if name.isupper()} - {"KIB", "MIB"}
    assert caps <= tabled, f"not in docs/protocol.md: {sorted(caps - tabled)}"


def test_a_knob_has_the_default_in_the_code():
    told = {bare(name): bare(default) for name, default, *_ in rows(PROTOCOL, "knob", "default")}
    true = {
        **{f"timing.{name}": info.default for name, info in TimingSection.model_fields.items()},
        **{f"stop.{name}": info.default for name, info in StopSection.model_fields.items()},
        **{name: getattr(Policy(), name) for name in ("max_fetches", "hand_over", "storage_retry", "max_backoff")},
    }
    del true["timing.checkpoint_every"]  # of no concern to other peers
    assert told == {name: "none" if value is None else f"{value}" for name, value in true.items()}


def test_whoever_ends_processes_by_force_waits_longer_than_a_stop_takes():
    told = re.search(r"`hand_over` \+ `FAREWELL` .*?\+ `CLOSE_SECONDS` = (\d+) s", PROTOCOL, re.S)
    assert told
    takes = Policy().hand_over + FAREWELL + limits.CLOSE_SECONDS
    unit = (ROOT / "peers/lab-lan/braintorrent.service").read_text()
    grace = re.search(r"^TimeoutStopSec=(\d+)$", unit, re.M)
    assert grace
    assert float(told[1]) == takes < min(GRACE, float(grace[1]))
    assert f"{takes:g} s at most" in unit


# ------------------------------------------------------------- names


def announced() -> list[str]:
    names = [f.name for f in fields(Announcement) if f.name not in ("author", "raw")]
    at = names.index("version")
    return [*names[:at], "incarnation", "counter", *names[at + 1 :]]


@pytest.mark.parametrize(
    ("message", "names"),
    [
        ("hello", [f.name for f in fields(Hello)]), ("ask", [f.name for f in fields(AskMessage)]),
        ("tell", [f.name for f in fields(TellMessage)]), ("announcement", announced()),
        ("invite", [f.name for f in fields(Invite)]), ("welcome", [f.name for f in fields(Welcome)]),
        ("join", [f.name for f in fields(JoinRequest) if f.name not in ("joiner", "invite")]),
        *((kind, list(model.model_fields)) for kind, model in KINDS.items()),
        ("parent", list(Parent.model_fields)), ("artifact", list(Artifact.model_fields)),
    ],
)  # fmt: skip
def test_fields_stand_in_wire_order(message, names):
    assert [bare(cells[1]) for cells in rows(PROTOCOL, f"{message} item", "field")] == names


def test_steps_and_phases_are_all_there():
    told = {bare(step): bare(phase) for step, phase, *_ in rows(PROTOCOL, "step", "phase")}
    assert told == {step.name: PHASE.get(step, "working") for step in Step}
    assert set(told.values()) == set(PHASES)
    transitions = rows(PROTOCOL, "from", "when")
    left, reached = ({name for cells in transitions for name in re.findall("[A-Z]{4,}", cells[at])} for at in (0, 3))
    assert reached == set(told)
    assert left == reached - {"LEFT"}


def test_every_reason_that_travels_or_is_recorded_is_explained():
    told = {bare(reason) for reason, *_ in rows(PROTOCOL, "reason", "status")}
    files = ("network/*.py", "records/*.py", "node/a*ing.py", "node/inviting.py", "node/serving.py", "errors.py")
    text = "".join(path.read_text() for pattern in files for path in PACKAGE.glob(pattern))
    used = set(re.findall(r'(?:reason ?= ?|Declined\(\d+, )"([a-z-]+)"', text))
    assert told == used - {"remote"}  # the root of the tree is never raised


# ------------------------------------------------------------- rooms and knobs


def test_rooms_in_architecture_are_those_on_disk():
    told = {bare(room).rstrip("/") for room, *_ in rows(ARCHITECTURE, "room", "what it is for")}
    on_disk = {p.name for p in PACKAGE.iterdir() if (p / "__init__.py").is_file()}
    on_disk |= {p.stem for p in PACKAGE.glob("*.py") if not p.stem.startswith("__")}
    assert told == on_disk


def test_the_layers_are_those_that_the_linter_checks():
    (told,) = blocks(ARCHITECTURE, "layers")
    assert told.split("\n")[:-1] == PYPROJECT["tool"]["importlinter"]["contracts"][0]["layers"]


def test_files_named_in_the_documents_exist():
    for path in PROSE:
        for name in re.findall(r"`((?:braintorrent|tests|docs|peers|benchmarks)/[\w./-]+\.\w+)`", path.read_text()):
            assert (ROOT / name).is_file(), f"{path.name} names {name}"
    for name in re.findall(r"`((?:\w+/)+\w+\.py)`", ARCHITECTURE):
        assert (ROOT / name).is_file() or (PACKAGE / name).is_file(), f"architecture.md names {name}"


def sections(model: type[BaseModel]) -> dict[str, type[Section]]:
    return {
        name: inner
        for name, info in model.model_fields.items()
        for inner in [info.annotation, *get_args(info.annotation)]
        if isinstance(inner, type) and issubclass(inner, Section)
    }


def unknown(table: dict[str, Any], model: type[BaseModel]) -> list[str]:
    """Keys of a TOML table that the model does not have, tables of sections included."""
    inner = sections(model)
    wrong = [key for key in table if key not in model.model_fields]
    return wrong + [f"{k}.{key}" for k, v in table.items() if k in inner for key in unknown(v, inner[k])]


def test_every_knob_mentioned_exists():
    for path in PROSE:
        text = path.read_text()
        for block in blocks(text, "toml"):
            table = tomllib.loads(block)
            wrong = min((unknown(table, model) for model in (Peer, Federation)), key=len)
            assert not wrong, f"{path.name}: no such key: {wrong}"
        for section, knob in re.findall(r"`(timing|stop|gates|method|start)\.(\w+)", text):
            model = {**sections(Peer), **sections(Federation)}[section]
            assert knob in model.model_fields, f"{path.name}: no knob {section}.{knob}"


def test_every_name_in_code_quotes_that_looks_like_a_knob_is_one_or_a_field():
    options = "".join(path.read_text() for path in PACKAGE.glob("tasks/*.py"))
    known = set(re.findall(r"^    (\w+): ", options, re.MULTILINE)) | {"below_quorum", *plugins.names("methods")}
    for model in (
        Peer,
        Federation,
        *sections(Peer).values(),
        *sections(Federation).values(),
        Parent,
        Artifact,
        *KINDS.values(),
    ):
        known |= set(model.model_fields)
    messages = Hello, Invite, JoinRequest, Welcome, AskMessage, TellMessage, Announcement
    for shape in (Policy, *messages, Scenario, Happening, Churn, Links):
        known |= {f.name for f in fields(shape)}
    known |= {path.stem for path in SCENARIOS} | set(get_args(What))
    for path in PROSE:
        quoted = re.findall(r"`([a-z][a-z_]+)(?: = [^`]+)?`", path.read_text())
        wrong = {name for name in quoted if "_" in name} - known
        assert not wrong, f"{path.name}: neither a knob nor a field: {sorted(wrong)}"


def test_every_scenario_is_in_the_list_of_stories():
    stories, happenings = (
        re.findall(r"`(\w+)`", "".join(re.findall(r"^\| (`.*?) \|", text, re.MULTILINE)))
        for text in (ROOT / "docs/churn.md").read_text().split("### Your own")
    )
    assert sorted(stories) == sorted(path.stem for path in SCENARIOS)
    assert happenings == ["what", *get_args(What)]


def test_every_dependency_has_its_reason():
    text = (ROOT / "docs/dependencies.md").read_text()
    project = PYPROJECT["project"]
    wanted = [*project["dependencies"], *project["optional-dependencies"]["demo"]]
    names = {re.split(r"[^\w-]", name)[0] for name in wanted}
    missing = {name for name in names if not re.search(rf"(\| {name} \||\*\*{name}\*\*)", text)}
    assert not missing, f"docs/dependencies.md does not say why: {sorted(missing)}"


if __name__ == "__main__":
    print(shown(vectors()), end="")
