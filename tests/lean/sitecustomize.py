"""Run by every Python that tests start, before all else: what comes with extras is absent. See tests/conftest.py."""

import sys

EXTRAS = ["fire", "ignite", "matplotlib", "nilearn", "pandas", "pydicom", "ray", "sklearn", "tensorboard", "yaml"]
sys.modules.update(dict.fromkeys(EXTRAS))  # type: ignore[arg-type]
