"""`python -m braintorrent`."""

from braintorrent.cli import main

main()
