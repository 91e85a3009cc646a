"""Every cap of the network room: its reason and unit. Applied before memory or time is spent."""

from __future__ import annotations

KIB = 1 << 10
MIB = 1 << 20

# Bodies, bytes. Each fits the largest honest message with room to spare.
CERTIFICATE_BYTES = KIB  # all are 322 bytes
HELLO_BYTES = 128 * KIB  # AGREEMENT_KEYS of the longest keys and values are 99 KiB
ASK_BYTES = 32 * KIB  # 256 authors at 75 bytes, and one announcement of 1 KiB
TELL_BYTES = 128 * KIB  # 32 announcements of 1 KiB, and 64 peers with their addresses
ERROR_BYTES = 2 * KIB  # a reason and one line of detail

# Fields of messages.
NAME_CHARS = 64  # a peer's name, shown in tables
DETAIL_CHARS = 300  # one line of explanation from a remote
AGREEMENT_KEYS = 512  # dotted keys of federation.toml
AGREEMENT_KEY_CHARS = 128
AGREEMENT_VALUE_CHARS = 64  # a short value as JSON, else a digest
CODECS = 16  # encodings one peer can read
ADDRESS_CHARS = 128  # "host:port"
ADDRESSES_EACH = 8  # one peer's interfaces, IPv4 and IPv6
WANTS = 64  # digests asked of a peer that cannot be dialled (reserved)
BUCKETS = 1 << 16  # of authors; at 256 authors each, 16 million of them

# HTTP.
LINE_BYTES = 2 * KIB  # request or status line, and each header; ours stay below 200
HEADERS = 32  # headers in one message; ours have at most 6
CONNECTIONS = 256  # accepted at once; asyncio holds 256 KiB for each TLS connection
STREAMS_PER_PEER = 8  # blobs served to one peer at once; more would only share its bandwidth
BLOCK = MIB  # blob bytes read and written at a time
FETCHES = 16  # threads that fetch; policy.max_fetches begins fewer

# Time, seconds.
HANDSHAKE_SECONDS = 10.0  # TCP connection and TLS handshake, each
HELLO_SECONDS = 15.0  # a whole hello, introduction included
BODY_SECONDS = 10.0  # a request body must arrive whole
LINGER_SECONDS = 2.0  # to drain a declined body, so that the caller gets to read why
IDLE_SECONDS = 30.0  # a silent connection is closed, be it before or after a request
STALL_SECONDS = 30.0  # an answer with no new byte for so long has failed
CLOSE_SECONDS = 5.0  # for a peer in the middle of a download when this one leaves
BYTES_PER_SECOND = 32 * KIB  # slower over a BLOCK, and the peer is stuck rather than slow; a fetch can be resumed

# Discovery.
SIGHTINGS = 1024  # mDNS names believed at once; a flood of records costs no more
LOOKUPS = 32  # mDNS names being resolved at once
