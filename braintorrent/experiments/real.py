"""A scenario with real processes: one `braintorrent run` for each lab on this machine, and the same fate at the same
seconds as in virtual time. Lines, partitions and NAT take network namespaces: Linux and root."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

from braintorrent.errors import ConfigError
from braintorrent.experiments.processes import Processes
from braintorrent.experiments.real_figures import Watch
from braintorrent.experiments.real_lan import Lan
from braintorrent.experiments.real_setting import impossible, lay_out, needs_machines, put_on_machines
from braintorrent.experiments.real_stage import Stage
from braintorrent.simulation.run import Run
from braintorrent.simulation.scenario import Scenario
from braintorrent.simulation.timeline import Act, timeline

SAMPLES = 60  # points on a curve
LOOK_EVERY = 0.2  # seconds between looks at the processes


def run_real(
    scenario: Scenario, folder: Path, seed: int, progress: Callable[[float], None] | None = None, *,
    data: Path | None = None,
) -> Run:  # fmt: skip
    """Play `scenario` with processes whose peer folders it makes in `folder`; it takes scenario.seconds.

    Less where all have finished before, by the policy's stop rule, and nobody is to come any more.
    data: scans to deal out to the labs; None: the stand-in task. progress: told the share done. All processes have
    ended on return, however it returns. ConfigError for what cannot be real; BrainTorrentError if a lab fails.
    """
    for trouble in impossible(scenario):
        raise ConfigError(f"{scenario.name}: a real run {trouble}; play it with --virtual")
    with ExitStack() as stack:
        lan, addresses = None, list[str]()
        if needs_machines(scenario):
            lan = stack.enter_context(Lan())
            addresses = [f"192.0.2.{number}" for number in range(1, scenario.peers + 1)]
        folders = lay_out(scenario, folder, seed, addresses, data)
        on = dict(zip(folders, put_on_machines(lan, scenario, addresses), strict=True)) if lan is not None else {}
        processes = stack.enter_context(Processes(folders, on=on, later=frozenset(folders)))
        backups = scenario.churn is not None and scenario.churn.old_copy > 0
        stage = Stage(folders, processes, lan, addresses, backups)
        stack.callback(stage.resume_all)
        watch = Watch(scenario, stage, seed, standin=data is None)
        _play(timeline(scenario, seed), scenario.seconds, stage, watch, progress or (lambda share: None))
        watch.end()
    return watch.run()


def _play(acts: list[Act], seconds: float, stage: Stage, watch: Watch, progress: Callable[[float], None]) -> None:
    began, samples, coming = time.monotonic(), 0, list(reversed(acts))
    while (now := time.monotonic() - began) < seconds:
        while coming and coming[-1].at <= now:
            _perform(coming.pop(), stage, watch)
        if now >= (samples + 1) * seconds / SAMPLES:
            samples += 1
            watch.sample()
        stage.look()
        if not (coming or stage.present or stage.returning):
            break
        progress(now / seconds)
        time.sleep(LOOK_EVERY)
    watch.sample()
    progress(1.0)


def _perform(act: Act, stage: Stage, watch: Watch) -> None:
    if act.what == "part":
        stage.part(act.who)
    elif act.what == "heal":
        stage.heal()
    else:
        for lab in act.who:
            if act.protocols is not None:
                stage.speak(lab, act.protocols)
            getattr(stage, act.what)(lab)
    watch.note(act.what, act.who)
