"""What experiments' tests share."""

from __future__ import annotations

from pathlib import Path

import pytest
import tomli_w


@pytest.fixture
def labs(tmp_path: Path) -> list[Path]:
    """Labs whose learners take no torch and no time."""
    task = {"kind": "standin", "size": 64, "steps": 4, "seconds": 0.0}
    (tmp_path / "federation.toml").write_text(tomli_w.dumps({"format": 1, "id": "federation-x", "task": task}))
    for name in "abcd":
        (tmp_path / name).mkdir()
        (tmp_path / name / "peer.toml").write_text(f'name = "{name}"\nthreads = 1\n')
    return [tmp_path / name for name in "abcd"]
