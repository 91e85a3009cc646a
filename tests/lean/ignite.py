"""Found by the labs that tests start, in place of what only bundles need: see tests/conftest.py."""

raise ImportError("not in an install without extras")
