"""Memory in large pages, for what computes: the C library is told before Python begins, and reads it once.

On a virtual machine each look-up of an address is itself looked up, page by page; pages of 2 MiB need 512 times fewer.
glibc asks Linux for them where it is told to (glibc manual, "Memory Allocation Tunables"); elsewhere nothing changes.
"""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from pathlib import Path

MALLOC = {"GLIBC_TUNABLES": "glibc.malloc.hugetlb=1"}
SMALL_OBJECTS = {"PYTHONMALLOC": "malloc"}  # Python's too, which else lie in pieces of a MiB of its own
BEGAN = "BRAINTORRENT_BEGAN"  # the process that has tried: whatever cleans its environment, it tries once


def with_large_pages(*settings: dict[str, str]) -> None:
    """Begin this process anew with these settings, as what and where it is, unless it began with them or other ones."""
    wanted = {name: value for each in settings for name, value in each.items()}
    try:
        began = {each.partition(b"=")[0] for each in Path("/proc/self/environ").read_bytes().split(b"\0")}
    except OSError:  # not Linux
        return
    if {os.fsencode(name) for name in wanted} <= began or os.environ.get(BEGAN) == str(os.getpid()):
        return
    os.environ.update({name: os.environ.get(name, value) for name, value in wanted.items()})
    os.environ[BEGAN] = str(os.getpid())
    with suppress(OSError):  # where nothing may be executed, it goes on as it is
        os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])
