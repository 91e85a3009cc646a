"""The record of a version: what went into it and which bytes hold it. A content-addressed blob.

Its digest is in the signed announcement, so it needs no signature of its own.
"""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from braintorrent.errors import BadMessage
from braintorrent.protocol.version import MAX_FIELD
from braintorrent.records.announcement import MAX_RECORD_BYTES, Digest
from braintorrent.records.canonical import pack, unpack
from braintorrent.records.content import CHUNK_BYTES, content_digest

FORMAT = 1
MAX_BLOB_BYTES = 32 << 30  # its chunk digests fill half a record
MAX_PARENTS = 256
MAX_METRICS = 64

Name = Annotated[str, Field(min_length=1, max_length=64, pattern=r"^[A-Za-z0-9_.-]+$")]
HexDigest = Annotated[str, Digest]


class _Strict(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)


class Parent(_Strict):
    """One model of the merge this version was trained from, with its weight in that merge."""

    author: str = Field(pattern=r"^[a-z2-7]{52}$")
    incarnation: int = Field(ge=0, le=MAX_FIELD)
    counter: int = Field(ge=0, le=MAX_FIELD)
    content: str = Digest
    weight: float = Field(ge=0, le=1, allow_inf_nan=False)


class Artifact(_Strict):
    """One blob of a version. `chunks`: BLAKE3 of each CHUNK_BYTES piece, of which `digest` is made (content.py)."""

    kind: Name  # "weights" today; artifacts beside weights are reserved
    codec: Name  # "safetensors" today
    size: int = Field(ge=1, le=MAX_BLOB_BYTES)
    digest: str = Digest
    chunks: tuple[HexDigest, ...] = Field(max_length=MAX_BLOB_BYTES // CHUNK_BYTES)


class Record(_Strict):
    """Parents, artifacts, and the metrics the lab chose to share."""

    parents: tuple[Parent, ...] = Field(max_length=MAX_PARENTS)
    artifacts: tuple[Artifact, ...] = Field(min_length=1, max_length=16)
    metrics: tuple[tuple[Name, Annotated[float, Field(allow_inf_nan=False)]], ...] = Field(max_length=MAX_METRICS)

    @property
    def weights(self) -> Artifact:
        """The plain weights; BadMessage if this record has none."""
        for artifact in self.artifacts:
            if artifact.kind == "weights" and artifact.codec == "safetensors":
                return artifact
        raise BadMessage("record without plain weights", reason="record")


def _rows(items: tuple[_Strict, ...]) -> list[list[Any]]:
    return [[_plain(v) for v in item.__dict__.values()] for item in items]


def _plain(value: Any) -> Any:
    return [_plain(v) for v in value] if isinstance(value, tuple) else value


def encode_record(record: Record) -> bytes:
    """Canonical bytes of a record."""
    return pack([FORMAT, _rows(record.parents), _rows(record.artifacts), _plain(record.metrics)])


def decode_record(data: bytes) -> Record:
    """The record of canonical bytes; BadMessage if they are malformed, too large, or inconsistent."""
    value = unpack(data, MAX_RECORD_BYTES)
    match value:
        case [int(fmt), list(parents), list(artifacts), list(metrics)]:
            pass
        case _:
            raise BadMessage("not a record", reason="record")
    if type(fmt) is not int or fmt != FORMAT:
        raise BadMessage(f"record format {fmt}; this release reads {FORMAT}", reason="format")
    try:
        record = Record(
            parents=tuple(Parent(**_named(Parent, row)) for row in parents),
            artifacts=tuple(Artifact(**_named(Artifact, row)) for row in artifacts),
            metrics=tuple(tuple(m) for m in metrics),
        )
    except (ValidationError, TypeError, ValueError):
        raise BadMessage("record field out of bounds", reason="record") from None
    if encode_record(record) != data:
        raise BadMessage("record with an integer where a float is due", reason="record")
    for artifact in record.artifacts:
        if len(artifact.chunks) != -(-artifact.size // CHUNK_BYTES):
            raise BadMessage("record lists another number of chunks than its size needs", reason="record")
        if content_digest(artifact.chunks) != artifact.digest:
            raise BadMessage("record lists chunks that do not make up its digest", reason="record")
    return record


def _named(model: type[_Strict], row: list[Any]) -> dict[str, Any]:
    values = [tuple(v) if isinstance(v, list) else v for v in row]
    return dict(zip(model.model_fields, values, strict=True))
