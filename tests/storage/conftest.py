"""What the storage tests share: an author that signs, and a disk that is really full."""

import subprocess
from dataclasses import replace

import pytest

from braintorrent.protocol.messages import Announcement
from braintorrent.protocol.version import Version
from braintorrent.records import Identity, digest, sign_announcement


class Author:
    """Signs announcements of made-up content."""

    def __init__(self):
        self.identity = Identity.create()
        self.id = self.identity.id

    def announce(self, incarnation, counter, text="", **changes):
        text = text or f"{self.id} {incarnation}.{counter}"
        announcement = Announcement(
            federation="test-federation", author=self.id, version=Version(incarnation, counter),
            content=digest(text.encode()), samples=10, steps=5, seconds=1.5, schema=digest(b"schema"),
            record=digest(b"record " + text.encode()), record_size=100, final=False,
        )  # fmt: skip
        return sign_announcement(self.identity, replace(announcement, **changes))


@pytest.fixture
def author():
    return Author()


@pytest.fixture
def other():
    return Author()


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 4 MiB."""
    place = tmp_path / "disk"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(place)]
    try:
        subprocess.run(mount, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("mounting needs root")
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)
