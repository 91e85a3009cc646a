"""What is on this peer's disk: blobs by content, the ledger, checkpoints. Synchronous and crash-safe.

folder.py      the state folder, locked: where everything lies
blobs.py       bytes by digest within a bound; incoming.py: one of them on its way in
ledger.py      versions, merges, metrics, others' standing; database.py: its SQLite file; history.py: what it tells
missed.py      which versions of others no merge took
chain.py       the ledger's signed entries; seal.py: the whole file's; proving.py: whether all is as signed
wal.py         SQLite's log beside the ledger's file: whether it is whole
checkpoint.py  training interrupted inside a version
files.py       atomic, durable writing; a full disk told as StorageFull
"""

from braintorrent.storage.blobs import BlobStore
from braintorrent.storage.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from braintorrent.storage.files import file_digest, replacing, write_atomically
from braintorrent.storage.folder import StateFolder, StatePaths
from braintorrent.storage.history import Measured, Merged, Part
from braintorrent.storage.incoming import Incoming
from braintorrent.storage.ledger import Ledger
from braintorrent.storage.missed import Gap, Taken, taken_from

__all__ = [
    "BlobStore", "Checkpoint", "Gap", "Incoming", "Ledger", "Measured", "Merged", "Part", "StateFolder", "StatePaths",
    "Taken", "file_digest", "load_checkpoint", "replacing", "save_checkpoint", "taken_from", "write_atomically",
]  # fmt: skip
