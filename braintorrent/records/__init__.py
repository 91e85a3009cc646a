"""Keys, and the signed or content-addressed statements made with them."""

from braintorrent.records.announcement import open_announcement, sign_announcement
from braintorrent.records.content import digest
from braintorrent.records.entry import Entry, open_entry, sign_entry
from braintorrent.records.identity import Identity, is_peer_id, peer_id, short
from braintorrent.records.invite import Invite, decode_invite, encode_invite
from braintorrent.records.record import Artifact, Parent, Record, decode_record, encode_record

__all__ = [
    "Artifact", "Entry", "Identity", "Invite", "Parent", "Record", "decode_invite", "decode_record", "digest",
    "encode_invite", "encode_record", "is_peer_id", "open_announcement", "open_entry", "peer_id", "short",
    "sign_announcement", "sign_entry",
]  # fmt: skip
