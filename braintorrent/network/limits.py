"""Every cap of the network room: its reason and unit. Applied before memory or time is spent."""

from __future__ import annotations

KIB = 1 << 10
MIB = 1 << 20

# Bodies, bytes. Each fits the largest honest message with room to spare.
CERTIFICATE_BYTES = 2 * KIB  # all are 322 bytes; rotations, where they follow, have at most 300 each
HELLO_BYTES = 128 * KIB  # AGREEMENT_KEYS of the longest keys and values are 99 KiB
ASK_BYTES = 32 * KIB  # 256 authors at 75 bytes, and one announcement of 1 KiB
TELL_BYTES = 128 * KIB  # 32 announcements of 1 KiB, and 64 peers with their addresses
JOIN_BYTES = 4 * KIB  # two signatures, a name, 8 addresses of 128 characters
WELCOME_BYTES = 512 * KIB  # MEMBERS with two addresses each, and a federation.toml
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
FEDERATION_CHARS = 64 * KIB  # federation.toml in a welcome; ours are below 2 KiB
MEMBERS = 256  # labs in a welcome; a newcomer hears of the rest from them

# Joining. Guesses at a code of 128 bits are hopeless at any speed; this bounds what they cost.
JOIN_FAILURES = 10  # at once, from everyone together; a right code gets in regardless
JOIN_FAILURE_SECONDS = 1.0  # until one more

# HTTP.
LINE_BYTES = 2 * KIB  # request or status line, and each header; ours stay below 200
HEADERS = 32  # headers in one message; ours have at most 6
HEAD_BYTES = 16 * KIB  # of an answer that a blob follows, "100 Continue" again and again included
CONNECTIONS = 256  # accepted at once
TLS_BUFFER = 32 * KIB  # of asyncio for what one connection receives, until collected; its own 256 are for blobs
CONNECTIONS_PER_PEER = 16  # with one known key: one for asks, FETCHES at most; the oldest makes room
STRANGERS = 64  # of all, without a known key (yet): handshakes in hand hold up the loop for 0.1 s (measured)
STRANGERS_PER_ADDRESS = 32  # of them at one address, or in one IPv6 network of 64 bits; labs behind one router
STREAMS_PER_PEER = 12  # blobs served to one peer at once: twice what it fetches, since one given up ends later here
BLOCK = MIB  # blob bytes read and written at a time
FETCHES = 16  # threads that fetch; policy.max_fetches begins fewer

# Time, seconds.
HANDSHAKE_SECONDS = 10.0  # of calling: TCP connection and TLS handshake, each
ACCEPT_SECONDS = 5.0  # of being called: TLS handshake
HEAD_SECONDS = 5.0  # a request's line and headers must arrive whole
STRANGER_SECONDS = 10.0  # a caller without a known key is cut off, whatever it is doing
HELLO_SECONDS = 15.0  # a whole hello, introduction included
BODY_SECONDS = 10.0  # a request body must arrive whole
LINGER_SECONDS = 2.0  # to drain a declined body, so that the caller gets to read why
IDLE_SECONDS = 30.0  # a silent connection is closed, be it before or after a request
STALL_SECONDS = 30.0  # an answer with no new byte for so long has failed
CLOSE_SECONDS = 5.0  # for a peer in the middle of a download when this one leaves
BYTES_PER_SECOND = 32 * KIB  # slower over a BLOCK, and the peer is stuck rather than slow; a fetch can be resumed
SLOW_SECONDS = 30.0  # how long a fetch may be slow while others wait for its place
SLOW_BYTES_PER_SECOND = MIB  # what is slow then: a thirtieth of 250 Mbit/s; alone it may go on

# Discovery.
SIGHTINGS = 1024  # mDNS names believed at once; a flood of records costs no more
LOOKUPS = 32  # mDNS names being resolved at once

# Dialling.
DIALS = 32  # at unproven addresses of one peer at once: all it may claim, four times over
DIAL_SECONDS = 2.0  # until one more

# Conduct.
FAULTS = 8  # forgiven at once: a lab with a bug should read about it before it is shut out
FAULT_SECONDS = 60.0  # until one more is
BAN_SECONDS = 30.0  # the first ban; each next one is twice as long
BAN_SECONDS_MOST = 3600.0  # a person who mends a lab should not have to wait for tomorrow
REQUESTS = 64  # of one peer at once: more than asks and records of a newcomer's catching up
REQUESTS_PER_SECOND = 16  # of one peer from then on: 3 % of a core; they are made to wait, not declined
REQUEST_WAIT = 0.5  # seconds a request is made to wait at most; one more is a flood
