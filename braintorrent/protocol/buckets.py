"""Authors by hash, so that in a large federation one Ask speaks of a part of them, and its answer of the same part.

How many are known says into how many buckets; what is filed is what is held of whom, since only of that asks and
answers speak.
"""

from __future__ import annotations

from collections.abc import Mapping
from zlib import crc32

from braintorrent.protocol.messages import MAX_HOLDS
from braintorrent.protocol.version import Version

Bucket = tuple[int, int]  # (index, count)
FULL = MAX_HOLDS // 2  # authors per bucket on average, so that an uneven bucket still fits


def in_bucket(author: str, bucket: Bucket) -> bool:
    """Whether an author's hash falls into bucket (index, count): CRC-32 of the id modulo count."""
    index, count = bucket
    return crc32(author.encode()) % count == index


class Buckets:
    """The newest version held of each author, in the least power of two of buckets that would hold all known ones."""

    def __init__(self) -> None:
        self._split: list[dict[str, Version]] = [{}]
        self._room = FULL  # for so many known

    @property
    def count(self) -> int:
        """How many buckets there are."""
        return len(self._split)

    def know(self, authors: int) -> None:
        """So many are known. Buckets are split as they become more, and not joined again."""
        while authors > self._room:
            held = self.inside((0, 1))
            self._split, self._room = [{} for _ in range(2 * self.count)], 2 * self._room
            for author, version in held.items():
                self.add(author, version)

    def add(self, author: str, version: Version) -> None:
        """This is held of the author, and nothing newer."""
        self._split[crc32(author.encode()) % self.count][author] = version

    def remove(self, author: str) -> None:
        """Nothing of the author is held, any more or as before."""
        self._split[crc32(author.encode()) % self.count].pop(author, None)

    def inside(self, bucket: Bucket) -> Mapping[str, Version]:
        """What is held of authors in `bucket`, which may be of another peer's count; nothing if there is none such."""
        index, count = bucket
        if not 0 <= index < count:
            return {}
        if self.count == count:  # as is most common, and told without a copy
            return self._split[index]
        if self.count % count == 0:
            found: dict[str, Version] = {}
            for part in self._split[index::count]:
                found.update(part)
            return found
        near = self._split[index % self.count] if count % self.count == 0 else self.inside((0, 1))
        return {author: version for author, version in near.items() if in_bucket(author, bucket)}
