"""Coverage-guided fuzzing (atheris) of all that reads foreign bytes: `python tests/fuzz/fuzz.py --target=NAME ...`.

Each target takes any bytes and must come to a value or to the one error that it is allowed; what it accepts must
mean the same when written again. Further arguments are libFuzzer's: corpus folders, -runs=N, -max_total_time=N, and
-merge=1 tests/fuzz/corpus/NAME FOUND, which keeps of what was found what leads further. `--seeds` writes the honest
inputs anew.
"""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["braintorrent"]):
    from braintorrent.contracts import Candidate
    from braintorrent.errors import BadMessage, ConfigError, FormatError
    from braintorrent.learning.merging import merge
    from braintorrent.methods.braintorrent import create
    from braintorrent.network import joining, wire
    from braintorrent.node.roster import Member, Roster, encode_roster, line_of, parse_line
    from braintorrent.protocol import notices
    from braintorrent.protocol.messages import Announcement, AskMessage, TellMessage
    from braintorrent.protocol.version import Version
    from braintorrent.records import Identity, Record, announcement, decode_record, encode_record, notice, record
    from braintorrent.records.canonical import pack
    from braintorrent.records.content import chunk_digests, digest
    from braintorrent.records.envelope import sign_envelope
    from braintorrent.records.invite import Invite, decode_invite, encode_invite
    from braintorrent.storage.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
    from braintorrent.weights import Role, Schema, TensorSpec, Weights

CORPUS = Path(__file__).parent / "corpus"
SCRATCH = Path("/dev/shm") if Path("/dev/shm").is_dir() else Path(tempfile.gettempdir())


@cache
def someone(number: int) -> Identity:
    """A key that is the same in each run, so that what the fuzzer finds can be found again."""
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    return Identity(Ed25519PrivateKey.from_private_bytes(bytes([number]) * 32))


@cache
def scratch() -> Path:
    """A file of this process's own."""
    return Path(tempfile.mkstemp(prefix="braintorrent-fuzz-", dir=SCRATCH)[1])


# ------------------------------------------------------------- the wire


def _signed(fmt: int, context: bytes, body: bytes) -> bytes:
    """What a member without scruples signs: mutated bytes would never get past a signature otherwise."""
    me = someone(1)
    return pack([fmt, me.public_key, body, me.sign(context + body)])


def _ask(data: bytes) -> None:
    assert wire.encode_ask(wire.decode_ask(data, someone(1).id)) == data


def _tell(data: bytes) -> None:
    assert wire.encode_tell(wire.decode_tell(data)) == data


def _hello(data: bytes) -> None:
    assert wire.decode_hello(data).name.isprintable()


def _error(data: bytes) -> None:
    assert all(text.isprintable() for text in wire.decode_error(data))


def _announcement(body: bytes) -> None:
    raw = _signed(announcement.FORMAT, announcement.CONTEXT, body)
    found = announcement.open_announcement(raw)
    assert (found.author, found.raw) == (someone(1).id, raw)


def _notice(body: bytes) -> None:
    raw = _signed(notice.FORMAT, notice.CONTEXT, body)
    found = notice.open_notice(raw)
    assert (found.author, found.raw) == (someone(1).id, raw)


def _record(data: bytes) -> None:
    assert encode_record(decode_record(data)) == data


def _join(body: bytes) -> None:
    inner = _signed(wire.PROTOCOL, joining._JOINER, body)
    joining.decode_join(sign_envelope(someone(2), wire.PROTOCOL, joining._HOLDER, [inner]))


def _welcome(data: bytes) -> None:
    assert joining.encode_welcome(joining.decode_welcome(data)) == data


WIRE = (_ask, _tell, _hello, _error, _announcement, _notice, _record, _join, _welcome)


def wire_decoder(data: bytes) -> None:
    """The first byte says what the rest is: a message, a record, or the body of something signed."""
    with suppress(BadMessage):
        WIRE[data[0] % len(WIRE) if data else 0](data[1:])


# ------------------------------------------------------------- codes, weights, rosters


def invite_code(data: bytes) -> None:
    """A text that somebody pastes; or the content of a code whose checksum holds."""
    if data[:1] == b"\0":
        from braintorrent.records.invite import CHECKSUM_BYTES, LENGTH_BYTES, PREFIX, _base32, _checksum

        body = data[1:1500]
        payload = (LENGTH_BYTES + len(body) + CHECKSUM_BYTES).to_bytes(LENGTH_BYTES, "big") + body
        text = PREFIX + _base32(payload + _checksum(payload))
    else:
        text = data.decode(errors="replace")
    with suppress(ConfigError):
        found = decode_invite(text, now=0.0)
        assert encode_invite(found) == "".join(text.split()).lower()


SCHEMA = Schema.of(
    [TensorSpec("w", "F32", (3,)), TensorSpec("h", "F16", (2,)), TensorSpec("n", "I64", (), Role.COUNTER)]
)


@cache
def own() -> Weights:
    """This lab's model: numbers around 1."""
    weights = Weights(SCHEMA)
    for spec, view in weights:
        view[...] = 1 if spec.name == "n" else 0.5
    return weights


def safetensors_reader(data: bytes) -> None:
    """A peer's blob merged with one's own model; and, on odd bytes, a checkpoint."""
    path = scratch()
    path.write_bytes(data[1:])
    if data[:1] > b"\x7f":
        found, why = load_checkpoint(path, SCHEMA)
        assert (found is None) == bool(why)
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        out = Weights(SCHEMA)
        candidate = Candidate(someone(2).id, 10, descriptor)
        outcome = merge(create(), own(), Candidate(someone(1).id, 10, -1), [candidate], out)
    finally:
        os.close(descriptor)
    assert (candidate.author in outcome.included) != (candidate.author in outcome.skipped)
    if candidate.author in outcome.included:
        assert data[1 : 1 + len(SCHEMA.header)] == SCHEMA.header
    assert all((abs(view.astype(float)) < 1e38).all() for spec, view in out if spec.name != "n")


def roster_file(data: bytes) -> None:
    """The roster of a folder; or a line that somebody pastes."""
    if data[:1] > b"\x7f":
        with suppress(ConfigError):
            peer, member = parse_line(data[1:].decode(errors="replace"))
            assert parse_line(line_of(member.name, peer, member.addresses)) == (peer, member)
        return
    path = scratch()
    path.write_bytes(data[1:])
    with suppress(FormatError):
        found = Roster(path)
        content = encode_roster(found.members, found.revoked)
        path.write_bytes(content)
        os.utime(path, ns=(0, 0))
        again = Roster(path)
        assert (again.members, again.revoked) == (found.members, found.revoked)


TARGETS: dict[str, Callable[[bytes], None]] = {
    "wire": wire_decoder, "invite": invite_code, "safetensors": safetensors_reader, "roster": roster_file,
}  # fmt: skip


# ------------------------------------------------------------- honest inputs


def seeds() -> dict[str, list[bytes]]:
    """Of each target, one input of every kind that it must accept."""
    me, other, blob = someone(1), someone(2), b"".join(bytes(part) for part in own().parts)
    artifact = record.Artifact(
        kind="weights", codec="safetensors", size=len(blob), digest=digest(blob), chunks=tuple(chunk_digests([blob]))
    )
    parent = record.Parent(author=other.id, incarnation=1, counter=1, content=digest(b""), weight=0.5)
    recorded = encode_record(Record(parents=(parent,), artifacts=(artifact,), metrics=(("dice", 0.5),)))
    fair = announcement.sign_announcement(me, Announcement(
        "fuzzing-0001", me.id, Version(7, 1), digest(blob), 10, 3, 0.5, SCHEMA.digest, digest(recorded),
        len(recorded), False,
    ))  # fmt: skip
    said = [
        notices.Introduction("fuzzing-0001", me.id, other.id, "lab-b", ("127.0.0.1:9",), 1),
        notices.Revocation("fuzzing-0001", me.id, other.id, "lab-b", "left", 1),
    ]
    told = [notice.sign_notice(me, each) for each in said]
    ask = wire.encode_ask(AskMessage(fair, {other.id: Version(1, 1)}))
    tell = wire.encode_tell(TellMessage((fair,), addresses={other.id: ("127.0.0.1:9",)}, notices=tuple(told)))
    hello = wire.encode_hello(wire.Hello("lab-a", "fuzzing-0001", agreement={"task.kind": '"standin"'}, clock_ms=1))
    code = Invite(me.id, "fuzzing-0001", bytes(16), 10**10, ("127.0.0.1:9",), "lab-b")
    joins = ["join", "fuzzing-0001", me.id, "lab-b", ["127.0.0.1:9"]]
    welcome = joining.Welcome("lab-a", "format = 1\n", digest(b""), ((other.id, "lab-b", ()),), 1)
    wired = [
        ask, tell, hello, wire.encode_error("gone", "no such blob"), _body(fair.raw), _body(told[0].raw), recorded,
        pack(joins), joining.encode_welcome(welcome),
    ]  # fmt: skip
    members = {other.id: Member(name="lab-b", addresses=("127.0.0.1:9",))}
    save_checkpoint(scratch(), Checkpoint(Version(7, 1), own(), {}, {"inside": False, "merge": None}))
    return {
        "wire": [*(bytes([i]) + data for i, data in enumerate(wired)), b"\x05" + _body(told[1].raw)],
        "invite": [encode_invite(code).encode(), b"\0" + _content(encode_invite(code))],
        "safetensors": [b"\0" + blob, b"\x80" + scratch().read_bytes()],
        "roster": [b"\0" + encode_roster(members, {}), b"\x80" + line_of("lab-b", other.id, ["127.0.0.1:9"]).encode()],
    }


def _body(raw: bytes) -> bytes:
    from braintorrent.records.canonical import unpack

    body: bytes = unpack(raw, 1 << 20)[2]
    return body


def _content(word: str) -> bytes:
    from braintorrent.records.invite import _body as content

    return content(word)


def write_seeds() -> None:
    """The honest inputs, as files beside what the fuzzer found."""
    for target, inputs in seeds().items():
        (CORPUS / target).mkdir(parents=True, exist_ok=True)
        for number, data in enumerate(inputs):
            (CORPUS / target / f"honest-{number:02}").write_bytes(data)


def main(arguments: list[str]) -> None:
    """Fuzz one target; libFuzzer ends the process."""
    if arguments[1:] == ["--seeds"]:
        return write_seeds()
    if "torch" in sys.modules:
        raise SystemExit("the readers of foreign bytes must do without torch")
    named = next((a.removeprefix("--target=") for a in arguments if a.startswith("--target=")), "")
    if named not in TARGETS:
        raise SystemExit(f"--target= one of {', '.join(TARGETS)}")
    again = f"{sys.executable} {__file__}"  # how libFuzzer starts itself anew, to merge
    atheris.Setup([again, *arguments[1:]], TARGETS[named])  # it looks at no argument that begins with two dashes
    atheris.Fuzz()
    return None


if __name__ == "__main__":
    main(sys.argv)
