"""Machine: memory and seconds of a version by real steps, device, disk, clock."""

from __future__ import annotations

import os
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from braintorrent.errors import ConfigError, DataError, Diverged, FormatError, LocalError
from braintorrent.learning import Learner, open_learner
from braintorrent.storage import Ledger, StatePaths
from braintorrent.workbench.check_configuration import Setup
from braintorrent.workbench.check_findings import Group

STEPS = 5  # of the real task: the first pays for warming up and is not counted
KEPT = 4  # models on disk beside the roster's: newest, best, merged, start
SLACK = 60.0  # seconds a clock may seem to have gone back
GIB = 2**30

Progress = Callable[[str, int, int], None]


def check_machine(
    group: Group, setup: Setup, split: Path, facts: dict[str, Any], progress: Progress, *, instead: str
) -> None:
    """Trains a little with this lab's data, on this machine, as the node would; instead: why not."""
    nbytes = 0
    if instead:
        group.note("steps", f"no training steps were tried: {instead}")
        _device(group, setup, facts)
    else:
        progress("opening the data as a run would", 0, STEPS + 1)
        available = available_memory()
        learner = _opened(group, setup, split)
        if learner is not None:
            nbytes = learner.schema.nbytes
            facts["model_bytes"] = nbytes
            _device(group, setup, facts, learner)
            _try_steps(group, learner, facts, progress)
            _memory(group, facts, available, nbytes)
            _gpu_memory(group, facts)
    _disk(group, setup, facts, nbytes)
    _clock(group, setup.paths)


def _opened(group: Group, setup: Setup, split: Path) -> Learner | None:
    assert setup.federation is not None
    assert setup.method is not None
    try:
        return open_learner(setup.federation, setup.peer, setup.folder, setup.method, split)
    except (ConfigError, DataError) as error:
        group.error("learner", str(error))
    except (MemoryError, RuntimeError) as error:
        if _of_memory(error):
            group.error("memory", f"data and network do not fit into memory ({type(error).__name__})",
                        do="a smaller task.network, or less data")  # fmt: skip
        else:
            group.error("learner", f"data and network do not open: {_said(error)}")
    return None


def _of_memory(error: Exception) -> bool:
    """torch says by a RuntimeError that memory is full, and much else."""
    return isinstance(error, MemoryError) or "memory" in str(error)


def _said(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]


def _try_steps(group: Group, learner: Learner, facts: dict[str, Any], progress: Progress) -> None:
    """Time the steps after the first, then one validation."""
    stamps, totals = [time.monotonic()], [1]

    def stepped(done: int, total: int) -> None:
        stamps.append(time.monotonic())
        totals.append(total)
        progress("training steps", done, STEPS + 1)

    try:
        learner.train(lambda: len(stamps) > STEPS, stepped)
        progress("validation", STEPS, STEPS + 1)
        began = time.monotonic()
        learner.evaluate()
        evaluating = time.monotonic() - began
    except Diverged as error:
        group.error("steps", str(error))
        return
    except (MemoryError, RuntimeError) as error:
        do = "a smaller task.patch or task.batch" if _of_memory(error) else ""
        group.error("steps", f"a training step fails: {_said(error)}", do=do)
        return
    counted = stamps[1:] if len(stamps) > 2 else stamps
    step = (counted[-1] - counted[0]) / max(1, len(counted) - 1)
    training = step * totals[-1]
    facts.update(seconds_per_step=round(step, 4), seconds_per_version=round(training, 2),
                 seconds_per_validation=round(evaluating, 2))  # fmt: skip
    group.ok("steps", f"a version takes about {training:.3g} s to train ({totals[-1]} steps of {step:.2g} s) and "
             f"{evaluating:.2g} s to validate")  # fmt: skip


def _memory(group: Group, facts: dict[str, Any], available: int | None, nbytes: int) -> None:
    """The peak of this very process, and the accumulator that a merge adds."""
    needed = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024) + nbytes
    facts.update(memory_bytes=needed, memory_available_bytes=available)
    said = f"a run needs about {needed / GIB:.2f} GiB of memory"
    if available is None:
        group.ok("memory", said)
    elif needed > available:
        group.warning("memory", f"{said}; {available / GIB:.2f} GiB are available",
                      do="end other programs, or take a smaller task.batch, task.patch or network")  # fmt: skip
    else:
        group.ok("memory", f"{said}; {available / GIB:.2f} GiB are available")


def _gpu_memory(group: Group, facts: dict[str, Any]) -> None:
    """What the steps took of a GPU. One that is too small has failed them already."""
    if not str(facts.get("device")).startswith("cuda"):
        return
    import torch

    used, (_, total) = torch.cuda.max_memory_reserved(), torch.cuda.mem_get_info()
    facts.update(gpu_memory_bytes=used, gpu_memory_total_bytes=total)
    group.ok("memory", f"and {used / GIB:.2f} of the {total / GIB:.1f} GiB of the GPU")


def available_memory() -> int | None:
    """Bytes this process could have: what is free, what it has already, and never above a container's cap."""
    try:
        lines = dict(line.split(":", 1) for line in Path("/proc/meminfo").read_text().splitlines())
        own = int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
        free = int(lines["MemAvailable"].split()[0]) * 1024 + own
        caps = [Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes")]
        return min(
            [free, *(int(cap.read_text()) for cap in caps if cap.exists() and cap.read_text().strip().isdigit())]
        )
    except (OSError, KeyError, ValueError):  # no Linux
        names = ("SC_PHYS_PAGES", "SC_PAGE_SIZE")
        return os.sysconf(names[0]) * os.sysconf(names[1]) if all(n in os.sysconf_names for n in names) else None


def _device(group: Group, setup: Setup, facts: dict[str, Any], learner: Learner | None = None) -> None:
    """What trains: processor or GPU, and in which precision."""
    if not hasattr(setup.plugin, "open_task"):
        return
    import torch

    from braintorrent.learning.opening import device_of

    try:
        device = device_of(setup.peer.device, setup.folder)
    except ConfigError as error:
        group.error("device", str(error))
        return
    called = torch.cuda.get_device_name(device) if device.startswith("cuda") else ""
    precision = getattr(learner, "precision", "")
    facts.update(device=device, precision=precision or None)
    group.ok("device", f"trains on {device}{f' ({called})' if called else ''}{f' in {precision}' if precision else ''}")


def _disk(group: Group, setup: Setup, facts: dict[str, Any], nbytes: int) -> None:
    """Free space against the bound that peer.toml sets, and against one model of everybody."""
    state, bound = setup.paths.path, int(setup.peer.disk_gib * GIB)
    free = shutil.disk_usage(state if state.exists() else setup.folder).free
    stored = sum(file.stat().st_size for file in setup.paths.blobs.rglob("*") if file.is_file())
    others = len(setup.roster.ids) if setup.roster else 0
    needed = nbytes * (others + KEPT)
    facts.update(disk_free_bytes=free, disk_needed_bytes=needed)
    if needed > free + stored:
        group.error("disk", f"{needed / GIB:.2f} GiB are needed for the models of {others + 1} labs, "
                    f"{free / GIB:.2f} GiB are free", str(state), "make room, or move the peer folder")  # fmt: skip
    elif needed > bound:
        group.error("disk", f"disk_gib = {setup.peer.disk_gib:g} is less than the {needed / GIB:.2f} GiB needed for "
                    f"the models of {others + 1} labs", str(setup.folder / "peer.toml"), "raise disk_gib")  # fmt: skip
    elif bound > free + stored:
        group.warning("disk", f"disk_gib allows {setup.peer.disk_gib:g} GiB of models, {free / GIB:.2f} GiB are free",
                      str(state), "make room, or lower disk_gib")  # fmt: skip
    else:
        group.ok("disk", f"{free / GIB:.1f} GiB are free; disk_gib allows {setup.peer.disk_gib:g} GiB of models")


def _clock(group: Group, paths: StatePaths) -> None:
    """Each start is numbered by the clock: one that stands back makes numbers that say nothing."""
    newest = max((file.stat().st_mtime for file in paths.path.rglob("*") if file.is_file()), default=0.0)
    if paths.ledger.exists():
        try:
            with Ledger(paths.ledger, glance=True) as ledger:
                published = ledger.published()
            newest = max([newest, *(version.incarnation / 1000 for version, _ in published[-1:])])
        except (LocalError, FormatError) as error:
            group.error("ledger", str(error))
    behind = newest - time.time()
    synchronised = _synchronised()
    if behind > SLACK:
        group.warning("clock", f"the clock is {_long(behind)} behind the newest thing in this peer's state",
                      str(paths.path), "set the clock; let it be kept by NTP")  # fmt: skip
    elif synchronised is False:
        group.warning("clock", "the clock is not synchronised (timedatectl)", do="timedatectl set-ntp true")
    else:
        group.ok("clock", "the clock is plausible" + (" and synchronised" if synchronised else ""))


def _synchronised() -> bool | None:
    """What systemd says; None where there is none to ask."""
    if shutil.which("timedatectl") is None:
        return None
    try:
        asked = ["timedatectl", "show", "-p", "NTPSynchronized", "--value"]
        said = subprocess.run(asked, capture_output=True, text=True, timeout=5).stdout.strip()
    except (OSError, subprocess.TimeoutExpired):
        return None
    return {"yes": True, "no": False}.get(said)


def _long(seconds: float) -> str:
    for unit, length in (("days", 86400), ("hours", 3600), ("minutes", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds:.0f} seconds"
