"""Bytes of messages as the simulator counts them: those of the real encoders."""

from __future__ import annotations

import pytest

from braintorrent.network.wire import encode_ask, encode_tell
from braintorrent.protocol.messages import Announcement, AskMessage, TellMessage
from braintorrent.protocol.notices import Introduction
from braintorrent.protocol.version import Version
from braintorrent.records import Artifact, Identity, Parent, Record, encode_record, sign_announcement
from braintorrent.records.content import content_digest
from braintorrent.records.notice import sign_notice
from braintorrent.simulation import sizes

IDS = [Identity.create() for _ in range(40)]
LIFE = 1_700_000_000_000


def signed(identity: Identity) -> Announcement:
    """An announcement with values of usual length."""
    return sign_announcement(identity, Announcement(
        "f" * 26, identity.id, Version(LIFE, 7), "a" * 64, 20, 400, 123.456, "b" * 64, "c" * 64, 800, False,
    ))  # fmt: skip


ANNOUNCEMENTS = [signed(identity) for identity in IDS[:32]]
HOLDS = {identity.id: Version(LIFE, 7) for identity in IDS}
NOTICE = sign_notice(
    IDS[0], Introduction("f" * 26, IDS[0].id, IDS[1].id, "university-hospital", ("192.168.100.10:7654",), LIFE)
)
ASKS = [AskMessage(None, {}), AskMessage(ANNOUNCEMENTS[0], HOLDS), AskMessage(ANNOUNCEMENTS[0], {}, notices="0" * 64)]
TELLS = [
    TellMessage(),
    TellMessage(tuple(ANNOUNCEMENTS)),
    TellMessage(
        (),
        "working",
        False,
        {identity.id: ("192.168.100.10:7654",) for identity in IDS[:8]},
        ("d" * 64,) * 4,
        (NOTICE,),
    ),
]


EMPTY = len(encode_ask(AskMessage(None, {}))), len(encode_tell(TellMessage()))


@pytest.mark.parametrize("ask", ASKS)
def test_an_ask_has_the_bytes_that_its_encoding_has(ask: AskMessage) -> None:
    assert sizes.ask(ask) - sizes.ASK + EMPTY[0] == pytest.approx(len(encode_ask(ask)), rel=0.02, abs=10)


@pytest.mark.parametrize("tell", TELLS)
def test_an_answer_has_the_bytes_that_its_encoding_has(tell: TellMessage) -> None:
    assert sizes.tell(tell) - sizes.TELL + EMPTY[1] == pytest.approx(len(encode_tell(tell)), rel=0.02, abs=10)


def test_a_record_has_the_bytes_that_its_encoding_has() -> None:
    chunks = ("e" * 64,)
    weights = Artifact(
        kind="weights", codec="safetensors", size=1_000_000, digest=content_digest(chunks), chunks=chunks
    )
    six = tuple(Parent(author=i.id, incarnation=LIFE, counter=7, content="a" * 64, weight=1 / 6) for i in IDS[:6])
    record = encode_record(Record(parents=six, artifacts=(weights,), metrics=(("dice", 0.87),)))
    assert len(record) == pytest.approx(sizes.RECORD, rel=0.02)
