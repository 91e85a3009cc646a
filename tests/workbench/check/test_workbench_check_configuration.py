"""Wrong keys, all of them; key, roster, start weights."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest

from braintorrent.errors import ConfigError
from braintorrent.storage import StatePaths

BROKEN: dict[str, tuple[Callable[[Any], Any], str, str, str]] = {
    "key of the peer": (
        lambda lab: lab.peer(rollbak=True),
        "error", "key", r"peer.toml: rollbak: unknown key; allowed: name, data, .*",
    ),
    "address": (
        lambda lab: lab.peer(peers=["192.0.2.7:0"]),
        "error", "address", r"peer.toml: peers: 192.0.2.7:0: port 0 cannot be dialled",
    ),
    "key of the federation": (
        lambda lab: lab.federation(start={"sede": 3}),
        "error", "key", r"federation.toml: start.sede: unknown key; allowed: .*, weights; did you mean seed\?",
    ),
    "key of the task": (
        lambda lab: lab.federation(task={"batchsize": 3}),
        "error", "key", r"federation.toml: task: batchsize: unknown key; allowed: kind, .*",
    ),
    "network": (
        lambda lab: lab.federation(task={"network": "UNett"}),
        "error", "task", r"federation.toml: task: network: no class 'UNett' in monai.networks.nets; did you mean .*",
    ),
    "task": (
        lambda lab: lab.federation(task={"kind": "sketching"}),
        "error", "task", r"federation.toml: task.kind: no plug-in 'sketching' in tasks; there are: .*",
    ),
    "method": (
        lambda lab: lab.federation(method={"name": "fedmagic"}),
        "error", "method", r"federation.toml: method.name: no plug-in 'fedmagic' in methods; there are: .*",
    ),
    "start weights": (
        lambda lab: lab.federation(start={"weights": "start.safetensors"}),
        "error", "start weights", "start.weights: no such file",
    ),
    "key readable": (
        lambda lab: StatePaths(lab.folder).key.chmod(0o644),
        "error", "private key", r".*the private key can be read by others \(mode 0644\); run: chmod 600 .*",
    ),
    "no key yet": (
        lambda lab: StatePaths(lab.folder).key.unlink(),
        "note", "private key", "no key yet; it is made at the first start",
    ),
    "roster empty": (
        lambda lab: StatePaths(lab.folder).roster.unlink(),
        "warning", "roster", "nobody is trusted yet: this lab would train alone",
    ),
    "roster damaged": (
        lambda lab: StatePaths(lab.folder).roster.write_text("{"),
        "error", "roster", r".*not a roster this release reads \(ValidationError\)",
    ),
    "no TOML": (
        lambda lab: (lab.folder / "federation.toml").write_text("format ="),
        "error", "unreadable", r".*federation.toml: Invalid value .*",
    ),
}  # fmt: skip


def test_a_lab_that_trusts_nobody_is_told_how_to_meet_others(lab: Any, only: Any) -> None:
    StatePaths(lab.folder).roster.unlink()
    assert f"braintorrent invite NAME -C {lab.folder} " in only(lab.check(), "warning", "roster").do


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_configuration_is_found(lab: Any, only: Any, matches: Any, name: str) -> None:
    breaks, level, kind, what = BROKEN[name]
    breaks(lab)
    assert matches(what, only(lab.check(), level, kind).what)


def test_every_wrong_key_is_named_and_the_rest_is_still_looked_at(lab: Any) -> None:
    lab.peer(rollbak=True, threads=0)
    lab.federation(task={"batchsize": 3, "lr": -1.0}, start={"seed": -1})
    lab.image("training2").unlink()
    report = lab.check(quick=False)
    words = [f.what for f in report.findings if f.level == "error"]
    found = [re.sub(r".*(peer|federation)\.toml: ", "", what).split(": ") for what in words]
    assert [word[1] if word[0] == "task" else word[0] for word in found] == [
        "threads", "rollbak", "start.seed", "lr", "batchsize", "the image is missing",
    ]  # fmt: skip
    assert [f.what for f in report.findings if f.kind == "steps"] == [
        "no training steps were tried: the configuration comes first"
    ]


def test_start_weights_of_another_federation(lab: Any, only: Any) -> None:
    (lab.folder / "start.safetensors").write_bytes(b"other weights")
    lab.federation(start={"weights": "start.safetensors", "digest": "0" * 64})
    said = only(lab.check(), "error", "start weights").what
    assert said.startswith("start.digest: the file is ")
    assert said.endswith(", agreed are 000000000000")


def test_no_peer_folder(tmp_path: Any) -> None:
    from braintorrent.workbench.check import check

    with pytest.raises(ConfigError, match=r"no peer\.toml in it"):
        check(tmp_path)


def test_without_peer_toml_that_holds_the_rest_waits(lab: Any) -> None:
    lab.peer(name="")
    report = lab.check()
    assert [group.name for group in report.groups] == ["configuration"]
    assert not report.ready
