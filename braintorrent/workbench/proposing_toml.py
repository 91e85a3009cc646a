"""federation.toml and peer.toml as text for people: every value with a comment that says why."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import tomli_w

from braintorrent.workbench.proposing_choices import Choice

FEDERATION = """\
# Agreed by all labs, copied unchanged to each. Two labs that differ in any value here name the key to each other, and
# do not merge. Proposed by `braintorrent new` from one lab's data: look it through before you send it to the others.
"""
PEER = """\
# This machine's own; nothing here needs to agree with anyone.
"""


def federation_text(choices: Sequence[Choice]) -> str:
    """federation.toml. Choices under one dotted prefix become one table, in the order of their first key."""
    tables: dict[str, list[Choice]] = {}
    for choice in choices:
        tables.setdefault(choice.key.rpartition(".")[0], []).append(choice)
    return FEDERATION + "\n".join(_table(name, rows) for name, rows in tables.items())


def peer_text(name: str, data: Path, listen: str, *, rest: dict[str, Any] | None = None) -> str:
    """peer.toml. rest: tables that follow, such as timing and stop."""
    rows = [
        Choice("name", name, "shown to people in the other labs"),
        Choice("data", str(data), "never leaves this machine"),
        Choice("listen", listen, _listening(listen)),
    ]
    tables = "".join(f"\n{tomli_w.dumps({key: value})}" for key, value in (rest or {}).items())
    peers = "" if rest else '# peers = ["192.0.2.12:47100"]  # addresses of labs that are not on this network segment\n'
    return PEER + _table("", rows) + peers + tables


def literal(value: Any) -> str:
    """A TOML value in one line."""
    if isinstance(value, list):
        return f"[{', '.join(map(literal, value))}]"
    if isinstance(value, dict):
        return f"{{{', '.join(f'{key} = {literal(item)}' for key, item in value.items())}}}"
    return tomli_w.dumps({"x": value}).removeprefix("x = ").rstrip("\n")


def _listening(address: str) -> str:
    if address.startswith(("127.", "localhost", "[::1]")):
        return "this machine only; port 0 takes a free one"
    return "the one port to open in the firewall, for the other labs' addresses"


def _table(name: str, rows: Sequence[Choice]) -> str:
    head = f"[{name}]\n" if name else ""
    return head + "".join(f"# {row.why}\n{row.key.rpartition('.')[2]} = {literal(row.value)}\n" for row in rows)
