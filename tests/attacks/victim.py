"""The process under attack: a real `braintorrent run FOLDER`, with deadlines that a test can wait for."""

from __future__ import annotations

import sys

from braintorrent.network import limits

DEADLINES = {
    "ACCEPT_SECONDS": 1.0, "HEAD_SECONDS": 1.0, "STRANGER_SECONDS": 2.0, "HANDSHAKE_SECONDS": 1.0, "BODY_SECONDS": 1.0,
    "IDLE_SECONDS": 2.0, "STALL_SECONDS": 1.5, "HELLO_SECONDS": 5.0, "BYTES_PER_SECOND": limits.MIB,
}  # fmt: skip
for name, value in DEADLINES.items():
    getattr(limits, name)  # one that went must not pass unnoticed
    setattr(limits, name, value)

from braintorrent.cli import main  # noqa: E402 - the limits come first
from braintorrent.node import finding  # noqa: E402

finding.ROSTER_EVERY = 0.5

sys.argv = ["braintorrent", *sys.argv[1:]]
if __name__ == "__main__":
    main()
