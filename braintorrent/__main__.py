"""`python -m braintorrent`."""

from braintorrent.cli import start

start()
