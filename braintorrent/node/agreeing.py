"""Agree: may two labs learn together? If not, why, in words that each of them reads from where it stands.

What another lab says of itself came through wire.py: printable ASCII, short, at most so many keys. It is shown to
people and compared; nothing else happens with it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping

from braintorrent.config import DIGESTED
from braintorrent.errors import Refused
from braintorrent.network.limits import DETAIL_CHARS
from braintorrent.network.wire import Hello, clean
from braintorrent.protocol.messages import Protocols, common

CODEC = "safetensors"  # the one encoding of weights that every peer reads
MAX_CLOCK_SKEW = 3600.0  # seconds; incarnations are read off the clock, so hours off would spoil them
SPOKEN = 3  # differences told in words; the others by key
SHOWN = 64  # characters of a list told in words
HINT = "; compare federation.toml of both labs"
NOUNS = {  # what decides whether two labs segment the same thing, the weightiest first
    "task.labels": "the list of labels", "task.channels": "the number of channels", "task.modality": "the modality",
    "task.spacing": "the voxel spacing", "task.network": "the network",
}  # fmt: skip
CONSEQUENCES = {  # what mostly differs because something else does
    "task.schema": "the networks differ in shape (the same arguments, so another release of MONAI or of the task)",
    "start.weights": "the initial weights differ (another file, or torch versions that draw other numbers)",
}

Agreement = Mapping[str, str]


def objection(mine: Hello, theirs: Hello, name: str) -> Refused | None:
    """Why the reader, who says `mine`, and lab `name` cannot learn together; None if they can.

    Swap the two, and it is what the other lab should read: one objects exactly when the other does.
    """
    if theirs.federation != mine.federation:
        return Refused(f"{name} is in {theirs.federation}, this lab in {mine.federation}", reason="federation")
    if common(mine.protocols, theirs.protocols) is None:
        return Refused(_strangers(mine.protocols, theirs.protocols, name), reason="protocol")
    if CODEC not in theirs.codecs or CODEC not in mine.codecs:
        read = ", ".join(theirs.codecs)[:100] or "nothing"
        return Refused(f"{name} reads weights as {read}; both labs must read {CODEC}", reason="protocol")
    if theirs.agreement != mine.agreement:
        return Refused(difference(mine.agreement, theirs.agreement, name), reason="agreement")
    ahead = (theirs.clock_ms - mine.clock_ms) / 1000
    if abs(ahead) > MAX_CLOCK_SKEW:
        side = "ahead of" if ahead > 0 else "behind"
        return Refused(f"the clock of {name} is {abs(ahead) / 3600:.1f} hours {side} this lab's", reason="clock")
    return None


def spoken(mine: Hello, theirs: Hello) -> int:
    """The protocol in which two that do not object to each other ask and tell."""
    found = common(mine.protocols, theirs.protocols)
    assert found is not None
    return found


def _strangers(mine: Protocols, theirs: Protocols, name: str) -> str:
    """No protocol in common: who has to do what."""
    older = "here" if mine[1] < theirs[0] else f"at {name}"
    return (
        f"{name} speaks {_range(theirs)}, this lab {_range(mine)}: update braintorrent {older}; "
        "until then models pass between the two through labs that speak both"
    )


def _range(protocols: Protocols) -> str:
    lowest, highest = protocols
    return f"protocol {lowest}" if lowest == highest else f"protocols {lowest} to {highest}"


def difference(mine: Agreement, theirs: Agreement, name: str) -> str:
    """In what two agreements differ: the weightiest three in words, the rest by key, within DETAIL_CHARS."""
    keys = {key for key in mine.keys() | theirs.keys() if mine.get(key) != theirs.get(key)}
    subjects: dict[str, str] = {}  # what a statement is about -> its first key; a list is one subject
    for key in sorted(keys, key=_weight):
        subjects.setdefault(_subject(key, mine, theirs), key)
    causes = [s for s in subjects if s not in CONSEQUENCES]
    if not causes:
        return CONSEQUENCES[next(iter(subjects))] + HINT
    said = [_said(subject, subjects[subject], mine, theirs, name) for subject in causes[:SPOKEN]]
    room = DETAIL_CHARS - len(HINT)
    while len(said) > 1 and len("; ".join(said)) > room:
        said.pop()
    rest = [s for s in subjects if s not in causes[: len(said)]]
    text = "; ".join(said) + (f"; also {', '.join(rest)}" if rest else "")
    return (text if len(text) <= room else f"{text[: room - 3]}...") + HINT


def _weight(key: str) -> tuple[int, list[tuple[int, str]]]:
    """By weight of the subject, then as people count: label 2 before label 10."""
    order = [*NOUNS, "", *CONSEQUENCES]
    ranks = (rank for rank, stem in enumerate(order) if stem and f"{key}.".startswith(f"{stem}."))
    return next(ranks, order.index("")), [(int(p), "") if _is_index(p) else (-1, p) for p in key.split(".")]


def _is_index(part: str) -> bool:
    return bool(re.fullmatch(r"[0-9]{1,4}", part))


def _subject(key: str, mine: Agreement, theirs: Agreement) -> str:
    """A list is one subject; of the labels, which it matters to name, each is one, if both sides show theirs."""
    stem, _, last = key.rpartition(".")
    if not _is_index(last) or (stem == "task.labels" and stem not in mine and stem not in theirs):
        return key
    return stem


def _said(subject: str, key: str, mine: Agreement, theirs: Agreement, name: str) -> str:
    stem, _, index = subject.rpartition(".")
    if stem == "task.labels":
        return _label(index, mine.get(subject), theirs.get(subject), name)
    here, there = _value(subject, mine), _value(subject, theirs)
    if max(len(here), len(there)) > SHOWN:  # lists: where they differ first
        subject, here, there = key, _value(key, mine), _value(key, theirs)
    if here.startswith(DIGESTED) or there.startswith(DIGESTED):
        return f"{NOUNS.get(subject, subject)} differs"
    return f"{NOUNS.get(subject, subject)} is {there} there, {here} here"


def _label(index: str, here: str | None, there: str | None, name: str) -> str:
    if there is None:
        return f"{name} has no label {index}, this lab maps it to {_read(here or '')}"
    if here is None:
        return f"{name} maps {index} to {_read(there)}, this lab has no label {index}"
    return f"{name} maps {index} to {_read(there)}, this lab to {_read(here)}"


def _value(subject: str, agreement: Agreement) -> str:
    """The agreed value of a key, or of a list that was taken apart, for people."""
    items = []
    while (item := agreement.get(f"{subject}.{len(items)}")) is not None:
        items.append(_read(item))
    whole = agreement.get(subject)
    if subject == "task.spacing" and (items or whole in (None, "null")):
        return f"{' x '.join(items)} mm" if items else "as stored"
    if items:
        return f"[{', '.join(items)}]"
    return "not set" if whole is None else _read(whole)


def _read(text: str) -> str:
    """A JSON text as people write it; one with anything odd in it stays in its quotes and escapes."""
    try:
        value = json.loads(text)
    except ValueError:
        return text
    plain = isinstance(value, str) and value.strip() == clean(value, len(value)) != ""
    return str(value) if plain else text
