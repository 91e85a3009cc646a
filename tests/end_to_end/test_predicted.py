"""What the simulator says of a scenario, and what real processes do in it."""

from __future__ import annotations

import pytest

from braintorrent.experiments.real_lan import obstacle
from braintorrent.experiments.real_predicted import WITHIN, scenarios, told


@pytest.mark.soak
@pytest.mark.timeout(400)
@pytest.mark.skipif(bool(obstacle()), reason=obstacle() or "possible")
@pytest.mark.parametrize("scenario", scenarios(), ids=lambda scenario: scenario.name)
def test_the_simulator_says_what_real_processes_do(tmp_path, scenario):
    row = told(scenario, tmp_path, seed=0)
    assert all(abs(ratio - 1) <= WITHIN for ratio in row["ratio"].values()), row
