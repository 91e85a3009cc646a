"""Authors by hash, so that in a large federation one Ask speaks of a part of them, and its answer of the same part."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
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
    """A set of authors, split into the least power of two of buckets that holds it. No operation looks at all."""

    def __init__(self, authors: Iterable[str] = ()) -> None:
        self._split: list[list[str]] = [[]]
        self._size = 0
        for author in authors:
            self.add(author)

    @property
    def count(self) -> int:
        """How many buckets there are."""
        return len(self._split)

    def add(self, author: str) -> None:
        """Only once for each author."""
        self._split[crc32(author.encode()) % self.count].append(author)
        self._size += 1
        if self._size > FULL * self.count:
            everyone = list(chain.from_iterable(self._split))
            self._split = [[] for _ in range(2 * self.count)]
            for other in everyone:
                self._split[crc32(other.encode()) % self.count].append(other)

    def remove(self, author: str) -> None:
        """Only an author that was added. Buckets are not joined again."""
        self._split[crc32(author.encode()) % self.count].remove(author)
        self._size -= 1

    def inside(self, bucket: Bucket) -> Iterator[str]:
        """The authors in `bucket`, which may be of another peer's count; none if there is no such bucket."""
        index, count = bucket
        if not 0 <= index < count:
            return iter(())
        if self.count % count == 0:
            return chain.from_iterable(self._split[index::count])
        near = self._split[index % self.count] if count % self.count == 0 else chain.from_iterable(self._split)
        return (author for author in near if in_bucket(author, bucket))
