"""Merging blobs: what is refused, what is renormalised, and what the result does not depend on."""

import os

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from braintorrent.contracts import Candidate, Needs
from braintorrent.learning import passes
from braintorrent.learning.merging import merge
from braintorrent.methods import Method
from braintorrent.weights import Role, Schema, TensorSpec, Weights

SCHEMA = Schema.of([
    TensorSpec("a", "F32", (40_007,)), TensorSpec("b", "BF16", (5003,)), TensorSpec("n", "I64", (3,), Role.COUNTER),
])  # fmt: skip
ME = Candidate("me", 10, -1)


def model(seed, scale=1.0):
    random = np.random.default_rng(seed)
    weights = Weights(SCHEMA)
    weights.view("a")[:] = scale * random.standard_normal(40_007)
    weights.view("b")[:] = random.standard_normal(5003).astype(np.float32).view(np.uint32) >> 16
    weights.view("n")[:] = random.integers(0, 9, 3)
    return weights


@pytest.fixture
def offer(tmp_path):
    descriptors = []

    def offer(author, samples, weights):
        path = tmp_path / f"{len(descriptors)}"
        path.write_bytes(b"".join(weights.parts))
        descriptors.append(os.open(path, os.O_RDONLY))
        return Candidate(author, samples, descriptors[-1])

    yield offer
    for descriptor in descriptors:
        os.close(descriptor)


def merged(own, candidates, method=None):
    out = Weights(SCHEMA)
    outcome = merge(method or Method(), own, ME, candidates, out)
    return out, outcome


@settings(deadline=None, max_examples=10, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(threads=st.integers(1, 4), rows=st.sampled_from([1 << 12, 1 << 14, 1 << 20]), peers=st.integers(1, 5))
def test_the_result_depends_neither_on_threads_nor_on_block_size(offer, threads, rows, peers):
    candidates = [offer(f"peer{i}", i + 1, model(i + 1)) for i in range(peers)]
    expected, outcome = merged(model(0), candidates)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(passes, "THREADS", threads)
        patch.setattr(passes, "ROW_BYTES", (1 << 12, rows))
        found, other = merged(model(0), candidates)
    assert found.digest == expected.digest
    assert other.norms == pytest.approx(outcome.norms)


def test_an_own_model_that_diverged_is_skipped_and_the_others_adopted(offer):
    own = model(0)
    own.view("a")[5] = np.nan
    candidates = [offer("x", 1, model(1)), offer("y", 3, model(2))]
    out, outcome = merged(own, candidates)
    assert outcome.skipped == {"me": "not-finite"}
    assert outcome.included == {"x": 0.25, "y": 0.75}
    assert out.digest == merged(None, candidates)[0].digest


def test_large_but_possible_values_are_merged(offer):
    out, outcome = merged(model(0), [offer("x", 10, model(1, scale=1e30))])
    assert outcome.included == {"me": 0.5, "x": 0.5}
    assert np.isfinite(out.view("a")).all()
    assert outcome.norms["x"] == pytest.approx(1e30 * 40_007**0.5, rel=0.02)


def test_opposite_values_beyond_reason_make_no_infinity(offer):
    low, high = model(1), model(2)
    low.view("a")[0], high.view("a")[0] = -3e38, 3e38
    out, outcome = merged(model(0), [offer("x", 10, low), offer("y", 10, high)])
    assert outcome.skipped == {"x": "not-finite", "y": "not-finite"}
    assert out.digest == model(0).digest


def test_many_bad_models_cost_one_more_reading_not_one_each(offer, monkeypatch):
    bad = model(1)
    bad.view("a")[-1] = np.inf
    readings = []
    run = passes.Pass.run
    monkeypatch.setattr(passes.Pass, "run", lambda self: readings.append(1) or run(self))
    candidates = [*(offer(f"bad{i}", 5, bad) for i in range(10)), offer("good", 5, model(2))]
    _, outcome = merged(model(0), candidates)
    assert outcome.included.keys() == {"me", "good"}
    assert len(readings) == 2


def test_memory_stays_small_with_many_peers():
    rows = passes._Rows(256)
    assert 257 * rows.nbytes <= passes.SCRATCH_BYTES


def test_one_s_own_older_model_may_be_adopted_from_others(offer):
    out, outcome = merged(None, [offer("me", 10, model(3))])
    assert outcome.included == {"me": 1.0}
    assert outcome.norms == {}
    assert out.digest == model(3).digest


class Choosy(Method):
    """Wants three others, and never "x"."""

    needs = Needs(candidates=3)

    def weigh(self, own, candidates, measured):
        return super().weigh(own, [c for c in candidates if c.author != "x"], measured)


def test_who_the_method_leaves_out_is_skipped_in_words(offer):
    candidates = [offer(a, 10, model(i)) for i, a in enumerate("xyz")]
    out, outcome = merged(model(9), candidates, Choosy())
    assert outcome.skipped == {"x": "method"}
    assert out.digest == merged(model(9), candidates[1:])[0].digest
    out, outcome = merged(model(9), candidates[1:], Choosy())
    assert outcome.skipped == {"y": "too-few", "z": "too-few"}
    assert outcome.included == {"me": 1.0}
    assert out.digest == model(9).digest


class Alone(Method):
    """Gives its own model no weight at all."""

    def weigh(self, own, candidates, measured):
        return super().weigh(None, candidates, measured)


def test_a_method_may_leave_the_own_model_out(offer):
    candidates = [offer("x", 1, model(1)), offer("z", 3, model(2))]
    out, outcome = merged(model(0), candidates, Alone())
    assert out.digest == merged(None, candidates)[0].digest
    assert outcome.skipped == {"me": "method"}
    assert outcome.norms.keys() == {"x", "z"}


class Unsound(Method):
    """Its weights do not sum to 1."""

    def weigh(self, own, candidates, measured):
        return {c.author: 1.0 for c in candidates}


def test_unsound_weights_are_the_method_s_fault(offer):
    with pytest.raises(ValueError, match="Unsound"):
        merged(model(0), [offer("x", 1, model(1)), offer("y", 1, model(1))], Unsound())


def test_an_author_counts_once(offer):
    once, twice = offer("x", 1, model(1)), offer("x", 1, model(2))
    with pytest.raises(ValueError, match="once"):
        merged(model(0), [once, twice])
    with pytest.raises(ValueError, match="once"):
        merged(model(0), [offer("me", 1, model(1))])


def test_own_memory_is_never_the_target(offer):
    own = model(0)
    with pytest.raises(ValueError, match="two models"):
        merge(Method(), own, ME, [offer("x", 1, model(1))], own)


def test_a_blob_cut_short_is_of_another_schema(offer, tmp_path):
    candidate = offer("x", 1, model(1))
    os.truncate(tmp_path / "0", SCHEMA.size - 1)
    _, outcome = merged(model(0), [candidate])
    assert outcome.skipped == {"x": "schema"}
