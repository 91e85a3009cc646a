"""What a run with real processes showed, in the figures and curves of a virtual one."""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean, median
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load_file

from braintorrent.config import federation_path, load_federation
from braintorrent.experiments.real_ledgers import Story, held_up, longest_wait, lost, opened
from braintorrent.experiments.real_spreading import merged_by, spreads
from braintorrent.experiments.real_stage import Stage
from braintorrent.learning.opening import lab_seed
from braintorrent.node.keeping import told
from braintorrent.simulation.run import Run, Series, Spread
from braintorrent.simulation.scenario import Scenario
from braintorrent.simulation.watch import FROM, TO
from braintorrent.storage import StatePaths
from braintorrent.tasks.standin import optimum

SCORE = "dice"  # of a run on scans


class Watch:
    """Looks at the stage now and then, and tells in the end. standin: whether distances mean something, or scores."""

    def __init__(self, scenario: Scenario, stage: Stage, seed: int, *, standin: bool) -> None:
        self.scenario, self.stage, self.seed = scenario, stage, seed
        self.began, self.there = time.time(), list[int]()
        self.series, self.happened = Series(), list[tuple[float, str]]()
        self._optimum: NDArray[np.float32] | None = None
        if standin:
            federation = load_federation(federation_path(stage.folders[0]))
            seeds = [lab_seed(federation, folder.name) for folder in stage.folders]
            self._optimum = np.mean([optimum(lab) for lab in seeds], axis=0)

    def note(self, what: str, labs: Sequence[int]) -> None:
        """For people: this befell these labs."""
        self.happened.append((time.time() - self.began, f"{what} {', '.join(map(str, labs))}"))

    # ------------------------------------------------------------- on the way

    def sample(self) -> None:
        """One more point on each curve that the ledgers do not tell."""
        present, finished = self.stage.present, self.stage.finished
        kept = [(StatePaths(self.stage.folders[lab]).models, "latest") for lab in present]
        kept += [(StatePaths(self.stage.folders[lab]).models, "merged") for lab in finished]
        models = [model for folder, name in kept if (model := _model(folder, name)) is not None]
        values = self._values(kept, models)
        middle = np.mean(models, axis=0) if models else None
        series = self.series
        series.times.append(time.time() - self.began)
        series.mean.append(fmean(values) if values else math.nan)
        series.worst.append((max if self._optimum is not None else min)(values, default=math.nan))
        series.consensus.append(fmean(self._apart(model, middle) for model in models) if models else math.nan)
        series.present.append(len(present))
        series.bytes.append(float(sum(_sent(folder) for folder in self.stage.folders)))

    def _values(self, kept: Sequence[tuple[Path, str]], models: Sequence[NDArray[Any]]) -> list[float]:
        """Distances to the optimum; or scores on own validation cases, where no optimum is known."""
        if self._optimum is not None:
            return [self._apart(model, np.resize(self._optimum, model.shape)) for model in models]
        scores = [told(folder, name).get("score", {}).get(SCORE) for folder, name in kept]
        return [score for score in scores if score is not None]

    def _apart(self, model: NDArray[Any], other: Any) -> float:
        """As far as in the scenario's learner: the stand-in has other dimensions, each with a spread of 1."""
        scale = self.scenario.learner.spread * math.sqrt(self.scenario.learner.dimension)
        return float(np.sqrt(np.mean((model - other) ** 2))) * (scale if self._optimum is not None else 1.0)

    def end(self) -> None:
        """Nothing counts from now on."""
        self.there = [*self.stage.end(), *self.stage.finished]
        self.seconds = time.time() - self.began

    # ------------------------------------------------------------- in the end

    def run(self) -> Run:
        """All of it. The processes must have ended: what they did after `end` is not counted."""
        now, until = self.stage.stories(), self.began + self.seconds
        disks = [*self.stage.wiped, *now.items()]
        stories = [(lab, story.until(until)) for lab, story in disks]
        labs = {story.me: lab for lab, story in disks if story.me}
        begun, count = self._begun(stories), self.scenario.peers
        there = [(lab, since, to) for lab, since, to, _ in begun]
        here = [sum(to - since for who, since, to in there if who == lab) for lab in range(count)]
        found = spreads(stories, there, self.began)
        versions = [sum(spread.author == lab for spread in found) for lab in range(count)]
        gone = lost({lab: now[lab] for lab in self.there}, [story for _, story in self.stage.wiped])
        sent = bytes_sent(stories, labs, count)
        figures = self._figures(found, sum(sent), sum(here))
        figures |= {"versions_lost": len(gone), **self._waits(stories, until)}
        figures["kills"], figures["kills_at_work"] = len(self.stage.killed), at_work(self.stage.killed, begun, stories)
        boots = [boot for *_, boot in begun]
        figures["boot_seconds"] = round(median(boots), 3) if boots else None
        figures["longest_boot_seconds"] = round(max(boots), 3) if boots else None
        self._complete(stories, found)
        return Run(
            self.scenario, self.seed, figures, self.series, found,
            merged_by(stories, labs, count), 1, versions, sent, [seconds / self.seconds for seconds in here],
            self.happened,
        )  # fmt: skip

    def _waits(self, stories: Sequence[tuple[int, Story]], until: float) -> dict[str, float]:
        """Seconds without a new version, and seconds of those that were not work; the worst lab's."""
        ends = {lab: [to for who, _, to in self.stage.sessions if who == lab] for lab, _ in stories}
        first = min((unix for _, story in stories for _, unix in story.own), default=until)
        return {
            "longest_wait": round(max(longest_wait(story, ends[lab]) for lab, story in stories), 3),
            "held_up": round(max(held_up(story, first, ends[lab]) for lab, story in stories), 3),
        }

    def _begun(self, stories: Sequence[tuple[int, Story]]) -> list[tuple[int, float, float, float]]:
        """(lab, from, to, seconds its process took to begin) of each life: it is present once its ledger says so."""
        lives = [(lab, life) for lab, story in stories for life in story.lives]
        return [
            (int(who), min(begun), to, min(begun) - since)
            for who, since, to in self.stage.sessions
            if (begun := [life for lab, life in lives if lab == who and since <= life < to])
        ]

    def _figures(self, found: Sequence[Spread], sent: float, here: float) -> dict[str, Any]:
        interval = here / len(found) if found else None
        watched = [s.influence[2] for s in found if FROM <= s.at / self.seconds < TO]
        to_99 = median(math.inf if seconds is None else seconds for seconds in watched) if watched else math.inf
        return {
            "scenario": self.scenario.name,
            "seed": self.seed,
            "peers": self.scenario.peers,
            "virtual_seconds": min(self.scenario.seconds, round(self.seconds, 3)),
            "wall_seconds": round(self.seconds, 3),
            "events": None,
            "peak_rss_mib": self.stage.peak_rss_mib and round(self.stage.peak_rss_mib, 1),
            "versions_published": len(found),
            "intervals_to_99": None if interval is None or to_99 == math.inf else to_99 / interval,
            "bytes_per_peer_per_version": sent / len(found) if found else None,
            "distance_to_optimum": None,
            "trace_digest": None,
            **self._in_the_end(),
        }

    def _in_the_end(self) -> dict[str, Any]:
        """The last point of the curves; None where nobody was there."""
        mean, worst = (None if math.isnan(v) else v for v in (self.series.mean[-1], self.series.worst[-1]))
        return {"mean_score": mean, "worst_score": worst} if self._optimum is None else {"distance_to_optimum": mean}

    def _complete(self, stories: Sequence[tuple[int, Story]], found: Sequence[Spread]) -> None:
        """The curves that the ledgers tell."""
        born = {key: at for _, story in stories for key, at in story.arrived.items() if key[0] == story.me}
        ages = [
            (merged.unix - self.began, merged.unix - born[author, part.version])
            for _, story in stories
            for _, merged in story.merges
            for author, part in merged.included.items()
            if author != story.me and (author, part.version) in born
        ]
        before = 0.0
        for at in self.series.times:
            of = [age for when, age in ages if before <= when < at]
            self.series.staleness.append(fmean(of) if of else 0.0)
            self.series.published.append(sum(spread.at <= at for spread in found))
            before = at


def at_work(
    killed: Sequence[tuple[int, float]], begun: Sequence[tuple[int, float, float, float]],
    stories: Sequence[tuple[int, Story]],
) -> int:  # fmt: skip
    """Kills, as (lab, when), that met a lab whose life had begun, and which had not published its final version."""
    return sum(
        any(lab == who and since + boot <= unix <= to for who, since, to, boot in begun)
        and all(unix < story.finished for who, story in stories if who == lab)
        for lab, unix in killed
    )


def bytes_sent(stories: Sequence[tuple[int, Story]], labs: Mapping[str, int], count: int) -> list[float]:
    """By each lab, over all its disks. Of both ends the one that counted more: a kill costs a few seconds' count."""
    sent, received = Counter[tuple[int, int]](), Counter[tuple[int, int]]()
    for lab, story in stories:
        for peer, (came, went) in story.traffic.items():
            if peer in labs:
                sent[lab, labs[peer]] += went
                received[labs[peer], lab] += came
    pairs = sent.keys() | received.keys()
    return [float(sum(max(sent[p], received[p]) for p in pairs if p[0] == lab)) for lab in range(count)]


def _model(folder: Path, name: str) -> NDArray[Any] | None:
    """[parameters] A kept model; None if there is none, or it is being replaced."""
    try:
        tensors = load_file(folder / f"{name}.safetensors")
    except (FileNotFoundError, OSError):
        return None
    return np.concatenate([tensors[n].ravel() for n in sorted(tensors) if tensors[n].dtype == np.float32])


def _sent(folder: Path) -> int:
    """Bytes, as far as its ledger knows yet."""
    with opened(folder) as ledger:
        return sum(sent for _, sent in ledger.traffic().values()) if ledger is not None else 0
