"""`python -m braintorrent.experiments.poisoned DATA OUT`: do robust merges and gates bear with hostile labs?

Eight labs share out DATA evenly. Two of them publish no honest model: one publishes what it merged *minus* FLIPPED
times its update, the other plus SCALED times. All start at once, so that the first version is trained alone; then the
labs take turns in random order, as in Roy et al.: merge, train one version, publish. A model is judged by its lab's
test cases, after a last merge. Real learners, the node's own merge.

    nobody attacks   plain BrainTorrent, the two are honest: what the others are compared with
    plain            the same merge, attacked
    median, trimmed  coordinate_median, trimmed_mean; each takes the newest model of everyone
    gate             plain, behind `gate = "validation"`

Only the six honest labs are scored, in every row. Writes OUT/poisoned.json and prints the table.
"""

from __future__ import annotations

import argparse
import json
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from statistics import mean, stdev
from tempfile import TemporaryDirectory, TemporaryFile
from typing import IO, Any

import tomli_w
from rich.console import Console
from rich.table import Table

from braintorrent import plugins
from braintorrent.config import GatesSection, Peer, load_federation
from braintorrent.contracts import Candidate, MergeOutcome
from braintorrent.experiments.labs import lab_names
from braintorrent.experiments.split import split
from braintorrent.learning import Learner, open_learner
from braintorrent.learning.baseline import train_alone
from braintorrent.learning.gating import scores_here, worse
from braintorrent.learning.merging import merge
from braintorrent.methods import Method
from braintorrent.tasks.layouts import open_dataset
from braintorrent.weights import Weights
from braintorrent.workbench.proposing_facts import facts

LABS, SEEDS, VERSIONS = 8, (0, 1, 2), 9
FLIPPED, SCALED = 4.0, 10.0  # times the honest update
TOLERANCE = 0.02  # of the mean score: what an attack may cost where there is a defence


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table."""

    label: str
    method: str = "braintorrent"
    attacked: bool = True
    gated: bool = False


ROWS = {
    "nobody": Row("nobody attacks", attacked=False),
    "plain": Row("plain"),
    "median": Row("coordinate median", "coordinate_median"),
    "trimmed": Row("trimmed mean", "trimmed_mean"),
    "gate": Row("validation gate", gated=True),
    "multi-krum": Row("multi-Krum", "multi_krum"),
    "clipping": Row("centred clipping", "centred_clipping"),
    "norm": Row("norm clipping", "norm_clipping"),
}
ASKED = ("nobody", "plain", "median", "trimmed", "gate")


def task(labels: Sequence[str]) -> dict[str, Any]:
    """A network on volumes that learns the hippocampus in a minute of one core."""
    return {
        "kind": "segmentation", "labels": list(labels), "channels": 1, "dims": 3, "network": "UNet",
        "network_args": {"channels": [8, 16, 32], "strides": [2, 2], "num_res_units": 1},
        "patch": [32, 48, 32], "batch": 2, "steps": 15, "lr": 4e-3,
    }  # fmt: skip


@dataclass
class Lab:
    """One lab of a run: its learner, the file it published last, and what it has merged of whom."""

    name: str
    learner: Learner
    method: Method
    factor: float = 1.0  # of its update, in what it publishes
    version: int = 0
    file: IO[bytes] = field(default_factory=TemporaryFile)
    merged: dict[str, int] = field(default_factory=dict)

    def publish(self, start: Weights) -> None:
        """What it trained from `start`, or what it makes of that."""
        values = self.learner.weights()
        if self.factor != 1.0:
            values = values.copy()
            for (spec, mine), (_, before) in zip(values, start, strict=True):
                if spec.dtype == "F32":
                    mine[...] = before + self.factor * (mine - before)
        self.file.seek(0)
        self.file.writelines(values.parts)
        self.file.flush()
        self.version += 1

    @property
    def candidate(self) -> Candidate:
        """Its last version, as another lab's merge takes it."""
        return Candidate(self.name, self.learner.samples, self.file.fileno())


def run(row: Row, learners: Mapping[str, Learner], start: Weights, versions: int, seed: int) -> Iterator[float]:
    """Train all labs together; the test score of each honest lab."""
    create, hostile = plugins.load("methods", row.method).create, list(learners)[-2:]
    factors = dict(zip(hostile, (-FLIPPED, SCALED), strict=True)) if row.attacked else {}
    order = random.Random(seed)
    with ExitStack() as files:
        labs = [Lab(name, learner, create(), factors.get(name, 1.0)) for name, learner in learners.items()]
        for lab in labs:
            files.enter_context(lab.file)
            _begin(lab.learner, start)
        out = Weights(start.schema)
        for version in range(versions):
            for lab in order.sample(labs, len(labs)):
                if version:
                    _merge(lab, labs, out, row)
                before = lab.learner.weights().copy()
                train_alone(lab.learner, 1)
                lab.publish(before)
        for lab in labs:
            if lab.name not in hostile:
                _merge(lab, labs, out, row)
                yield _test(lab.learner)


def _begin(learner: Learner, start: Weights) -> None:
    """The same first batches and the same weights in every row."""
    learner.load(start)
    learner.restore({k: v * 0 if k in ("step", "done", "seconds", "loss") else v for k, v in learner.state().items()})


def _merge(lab: Lab, labs: Sequence[Lab], out: Weights, row: Row) -> MergeOutcome:
    """One merge, from what the protocol would offer: what is newer, or everyone if something is."""
    others = [other for other in labs if other is not lab and other.version]
    newer = [other for other in others if other.version > lab.merged.get(other.name, 0)]
    taken = [other.candidate for other in (others if lab.method.needs.everyone and newer else newer)]
    if row.gated:
        own, drop = lab.learner.evaluate()[lab.learner.score], GatesSection().drop
        scores = scores_here(lab.learner, taken, out)
        taken = [candidate for candidate in taken if not worse(scores[candidate.author], own, drop)]
    me = Candidate(lab.name, lab.learner.samples, -1)
    outcome = merge(lab.method, lab.learner.weights(), me, taken, out)
    lab.learner.load(out)
    lab.merged |= {other.name: other.version for other in newer}
    return outcome


def _test(learner: Any) -> float:
    return float(learner.task.summary(learner.predict("test"))[learner.score])


def measure(
    data: Path, work: Path, rows: Sequence[str], seeds: Sequence[int], versions: int, say: Callable[[str], None]
) -> dict[str, dict[str, list[float]]]:
    """Row -> seed -> scores of the honest labs."""
    dataset = open_dataset(data)
    labels = facts(dataset, lambda *_: None).labels
    found: dict[str, dict[str, list[float]]] = {name: {} for name in rows}
    for seed in seeds:
        folders = {name: work / str(seed) / name for name in lab_names(LABS)}
        split(dataset, {name: folder / "data" for name, folder in folders.items()}, labels, seed=seed)
        federation = {"format": 1, "id": "poisoned", "task": task(labels), "start": {"seed": seed}}
        (work / str(seed) / "federation.toml").write_text(tomli_w.dumps(federation))
        agreed = load_federation(work / str(seed) / "federation.toml")
        learners = {
            name: open_learner(agreed, Peer(name=name, data="data", device="cpu", threads=1), folder, Method())
            for name, folder in folders.items()
        }
        start = next(iter(learners.values())).weights().copy()
        for name in rows:
            found[name][str(seed)] = list(run(ROWS[name], learners, start, versions, seed))
            say(f"seed {seed}, {ROWS[name].label}: {mean(found[name][str(seed)]):.3f}")
    return found


def table(found: Mapping[str, Mapping[str, Sequence[float]]]) -> Table:
    """Means over labs and seeds, the spread of the seeds' means, and what an attack costs."""
    shown = Table("merge", "mean Dice", "spread", "against nobody attacking")
    means = {name: [mean(scores) for scores in seeds.values()] for name, seeds in found.items()}
    for name, values in means.items():
        spread = stdev(values) if len(values) > 1 else 0.0
        loss = mean(values) - mean(means["nobody"]) if "nobody" in means else 0.0
        good = name in ("nobody", "plain") or loss >= -TOLERANCE
        shown.add_row(
            ROWS[name].label, f"{mean(values):.3f}", f"{spread:.3f}", f"{loss:+.3f}", style=None if good else "red"
        )
    return shown


def main(argv: Sequence[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m braintorrent.experiments.poisoned", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)  # fmt: skip
    parser.add_argument("data", type=Path, help="a data folder with labels, such as Task04_Hippocampus")
    parser.add_argument("out", type=Path, help="where poisoned.json goes")
    parser.add_argument("--rows", nargs="+", choices=ROWS, default=ASKED, metavar="ROW", help=", ".join(ROWS))
    parser.add_argument("--seeds", nargs="+", type=int, default=SEEDS, metavar="SEED")
    parser.add_argument("--versions", type=int, default=VERSIONS, help="of each lab")
    given, console = parser.parse_args(argv), Console()
    given.out.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=given.out) as work:
        found = measure(given.data, Path(work), given.rows, given.seeds, given.versions, lambda t: console.print(t))
    (given.out / "poisoned.json").write_text(json.dumps(found, indent=1) + "\n")
    console.print(table(found))


if __name__ == "__main__":
    main()
