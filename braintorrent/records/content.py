"""What a blob is called: a two-level BLAKE3 tree, so that hashing each piece as it arrives is all the hashing there is.

A blob is cut into pieces of CHUNK_BYTES, the last shorter. Of one piece, the blob's digest is the piece's
BLAKE3; of more, it is BLAKE3 in key derivation mode (context TREE) over the pieces' digests in order. The
context keeps a list of digests that is itself sent as a blob from passing for the blob it lists.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from blake3 import blake3

CHUNK_BYTES = 1 << 20
TREE = "BrainTorrent 2026 digest of a blob from its pieces"


def digest(data: bytes | memoryview) -> str:
    """Digest of the blob `data`, 64 lower-case hex digits."""
    return content_digest(chunk_digests([data]))


def content_digest(chunks: Sequence[str]) -> str:
    """Digest of the blob whose pieces have these digests, all of 64 hex digits; at least one."""
    if len(chunks) == 1:
        return chunks[0]
    return blake3(bytes.fromhex("".join(chunks)), derive_key_context=TREE).hexdigest()


def chunk_digests(parts: Sequence[bytes | memoryview]) -> list[str]:
    """Digest of each piece of the concatenation of `parts`. Reads all of it, copies nothing."""
    chunks = []
    for pieces in cut(parts, CHUNK_BYTES):
        chunk = blake3()
        for piece in pieces:
            chunk.update(piece)
        chunks.append(chunk.hexdigest())
    return chunks or [blake3().hexdigest()]


def cut(parts: Sequence[bytes | memoryview], size: int) -> Iterator[list[memoryview]]:
    """The concatenation of `parts` in lengths of `size` bytes, the last one shorter; nothing is copied."""
    pieces: list[memoryview] = []
    room = size
    for part in parts:
        view = memoryview(part).cast("B")
        while view:
            piece, view = view[:room], view[room:]
            pieces.append(piece)
            room -= len(piece)
            if not room:
                yield pieces
                pieces, room = [], size
    if pieces:
        yield pieces
