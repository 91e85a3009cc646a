"""Run by every Python that tests start, before all else: what comes with extras is absent. See tests/conftest.py."""

import os
import sys

EXTRAS = {
    "bundle": ["fire", "ignite", "yaml"], "demo": ["matplotlib", "nilearn", "pandas", "sklearn"], "dicom": ["pydicom"],
    "ray": ["ray"], "tensorboard": ["tensorboard"],
}  # fmt: skip
for extra in EXTRAS.keys() - {os.environ.get("TEST_EXTRA")}:
    sys.modules.update(dict.fromkeys(EXTRAS[extra]))  # type: ignore[arg-type]
