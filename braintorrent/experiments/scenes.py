"""A scene: a script of scenarios/ put to work, and what a run of it shows as plain values."""

from __future__ import annotations

import math
import re
import sys
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from types import ModuleType
from typing import Any

from braintorrent.errors import ConfigError
from braintorrent.simulation.run import Run
from braintorrent.simulation.scenario import Scenario

Progress = Callable[[float], None]


@dataclass(frozen=True, slots=True)
class Script:
    """A file that defines `scenario(peers) -> Scenario`, as text: so it reaches a worker on another machine."""

    path: str
    text: str

    @classmethod
    def read(cls, path: Path) -> Script:
        """ConfigError if there is no such file, or it is none of these."""
        try:
            script = cls(str(path), path.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"{path}: cannot be read as a script ({error})") from error
        script._scenario()
        return script

    def build(self, peers: int | None = None) -> Scenario:
        """What it says for so many peers, or for as many as it means itself."""
        make = self._scenario()
        made = make() if peers is None else make(peers)
        if not isinstance(made, Scenario):
            raise ConfigError(f"{self.path}: scenario(peers) returned a {type(made).__name__}; it must be a Scenario")
        return made

    def _scenario(self) -> Callable[..., Any]:
        module = ModuleType(f"scenarios.{Path(self.path).stem}")
        module.__file__ = self.path
        sys.modules[module.__name__] = module  # dataclasses look their module up
        try:
            exec(compile(self.text, self.path, "exec"), vars(module))
        except Exception as error:  # anything may be wrong in a script
            raise ConfigError(f"{self.path}: {type(error).__name__}: {error}") from error
        make = getattr(module, "scenario", None)
        if not callable(make):
            raise ConfigError(f"{self.path}: defines no scenario(peers); see scenarios/steady.py")
        return make


def play(
    scenario: Scenario, seed: int, real: Path | None = None, data: Path | None = None,
    progress: Progress | None = None, workers: int | None = 0, engine: str = "processes",
) -> dict[str, Any]:  # fmt: skip
    """Run it in virtual time, or with processes whose folders go into `real`; see `plain`.

    data: scans that the labs learn from; None: a stand-in learns. workers, engine: who trains in virtual time, see
    Learners.
    """
    if real is not None:
        from braintorrent.experiments.real import run_real

        return plain(run_real(scenario, real, seed, progress, data=data), real=True)
    from braintorrent.simulation.running import run

    if data is None:
        return plain(run(scenario, seed, progress=progress))
    from braintorrent.experiments.learners import Learners
    from braintorrent.experiments.real_setting import lay_out

    with TemporaryDirectory(prefix="braintorrent-labs-") as root:
        folders = lay_out(scenario, Path(root) / "labs", seed, [], data)
        with Learners(folders, scenario, seed, workers, engine) as learning:
            fitting = replace(scenario, model_bytes=learning.model_bytes)
            return plain(run(fitting, seed, progress=progress, learning=learning))


def plain(run: Run, *, real: bool = False) -> dict[str, Any]:
    """A run without its trace, as JSON has it: names as in Run, lists for tuples, null for what is not finite."""
    told = {name: value for name, value in vars(run).items() if name not in ("scenario", "trace", "series", "spreads")}
    told |= {
        "scenario": asdict(run.scenario),
        "series": asdict(run.series),
        "spreads": [asdict(s) for s in run.spreads],
    }
    return {"real": real, **_plain(told)}


def run_name(run: Mapping[str, Any]) -> str:
    """Of a plain run, and of its files: steady-6-seed-0, or steady-6-seed-0-real."""
    scenario = run["scenario"]
    name = re.sub(r"[^\w.-]+", "_", scenario["name"])  # it names a file
    return f"{name}-{scenario['peers']}-seed-{run['seed']}{'-real' if run['real'] else ''}"


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(one) for key, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(one) for one in value]
    if isinstance(value, float):
        return float(f"{value:.6g}") if math.isfinite(value) else None
    return value
