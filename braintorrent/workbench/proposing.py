"""From a folder of scans to a peer folder: federation.toml and peer.toml, each value explained.

proposing_headers.py   what a scan's header says
proposing_facts.py     facts about the data as a whole
proposing_choices.py   from facts to values, each with its reason
proposing_toml.py      the files
proposing_joining.py   whether data fits a federation that exists
"""

from __future__ import annotations

import re
import secrets
import shutil
import tomllib
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from braintorrent.config import Federation, Peer, load_federation, load_peer, validate
from braintorrent.errors import ConfigError, LocalError
from braintorrent.storage import write_atomically
from braintorrent.tasks.layouts import open_dataset
from braintorrent.workbench.proposing_choices import Choice, as_table, choose
from braintorrent.workbench.proposing_facts import Facts, Progress, facts
from braintorrent.workbench.proposing_joining import check_fit
from braintorrent.workbench.proposing_toml import federation_text, peer_text

PORT = 47100  # proposed first; a second peer on the machine takes the next


@dataclass(frozen=True, slots=True)
class Proposal:
    """What was written. choices: of federation.toml, empty where it existed; listen: of peer.toml."""

    folder: Path
    name: str
    listen: str
    facts: Facts
    choices: tuple[Choice, ...]

    @property
    def federation(self) -> Path:
        """The file to give to the other labs."""
        return self.folder / "federation.toml"

    @property
    def next_steps(self) -> list[str]:
        """What to do now, as lines for a terminal."""
        meet = (
            f"braintorrent invite NAME -C {self.folder}, for each other lab; "
            "there: braintorrent join CODE FOLDER --data DATA"
            if self.choices else
            f"braintorrent id {self.folder}, and give its line to the other labs; for each of theirs: "
            f'braintorrent trust "LINE" -C {self.folder}'
        )  # fmt: skip
        return [f"braintorrent check {self.folder}", f"braintorrent run {self.folder}", meet]

    def plain(self) -> dict[str, Any]:
        """One JSON-able object."""
        return {
            "folder": str(self.folder), "federation": str(self.federation), "name": self.name, "listen": self.listen,
            "choices": [asdict(choice) for choice in self.choices], "next": self.next_steps,
        }  # fmt: skip


def new(
    folder: Path, data: Path, name: str = "", listen: str = "", federation: Path | None = None,
    progress: Progress = lambda *_: None,
) -> Proposal:  # fmt: skip
    """Write a peer folder for `data`, for a new federation or for the one of an existing federation.toml.

    Nothing is overwritten (ConfigError). DataError: data that is unreadable or unclear, or does not fit the federation.
    """
    for file in ("peer.toml", "federation.toml"):
        if (folder / file).exists():
            raise ConfigError(f"{folder / file}: exists, and nothing is overwritten; give another folder")
    agreed = load_federation(federation) if federation else None
    found = facts(open_dataset(data), progress)
    choices: list[Choice] = []
    if federation and agreed:
        check_fit(agreed, federation, found)
        text = federation.read_text()
    else:
        choices = propose(folder.resolve().name, found)
        text = federation_text(choices)
    name, listen = name or _called(folder), listen or f"0.0.0.0:{free_port(folder)}"
    peer = peer_text(name, data.resolve(), listen)
    validate(Peer, tomllib.loads(peer), f"{folder / 'peer.toml'}")
    start = federation.parent / agreed.start.weights if federation and agreed and agreed.start.weights else None
    if start and not start.is_file():
        raise ConfigError(f"{federation}: start.weights: {start.name} is not beside it; get it from the other labs too")
    write(folder, {"federation.toml": text, "peer.toml": peer})
    if start:
        shutil.copyfile(start, folder / start.name)
    return Proposal(folder, name, listen, found, tuple(choices))


def propose(title: str, found: Facts, cases: int | None = None) -> list[Choice]:
    """All values of a new federation.toml; a random id begins with `title`. cases: as in `choose`."""
    word = re.sub(r"[^a-z0-9]+", "-", title.lower()).strip("-")[:40] or "federation"
    choices = [
        Choice("format", 1, "of this file"),
        Choice("id", f"{word}-{secrets.token_hex(6)}", "random, made once; tells federations apart"),
        *choose(found, cases),
        Choice("start.seed", 0, "all labs begin from the same weights, drawn from this seed"),
    ]
    validate(Federation, as_table(choices), "the proposed federation.toml")
    return choices


def write(folder: Path, files: dict[str, str]) -> None:
    """Text files of a new folder, name -> content."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for file, content in files.items():
            write_atomically(folder / file, content.encode(), mode=0o644)
    except OSError as error:
        raise LocalError(f"{folder}: cannot be written ({error.strerror})") from None


def _called(folder: Path) -> str:
    """The folder's name as a peer's name: two labs on one machine are told apart by it."""
    return re.sub(r"[^A-Za-z0-9_.-]", "-", folder.resolve().name).lstrip("_.-")[:63] or "lab"


def free_port(folder: Path) -> int:
    """The first port from 47100 on that no peer folder beside this one listens on."""
    taken = {_port(path.parent) for path in folder.resolve().parent.glob("*/peer.toml")}
    return next(port for port in range(PORT, 65536) if port not in taken)


def _port(folder: Path) -> int | None:
    try:
        return int(load_peer(folder).listen.rpartition(":")[2])
    except (ConfigError, ValueError):
        return None  # somebody else's folder; its own check will say what is wrong
