"""Revert: go on from an older version of this lab's own, or from the shared start, as if nothing had been merged since.

Nothing that was published is taken back: others keep what they fetched, and the ledger what was done. The old weights
become the checkpoint, with a merge of that version alone; so the next `run` trains from them before it merges, and the
version it publishes names that one as its parent. (rollback.py is another thing: a running node undoes one merge.)
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open

from braintorrent.errors import ConfigError
from braintorrent.node.going_on import words
from braintorrent.node.keeping import told as told_of
from braintorrent.node.lineage import Ancestor, Ancestry, Told
from braintorrent.node.pedigree import KEPT, announced, kept
from braintorrent.node.roster import Roster
from braintorrent.protocol.version import NOTHING, Version
from braintorrent.records import Identity, is_peer_id
from braintorrent.storage import Checkpoint, Ledger, Merged, Part, StatePaths, file_digest, save_checkpoint
from braintorrent.weights import Schema, TensorSpec, Weights, role_of_dtype

START = Ancestor("", NOTHING, "")  # the shared start, whose bytes are told by where they lie


@dataclass(frozen=True)
class Way:
    """Where to go back to.

    notes: what a person should know before, a line each; before: peer id that is avoided; drop: kept models that go.
    """

    version: Version  # NOTHING: the shared start
    file: Path
    notes: tuple[str, ...] = ()
    before: str = ""
    drop: tuple[str, ...] = ()

    @property
    def called(self) -> str:
        """In words."""
        return words(self.version)


class Reverting:
    """One lab's own versions, and whose training is in them. Its state folder is locked: no node runs."""

    def __init__(self, paths: StatePaths, identity: Identity, ledger: Ledger) -> None:
        self.paths, self.identity, self.ledger = paths, identity, ledger
        self.own = [announced(ledger, identity.id, version) for version, _ in ledger.published()]
        if not self.own:
            raise ConfigError(f"{paths.path}: no version was published here yet: there is nothing to go back from")
        self.ancestry = Ancestry(ledger, paths.blobs)

    # ------------------------------------------------------------- where to

    def to(self, text: str) -> Way:
        """The own version of that counter, or in full, or 0, the shared start. ConfigError if its weights are gone."""
        meant = [a for a in self.own if text in (str(a.version), str(a.version.counter))]
        if not meant and text != "0":
            raise ConfigError(f"{text!r} is no version of this lab; {self.here()}")
        target = meant[-1] if meant else START
        file = self._file(target)
        if file is None:
            raise ConfigError(f"the weights of {words(target.version)} are not here any more; {self.here()}")
        drop = tuple(self._outdated(target.version, frozenset()))
        return Way(target.version, file, tuple(self._dropped(drop, words(target.version))), drop=drop)

    def before(self, peers: frozenset[str], name: str) -> Way:
        """The newest own version whose lineage is known, does not contain these peers, and whose weights are here."""
        contains, unknown = self._verdicts(peers)
        notes = [self._first_with(contains, name)]
        doubtful = next((a for a in reversed(self.own) if a not in contains and self._file(a)), None)
        for ancestor in [*reversed(self.own), START]:
            if ancestor in contains or ancestor in unknown:
                continue
            file = self._file(ancestor)
            if file is None:
                notes.append(f"the weights of {words(ancestor.version)}, without {name}, are not here any more")
                continue
            if doubtful is not None and ancestor == START:
                break
            if doubtful is not None and doubtful.version > ancestor.version:
                n = doubtful.version.counter
                notes.append(f"{name} is not known to be in version {n}, but a part of it is unknown (lineage {n}); "
                             f"to take it all the same: rollback --to {n}")  # fmt: skip
            drop = tuple(self._outdated(ancestor.version, peers))
            notes += self._dropped(drop, f"{words(ancestor.version)}, or with {name}")
            return Way(ancestor.version, file, tuple(notes), min(peers), drop)
        if doubtful is not None:
            n = doubtful.version.counter
            raise ConfigError(
                f"no version of this lab is here that is known to be free of {name}: {name} is not known to be in "
                f"version {n}, but a part of it is unknown (braintorrent lineage {n}); choose: rollback --to {n}, or "
                f"rollback --to 0, the shared start"
            )
        raise ConfigError(f"no model without {name} is here any more; {self.here()}")

    def here(self) -> str:
        """What can be gone back to, in words."""
        counters = [str(a.version.counter) for a in self.own if self._file(a)]
        start = ["0, the shared start"] if self._file(START) else []
        return f"still here: {', '.join([*counters, *start]) or 'none'}"

    def _verdicts(self, peers: frozenset[str]) -> tuple[set[Ancestor], set[Ancestor]]:
        """Everything in the lineages of own versions that contains one of these peers; and what is unknown in part."""
        every = Told(tuple((ancestor, 1.0) for ancestor in reversed(self.own)))
        found = self.ancestry.trace(START, every)
        contains: set[Ancestor] = set()
        unknown = {ancestor for ancestor in self.own if ancestor not in found.told}
        for ancestor in reversed(found.order[1:]):
            told = found.told[ancestor]
            if ancestor.author in peers or any(parent in contains for parent, _ in told.parents):
                contains.add(ancestor)
            if told.hole or any(parent in unknown or parent not in found.told for parent, _ in told.parents):
                unknown.add(ancestor)
        return contains, unknown

    def _first_with(self, contains: set[Ancestor], name: str) -> str:
        tainted = [a for a in self.own if a in contains]
        if not tainted:
            return f"no version of this lab is known to contain {name}"
        since = tainted[0].version.counter
        return f"{name} is in {len(tainted)} of this lab's {len(self.own)} versions, since version {since}"

    def _outdated(self, target: Version, peers: frozenset[str]) -> Iterator[str]:
        """The kept models that are newer than the target, contain these peers, or do not say what made them."""
        for model in KEPT:
            if not (self.paths.models / f"{model}.safetensors").exists():
                continue
            try:
                root, merge = kept(self.ledger, self.paths.models, self.identity.id, model)
            except ConfigError:
                yield model
                continue
            after = root.version >= target if merge else root.version > target
            if after or self.ancestry.trace(root, merge).authors & peers:
                yield model

    def _dropped(self, models: Sequence[str], than: str) -> Iterator[str]:
        if models:
            yield f"models in {self.paths.models} that are newer than {than}, go as well: {', '.join(models)}"

    def _file(self, ancestor: Ancestor) -> Path | None:
        """Where the weights of an own version, or the shared start, lie; by name, not read."""
        if ancestor.version == NOTHING:
            start = self.paths.models / "start.safetensors"
            return start if start.exists() else None
        models = (self.paths.models / f"{name}.safetensors" for name in KEPT if self._tells(name, ancestor))
        return next((file for file in (self.paths.blobs / ancestor.content, *models) if file.exists()), None)

    def _tells(self, name: str, ancestor: Ancestor) -> bool:
        return bool(told_of(self.paths.models, name).get("content") == ancestor.content)

    # ------------------------------------------------------------- going

    def go(self, way: Way) -> None:
        """Make it so, durably. ConfigError if the weights are damaged. What was being trained is dropped."""
        newest, me = self.own[-1], self.identity.id
        of = self.ledger.announced(me, way.version if way.version != NOTHING else newest.version)
        assert of is not None  # an own version
        content = file_digest(way.file)
        if way.version != NOTHING and content != of.content:
            raise ConfigError(f"{way.file}: damaged: not the weights of {way.called} any more; {self.here()}")
        weights = _read(way.file, of.schema)
        for model in way.drop:  # first, or evaluate, predict and export would take them
            for suffix in ("json", "safetensors"):
                (self.paths.models / f"{model}.{suffix}").unlink(missing_ok=True)
        body = {"from": str(newest.version), "to": str(way.version), "content": content, "before": way.before}
        self.ledger.record("rollback", body)
        part = Part(way.version, content if way.version != NOTHING else "", of.samples, 1.0)
        pending = {"inside": True, "merge": Merged(time.time(), {me: part}).to_plain()}
        save_checkpoint(self.paths.checkpoint, Checkpoint(newest.version, weights, {}, pending))
        self.paths.method.unlink(missing_ok=True)  # it remembers merges that are no more


def peers_called(roster: Roster, text: str) -> frozenset[str]:
    """The ids of a peer that is, or was, on the roster under that name, or has that id. ConfigError for nobody."""
    revoked: Mapping[str, object] = roster.revoked
    found = roster.named(text) | {peer for peer in revoked if roster.name(peer) == text}
    if not found and not is_peer_id(text):
        names = sorted({roster.name(peer) for peer in (*roster.ids, *revoked)})
        raise ConfigError(
            f"{roster.path}: nobody is, or was, called {text} here (there are: {', '.join(names) or 'none'}); "
            "of one taken off the roster, give the peer id"
        )
    return roster.lives(found or {roster.heir(text)})


def _read(file: Path, schema: str) -> Weights:
    """Weights of this lab's own. schema: the digest they were announced under; roles make no difference to values."""
    try:
        with safe_open(file, framework="numpy") as opened:
            slices = {name: opened.get_slice(name) for name in opened.keys()}  # noqa: SIM118
            specs = [
                TensorSpec(name, one.get_dtype(), tuple(one.get_shape()), role_of_dtype(one.get_dtype()))
                for name, one in slices.items()
            ]
        layout = Schema.of(specs)
        data = np.memmap(file, np.uint8, "r")
        if data.size != layout.size or data[: len(layout.header)].tobytes() != layout.header:
            raise ValueError("not laid out as this release does it")
        weights = Weights(replace(layout, digest=schema))
        np.copyto(weights.buffer, data[len(layout.header) :])
    except (OSError, SafetensorError, ValueError) as error:
        raise ConfigError(f"{file}: not readable as a model ({type(error).__name__}: {error})") from None
    return weights
