"""Rules that deal subjects to labs, so that labs differ as the experiment wants. Pure; same seed, same deal.

even    a shuffled deal, every class evenly
size    lab number k of n gets k / (1 + ... + n) of the subjects
label   masks: subjects in order of foreground volume, as many to each lab; classes: each class is shared out by
        a Dirichlet(0.5) draw, as Hsu et al., arXiv:1909.06335 have it, and every lab gets a few of each
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from braintorrent.tasks.layouts import Entry

Rule = Literal["even", "size", "label"]

TEST = 0.25  # of a lab's subjects
VALIDATION = 0.15  # of the rest
FEW = 3  # subjects of a class, or at all: one to train on, one to validate, one to test
CONCENTRATION = 0.5  # of the Dirichlet draw; smaller skews more


@dataclass(frozen=True, slots=True)
class Subject:
    """All cases of one subject, which are in one part. stratum: its class, "" for masks.

    amounts: by label, mL of tissue or number of images; empty where nobody asked for the masks to be read.
    """

    part: str
    entries: tuple[Entry, ...]
    stratum: str = ""
    amounts: tuple[float, ...] = ()

    @property
    def foreground(self) -> float:
        """mL of all labels but the background."""
        return sum(self.amounts[1:])


def deal(subjects: Sequence[Subject], labs: int, by: Rule, seed: int) -> list[list[Subject]]:
    """The subjects of one part to the labs, each to one; shares of classes follow from the seed, not from the part."""
    generator = random.Random(seed)
    shuffled = list(subjects)
    generator.shuffle(shuffled)
    strata = sorted({subject.stratum for subject in shuffled})
    piles = [[subject for subject in shuffled if subject.stratum == stratum] for stratum in strata]
    if by == "even":
        ordered = [subject for pile in piles for subject in pile]
        return [ordered[position::labs] for position in range(labs)]
    if by == "label" and strata == [""]:
        piles = [sorted(shuffled, key=lambda subject: subject.foreground)]
    dealt: list[list[Subject]] = [[] for _ in range(labs)]
    for stratum, pile in zip(strata, piles, strict=True):
        counts = apportion(len(pile), _weights(stratum, labs, by, seed), min(FEW, len(pile) // labs))
        ends = np.cumsum(counts)
        for lab, end, count in zip(dealt, ends, counts, strict=True):
            lab += pile[end - count : end]
    for lab in dealt:
        generator.shuffle(lab)
    return dealt


def apportion(total: int, weights: Sequence[float], least: int) -> list[int]:
    """Whole numbers in proportion to the weights that sum to `total`, none below `least`; least * n <= total."""
    ideal = np.asarray(weights) / np.sum(weights) * total
    counts = np.floor(ideal).astype(int)
    for place in np.argsort(counts - ideal, kind="stable")[: total - counts.sum()]:
        counts[place] += 1
    while counts.min() < least:
        counts[counts.argmin()] += 1
        counts[counts.argmax()] -= 1
    return [int(count) for count in counts]


def with_parts(subjects: Sequence[Subject], parts: Sequence[str]) -> list[tuple[Subject, str]]:
    """A lab's training subjects with the part of each; `parts` are those to deal beside training, of each class alike.

    A class of fewer than three subjects stays in training; where all classes are so small, they are dealt as one.
    """
    sizes = Counter(subject.stratum for subject in subjects)
    small = max(sizes.values(), default=0) < FEW
    found = []
    for stratum in [None] if small else sorted(sizes):
        mine = [subject for subject in subjects if stratum in (None, subject.stratum)]
        enough = len(mine) >= FEW
        test = max(1, round(TEST * len(mine))) if enough and "test" in parts else 0
        validation = max(1, round(VALIDATION * (len(mine) - test))) if enough and "validation" in parts else 0
        names = ["test"] * test + ["validation"] * validation
        names += ["training"] * (len(mine) - len(names))
        found += zip(mine, names, strict=True)
    return found


def _weights(stratum: str, labs: int, by: Rule, seed: int) -> Sequence[float]:
    if by == "size":
        return range(1, labs + 1)
    if stratum == "":
        return [1.0] * labs
    drawn: Sequence[float] = np.random.default_rng([seed, *stratum.encode()]).dirichlet([CONCENTRATION] * labs)
    return drawn
