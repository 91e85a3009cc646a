"""Gates: what is too far off or too bad here, what share one lab may have, and that the learner is left as it was."""

import math
import os

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from braintorrent.contracts import Candidate
from braintorrent.learning.gating import RECENT, SEEN, Norms, scores_here, worse
from braintorrent.learning.merging import Bounds, capped, merge
from braintorrent.methods import Method
from braintorrent.tasks.standin import open_learner
from braintorrent.weights import Weights


@pytest.fixture
def learner(tmp_path):
    options = {"kind": "standin", "size": 500, "steps": 4, "rate": 0.5}
    return open_learner(options, tmp_path, 0, 7, "federation.toml")


@pytest.fixture
def offer(tmp_path, learner):
    """offer("x", values): a candidate whose parameters are these."""
    opened = []

    def offer(author, values, samples=10):
        weights = learner.weights().copy()
        weights.view("parameters")[:] = values
        path = tmp_path / f"{len(opened)}"
        path.write_bytes(b"".join(weights.parts))
        opened.append(os.open(path, os.O_RDONLY))
        return Candidate(author, samples, opened[-1])

    yield offer
    for descriptor in opened:
        os.close(descriptor)


def test_what_is_too_large_follows_from_what_was_accepted_of_late():
    norms, who = Norms(10.0), {"a", "b", "c"}
    norms.accepted({"a": 1.0, "b": 1.0})
    norms.accepted({"a": 1.0, "b": 1.0, "c": 0.0})
    assert norms.most(who) == math.inf, "too few seen; a model that is here already says nothing"
    norms.accepted({"c": 3.0})
    assert norms.most(who) == 10.0
    for _ in range(2 * RECENT):
        norms.accepted({"a": 5.0, "c": 6.0})
    assert norms.most(who) == 50.0
    assert norms.most({"c"}) == 10.0, "one alone: never more than at first"
    assert norms.most(()) == 10.0
    before = [{"a": 1.0}] * SEEN
    assert Norms(0.0, before).most(who) == math.inf, "switched off"
    assert Norms(2.0, before).most(who) == 2.0, "as before the restart"


def walked(norms, honest, hostile, times=1):
    """The bound after hostile labs sent all that it allows, over and over, `times` as often as honest ones."""
    who = {*honest, *hostile}
    for _ in range(300):
        norms.accepted(dict.fromkeys(honest, 1.0))
        for _ in range(times):
            norms.accepted(dict.fromkeys(hostile, 0.99 * norms.most(who)))
    return norms.most(who)


@pytest.mark.parametrize(("honest", "hostile"), [("", "x"), ("a", "x"), ("ab", "x"), ("abc", "xy"), ("abcd", "xyz")])
def test_the_bound_is_not_walked_up_by_fewer_than_half(honest, hostile):
    before = [dict.fromkeys([*honest, *hostile], 1.0)] * SEEN
    assert walked(Norms(10.0, before), honest, hostile) == pytest.approx(10.0)
    assert walked(Norms(10.0, before), honest, hostile, times=8) == pytest.approx(10.0), "who publishes more often"


def test_nobody_lowers_the_bound_to_keep_others_out():
    for honest in ("a", "ab", "abc"):
        norms = Norms(10.0, [dict.fromkeys([*honest, "x"], 1.0)] * SEEN)
        for _ in range(RECENT):
            norms.accepted({"x": 1e-9, **dict.fromkeys(honest, 1.0)})
        assert norms.most({*honest, "x"}) == 10.0


def test_a_lab_s_former_keys_have_no_voice():
    norms = Norms(10.0, [dict.fromkeys("abc", 1.0)] * SEEN)
    for key in range(20):
        norms.accepted({f"x{key}": 9.0})
    assert norms.most({"a", "b", "c", "x19"}) == 10.0


def test_an_update_beyond_the_bound_is_left_out_and_the_others_merged(learner, offer):
    own = learner.weights().copy()
    near, far = own.view("parameters") + 0.1, own.view("parameters") + 50.0
    candidates = [offer("a", near), offer("b", far), offer("c", near - 0.2)]
    me, out, without = Candidate("m", 10, -1), Weights(learner.schema), Weights(learner.schema)
    outcome = merge(Method(), own, me, candidates, out, Bounds(norm=20.0))
    assert outcome.skipped == {"b": "norm"}
    assert outcome.included == pytest.approx(dict.fromkeys("acm", 1 / 3))
    merge(Method(), own, me, [candidates[0], candidates[2]], without)
    assert out.digest == without.digest
    outcome = merge(Method(), own, me, [candidates[1]], out, Bounds(norm=20.0))
    assert outcome.included == {"m": 1.0}
    assert out.digest == own.digest


def test_inflated_sample_counts_buy_no_more_than_the_largest_share(learner, offer):
    own = learner.weights().copy()
    values = own.view("parameters")
    candidates = [offer("liar", values + 1, 10**9), offer("x", values + 2, 20), offer("y", values + 3, 10)]
    outcome = merge(Method(), own, Candidate("m", 10, -1), candidates, Weights(learner.schema), Bounds(share=0.4))
    assert outcome.included == pytest.approx({"liar": 0.4, "x": 0.3, "y": 0.15, "m": 0.15})


SHARES = st.lists(st.floats(0, 1), min_size=1, max_size=9).filter(lambda w: sum(w) > 1e-3)


@example(raw=[0.0, 1.0, 0.5, 5e-324], cap=0.25, newcomer=False)
@given(raw=SHARES, cap=st.floats(0.01, 1), newcomer=st.booleans())
def test_no_other_weighs_more_than_its_share(raw, cap, newcomer):
    weights = {str(i): w / sum(raw) for i, w in enumerate(raw)}
    found = capped(weights, None if newcomer else "0", cap)
    assert sum(found.values()) == pytest.approx(1)
    assert min(found.values()) >= 0
    others = {a: w for a, w in found.items() if newcomer or a != "0"}
    if newcomer and cap * len(raw) < 1:
        cap = 1  # too few for the cap: nobody of them is one's own
    assert all(w <= cap * (1 + 1e-6) for w in others.values())


def test_a_share_that_one_model_has_alone_is_divided_with_one_s_own():
    assert capped({"x": 1.0}, "me", 0.6) == pytest.approx({"x": 0.6, "me": 0.4})
    assert capped({"x": 1.0}, None, 0.6) == {"x": 1.0}


def test_models_are_scored_here_and_the_learner_is_left_as_it_was(learner, offer, tmp_path):
    learner.train(lambda: False, lambda step, steps: None)
    before, own, done = learner.weights().digest, learner.evaluate()["score"], learner.state()
    values = learner.weights().view("parameters").copy()
    nan = values.copy()
    nan[3] = np.nan
    candidates = [offer("same", values), offer("flipped", -values), offer("nan", nan)]
    (tmp_path / "odd").write_bytes(b"no model")
    with (tmp_path / "odd").open("rb") as odd:
        found = scores_here(learner, [*candidates, Candidate("odd", 1, odd.fileno())], Weights(learner.schema))
    assert found.keys() == {"same", "flipped"}, "the others have no score: the merge refuses them"
    assert found["same"] == pytest.approx(own)
    assert not worse(found["same"], own, 0.1)
    assert worse(found["flipped"], own, 0.1)
    assert worse(math.nan, own, 0.1)
    assert learner.weights().digest == before
    assert {name: value.item() for name, value in learner.state().items()} == {n: v.item() for n, v in done.items()}
