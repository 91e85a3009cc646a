"""Authors by hash, so that in a large federation one Ask speaks of a part of them, and its answer of the same part.

How many are known says into how many buckets; what is filed are those of whom something is held, since only of them
asks and answers speak.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain
from zlib import crc32

from braintorrent.protocol.messages import MAX_HOLDS

Bucket = tuple[int, int]  # (index, count)
FULL = MAX_HOLDS // 2  # authors per bucket on average, so that an uneven bucket still fits


def in_bucket(author: str, bucket: Bucket) -> bool:
    """Whether an author's hash falls into bucket (index, count): CRC-32 of the id modulo count."""
    index, count = bucket
    return crc32(author.encode()) % count == index


class Buckets:
    """Authors of whom something is held, in the least power of two of buckets that would hold all who are known."""

    def __init__(self) -> None:
        self._split: list[dict[str, None]] = [{}]  # as sets, in an order that does not hang on hashing
        self._room = FULL  # for so many known

    @property
    def count(self) -> int:
        """How many buckets there are."""
        return len(self._split)

    def know(self, authors: int) -> None:
        """So many are known. Buckets are split as they become more, and not joined again."""
        while authors > self._room:
            held = list(chain.from_iterable(self._split))
            self._split, self._room = [{} for _ in range(2 * self.count)], 2 * self._room
            for author in held:
                self.add(author)

    def add(self, author: str) -> None:
        """Something of the author is held."""
        self._split[crc32(author.encode()) % self.count][author] = None

    def remove(self, author: str) -> None:
        """Nothing of the author is held, any more or as before."""
        self._split[crc32(author.encode()) % self.count].pop(author, None)

    def inside(self, bucket: Bucket) -> Iterator[str]:
        """The authors in `bucket`, which may be of another peer's count; none if there is no such bucket."""
        index, count = bucket
        if not 0 <= index < count:
            return iter(())
        if self.count % count == 0:
            return chain.from_iterable(self._split[index::count])
        near = self._split[index % self.count] if count % self.count == 0 else chain.from_iterable(self._split)
        return (author for author in near if in_bucket(author, bucket))
