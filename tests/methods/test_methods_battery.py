"""What every method promises, whichever it is: one battery over each file in methods/."""

import os
from dataclasses import replace

import numpy as np
import pytest

from braintorrent import plugins
from braintorrent.contracts import Candidate
from braintorrent.errors import ConfigError
from braintorrent.learning.merging import merge
from braintorrent.methods import Method
from braintorrent.weights import Role, Schema, TensorSpec, Weights

SPECS = [
    TensorSpec("conv.weight", "F32", (257, 131)), TensorSpec("head.weight", "F64", (1031,)),
    TensorSpec("half", "F16", (515,)), TensorSpec("brain", "BF16", (1025,)), TensorSpec("scale", "F32", ()),
    TensorSpec("nothing", "F32", (0, 3)), TensorSpec("batches", "I64", (), Role.COUNTER),
    TensorSpec("seen", "U8", (9,), Role.COUNTER), TensorSpec("flags", "BOOL", (3,), Role.COUNTER),
]  # fmt: skip
SCHEMA = Schema.of(SPECS)


@pytest.fixture(params=plugins.names("methods"))
def create(request):
    return plugins.load("methods", request.param).create


@pytest.fixture
def method(create):
    return create()


@pytest.fixture
def offer(tmp_path):
    """Makes a candidate of weights, as a blob on disk."""
    descriptors = []

    def offer(author, samples, weights):
        path = tmp_path / f"{len(descriptors)}"
        path.write_bytes(b"".join(weights.parts))
        descriptors.append(os.open(path, os.O_RDONLY))
        return Candidate(author, samples, descriptors[-1], steps=12, seconds=3.0)

    yield offer
    for descriptor in descriptors:
        os.close(descriptor)


def model(seed):
    random = np.random.default_rng(seed)
    weights = Weights(SCHEMA)
    for spec, values in weights:
        if spec.dtype == "BF16":
            values[...] = random.standard_normal(spec.shape).astype(np.float32).view(np.uint32) >> 16
        elif spec.role is Role.SHARED:
            values[...] = random.standard_normal(spec.shape)
        else:
            values[...] = random.integers(0, 2 if spec.dtype == "BOOL" else 100, spec.shape)
    return weights


ME = Candidate("m", 7, -1)
AUTHORS = "azkbycx"


def several(offer, method, weights_of):
    count = max(4, method.needs.candidates, method.needs.adopting)
    return [offer(a, 3 + i, weights_of(i)) for i, a in enumerate(AUTHORS[:count])]


def test_merging_identical_models_is_the_identity_to_the_bit(method, offer):
    own, out = model(0), Weights(SCHEMA)
    own.view("conv.weight")[0, :2] = -0.0, 1e-42
    outcome = merge(method, own, ME, several(offer, method, lambda _: own), out)
    assert out.buffer.tobytes() == own.buffer.tobytes()
    assert set(outcome.skipped.values()) <= {"method"}
    assert all(norm == 0 for norm in outcome.norms.values())


def test_the_order_of_candidates_does_not_matter_to_the_bit(create, offer):
    own, results = model(0), []
    candidates = several(offer, create(), lambda i: model(i + 1))
    for order in (candidates, candidates[::-1], candidates[2:] + candidates[:2]):
        out = Weights(SCHEMA)
        outcome = merge(create(), own, ME, order, out)
        results.append((out.buffer.tobytes(), outcome))
    assert results[0] == results[1] == results[2]


def test_the_merge_moves_and_stays_within_what_went_in(method, offer):
    own, out = model(0), Weights(SCHEMA)
    others = [model(i + 1) for i in range(9)]
    outcome = merge(method, own, ME, several(offer, method, others.__getitem__), out)
    assert out.digest != own.digest
    assert sum(outcome.included.values()) == pytest.approx(1)
    assert outcome.norms.keys() == outcome.included.keys() - {"m"}
    assert all(norm > 0 for norm in outcome.norms.values())
    for name in ("conv.weight", "head.weight"):
        everyone = np.stack([m.view(name) for m in [own, *others]])
        assert np.isfinite(out.view(name)).all()
        assert (out.view(name) <= everyone.max(0) + 1e-5).all()
        assert (out.view(name) >= everyone.min(0) - 1e-5).all()


def test_counters_take_the_maximum(method, offer):
    own, out = model(0), Weights(SCHEMA)
    candidates = several(offer, method, lambda i: model(i + 1))
    included = merge(method, own, ME, candidates, out).included
    models = [own] if "m" in included else []
    models += [model(i + 1) for i, c in enumerate(candidates) if c.author in included]
    for spec in SPECS:
        if spec.role is Role.COUNTER:
            assert (out.view(spec.name) == np.maximum.reduce([m.view(spec.name) for m in models])).all()


def test_zero_peers_is_fine(method):
    own, out = model(0), Weights(SCHEMA)
    outcome = merge(method, own, ME, [], out)
    assert out.digest == own.digest
    assert outcome.included == {"m": 1.0}


def test_a_newcomer_without_peers_takes_nothing(method):
    out = model(0)
    before = out.digest
    outcome = merge(method, None, ME, [], out)
    assert not outcome.included
    assert out.digest == before


def test_a_newcomer_adopts_with_its_own_weight_at_zero(method, offer):
    shared, out = model(1), Weights(SCHEMA)
    outcome = merge(method, None, ME, several(offer, method, lambda _: shared), out)
    assert out.digest == shared.digest
    assert "m" not in outcome.included


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 3e38])
@pytest.mark.parametrize("name", ["conv.weight", "half", "scale"])
def test_a_model_with_a_value_no_model_has_is_skipped_with_a_reason(create, offer, name, value):
    own, bad, out, without = model(0), model(9), Weights(SCHEMA), Weights(SCHEMA)
    with np.errstate(over="ignore"):
        bad.view(name)[(-1,) * bad.view(name).ndim] = value
    good = several(offer, create(), lambda i: model(i + 1))
    outcome = merge(create(), own, ME, [offer("bad", 1000, bad), *good], out)
    assert outcome.skipped["bad"] == "not-finite"
    assert "bad" not in outcome.included
    merge(create(), own, ME, good, without)
    assert out.digest == without.digest


def test_a_wrong_schema_is_refused(create, offer):
    own, out, without = model(0), Weights(SCHEMA), Weights(SCHEMA)
    other = Weights(Schema.of([replace(s, name=s.name.replace("conv", "conf")) for s in SPECS]))
    assert other.schema.size == SCHEMA.size
    smaller = Weights(Schema.of(SPECS[:-1]))
    good = several(offer, create(), lambda i: model(i + 1))
    outcome = merge(create(), own, ME, [offer("p", 1000, other), offer("q", 1000, smaller), *good], out)
    assert {outcome.skipped["p"], outcome.skipped["q"]} == {"schema"}
    merge(create(), own, ME, good, without)
    assert out.digest == without.digest


def test_state_survives_a_restart(create, offer):
    first, second = create(), create()
    candidates = several(offer, first, lambda i: model(i + 1))
    own, out, out_again = model(0), Weights(SCHEMA), Weights(SCHEMA)
    first.merged(merge(first, own, ME, candidates, out))
    second.restore(first.state())
    assert second.state() == first.state()
    merge(first, own, ME, candidates, out)
    merge(second, own, ME, candidates, out_again)
    assert out_again.digest == out.digest


def test_roles_it_gives_are_roles(method):
    assert isinstance(method, Method)
    for spec in SPECS:
        assert method.role(spec.name, spec.role) in set(Role)


def test_an_unknown_option_is_refused_by_name(create):
    with pytest.raises(ConfigError, match="no_such_option"):
        create(no_such_option=1)
