"""What a lab would have had alone: its own data, the same start, the same number of steps, nobody to merge with."""

from __future__ import annotations

from collections.abc import Callable

from braintorrent.learning.contract import Learner


def train_alone(
    learner: Learner, versions: int, progress: Callable[[int, int], None] = lambda done, steps: None
) -> None:
    """Train that many versions in a row. progress(steps done, steps of all) after each step."""
    for version in range(versions):

        def stepped(step: int, steps: int, before: int = version) -> None:
            progress(before * steps + step, versions * steps)

        learner.train(lambda: False, stepped)
