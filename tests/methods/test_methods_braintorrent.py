"""Plain BrainTorrent is the equation of the paper."""

import os

import numpy as np
import pytest

from braintorrent import plugins
from braintorrent.contracts import Candidate
from braintorrent.learning.merging import merge
from braintorrent.weights import Schema, TensorSpec, Weights


def test_the_merge_is_the_sample_weighted_mean(tmp_path):
    schema = Schema.of([TensorSpec("w", "F64", (1000,))])
    models, samples = [], [20, 5, 12, 1]
    for seed in range(4):
        models.append(Weights(schema))
        models[-1].view("w")[:] = np.random.default_rng(seed).standard_normal(1000)
    candidates = []
    for i in range(1, 4):
        path = tmp_path / f"{i}"
        path.write_bytes(b"".join(models[i].parts))
        candidates.append(Candidate(f"peer{i}", samples[i], os.open(path, os.O_RDONLY)))
    out = Weights(schema)
    method = plugins.load("methods", "braintorrent").create()
    outcome = merge(method, models[0], Candidate("me", samples[0], -1), candidates, out)
    for candidate in candidates:
        os.close(candidate.descriptor)
    expected = sum(a * m.view("w") for a, m in zip(samples, models, strict=True)) / sum(samples)
    np.testing.assert_allclose(out.view("w"), expected, rtol=1e-12, atol=1e-14)
    assert outcome.included == {"me": 20 / 38, "peer1": 5 / 38, "peer2": 12 / 38, "peer3": 1 / 38}
    for i in range(1, 4):
        norm = np.linalg.norm(models[i].view("w") - models[0].view("w"))
        assert outcome.norms[f"peer{i}"] == pytest.approx(norm)
