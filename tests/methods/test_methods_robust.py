"""The robust methods are the formulas of their papers, bear what they say they bear, and say when they cannot."""

import os

import numpy as np
import pytest

from braintorrent import plugins
from braintorrent.contracts import Candidate
from braintorrent.errors import ConfigError
from braintorrent.learning.merging import merge
from braintorrent.weights import Schema, TensorSpec, Weights

SIZE = 9001  # more than one slice of a sort, and no multiple of anything
SCHEMA = Schema.of([TensorSpec("w", "F64", (SIZE,))])
ROBUST = ["coordinate_median", "trimmed_mean", "krum", "multi_krum", "norm_clipping", "centred_clipping"]
AUTHORS = "bdfhjlnpr"


@pytest.fixture
def merged(tmp_path):
    """merged("krum", own, others, byzantine=2): (W, outcome). own: values [SIZE], None for a newcomer."""
    opened = []

    def merged(name, own, others, **options):
        for values in others:
            weights = Weights(SCHEMA)
            weights.view("w")[:] = values
            path = tmp_path / f"{len(opened)}"
            path.write_bytes(b"".join(weights.parts))
            opened.append(os.open(path, os.O_RDONLY))
        candidates = [Candidate(a, 10, d) for a, d in zip(AUTHORS, opened[-len(others) :], strict=False)]
        mine, out = None, Weights(SCHEMA)
        if own is not None:
            mine = Weights(SCHEMA)
            mine.view("w")[:] = own
        out.view("w")[:] = np.nan
        method = plugins.load("methods", name).create(**options)
        return out.view("w"), merge(method, mine, Candidate("g", 10, -1), candidates, out)

    yield merged
    for descriptor in opened:
        os.close(descriptor)


def models(count, seed=0):
    """Labs near one another: a common model and small differences."""
    random = np.random.default_rng(seed)
    common = random.standard_normal(SIZE)
    return [common + 0.1 * random.standard_normal(SIZE) for _ in range(count)]


@pytest.mark.parametrize("others", [2, 3, 6, 7])
def test_the_median_is_the_median(merged, others):
    own, *rest = models(others + 1)
    found, outcome = merged("coordinate_median", own, rest)
    np.testing.assert_allclose(found, np.median([own, *rest], axis=0), rtol=1e-14, atol=1e-15)
    assert outcome.included == pytest.approx(dict.fromkeys(["g", *AUTHORS[:others]], 1 / (others + 1)))


@pytest.mark.parametrize(("others", "trim", "cut"), [(7, 0.25, 2), (7, 0.3, 3), (2, 0.1, 1), (3, 0.4, 1), (9, 0.2, 2)])
def test_the_trimmed_mean_leaves_out_that_share_at_either_end(merged, others, trim, cut):
    own, *rest = models(others + 1)
    found, _ = merged("trimmed_mean", own, rest, trim=trim)
    kept = np.sort([own, *rest], axis=0)[cut : others + 1 - cut]
    np.testing.assert_allclose(found, kept.mean(0), rtol=1e-13, atol=1e-15)


def scores_of(everyone, byzantine):
    """Krum's scores, in so many words."""
    squares = [[np.sum((a - b) ** 2) for b in everyone] for a in everyone]
    return [sum(sorted(d for j, d in enumerate(row) if j != i)[: len(everyone) - byzantine - 2])
            for i, row in enumerate(squares)]  # fmt: skip


@pytest.mark.parametrize("byzantine", [1, 2])
def test_krum_takes_the_model_nearest_its_neighbours(merged, byzantine):
    own, *rest = models(8)
    rest[2] = rest[2] + 5.0
    found, outcome = merged("krum", own, rest, byzantine=byzantine)
    everyone = dict(sorted({"g": own, **dict(zip(AUTHORS, rest, strict=False))}.items()))
    scores = scores_of(list(everyone.values()), byzantine)
    best = list(everyone)[int(np.argmin(scores))]
    assert outcome.included == {best: 1.0}
    np.testing.assert_array_equal(found, everyone[best])
    assert set(outcome.skipped.values()) == {"method"}
    chosen = merged("multi_krum", own, rest, byzantine=byzantine, keep=3)[1].included
    assert chosen == pytest.approx(dict.fromkeys([list(everyone)[i] for i in np.argsort(scores)[:3]], 1 / 3))


def test_an_update_is_clipped_to_the_radius(merged):
    own, *rest = models(4)
    found, outcome = merged("norm_clipping", own, rest, radius=3.0)
    deltas = [other - own for other in rest]
    expected = own + sum(0.25 * d * min(1, 3.0 / np.linalg.norm(d)) for d in deltas)
    np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-12)
    assert sum(outcome.included.values()) == pytest.approx(1)
    assert outcome.included["g"] > 0.5, "what is clipped stays with the own model"


@pytest.mark.parametrize("iterations", [1, 4])
def test_the_centre_moves_by_clipped_steps(merged, iterations):
    own, *rest = models(5)
    rest[0] = rest[0] - 40.0
    found, _ = merged("centred_clipping", own, rest, radius=12.0, iterations=iterations)
    v = own.copy()
    for _ in range(iterations):
        steps = [x - v for x in [own, *rest]]
        v = v + sum(s * min(1, 12.0 / max(np.linalg.norm(s), 1e-300)) for s in steps) / 5
    np.testing.assert_allclose(found, v, rtol=1e-9, atol=1e-9)


def attacked(honest, seed=9):
    """Two labs of eight: one sends its model turned about and made large, one sends noise a hundred times too large."""
    random = np.random.default_rng(seed)
    return [*honest, -30 * honest[0], 100 * random.standard_normal(SIZE)]


@pytest.mark.parametrize("name", ROBUST)
def test_two_attackers_of_eight_move_it_no_further_than_honest_labs_differ(merged, name):
    options = {"byzantine": 2} if "krum" in name else {}
    own, *honest = models(6)
    centre = np.mean([own, *honest], axis=0)
    reach = max(np.linalg.norm(h - centre) for h in [own, *honest])
    found, _ = merged(name, own, attacked(honest), **options)
    assert np.linalg.norm(found - centre) < 1.5 * reach
    plain, _ = merged("braintorrent", own, attacked(honest))
    assert np.linalg.norm(plain - centre) > 20 * reach


@pytest.mark.parametrize("name", ROBUST)
def test_a_newcomer_is_not_taken_in_by_two_attackers_either(merged, name):
    options = {"byzantine": 2} if "krum" in name else {}
    honest = models(6)
    centre = np.mean(honest, axis=0)
    found, outcome = merged(name, None, attacked(honest), **options)
    assert np.linalg.norm(found - centre) < 1.5 * max(np.linalg.norm(h - centre) for h in honest)
    assert "g" not in outcome.included


@pytest.mark.parametrize("name", ROBUST)
def test_with_too_few_it_says_so(merged, name):
    needs = plugins.load("methods", name).create().needs
    assert needs.everyone
    own, *rest = models(max(needs.candidates, needs.adopting) + 1)
    found, outcome = merged(name, own, rest[: needs.candidates - 1])
    assert set(outcome.skipped.values()) == {"too-few"}
    assert outcome.included == {"g": 1.0}
    np.testing.assert_array_equal(found, own)
    _, outcome = merged(name, None, rest[: needs.adopting - 1])
    assert set(outcome.skipped.values()) == {"too-few"}
    assert not outcome.included
    assert merged(name, own, rest[: needs.candidates])[1].norms.keys() <= set(AUTHORS)
    assert merged(name, None, rest[: needs.adopting])[1].included


def test_models_so_far_off_that_squares_overflow_are_only_far(merged):
    own, *honest = models(6)
    for name in ROBUST:
        options = {"byzantine": 2} if "krum" in name else {}
        found, _ = merged(name, own, [*honest, honest[0] * 1e200, honest[1] * -1e200], **options)
        assert np.linalg.norm(found - own) < 40, name


@pytest.mark.parametrize(("name", "options"), [
    ("krum", {"byzantine": 0}), ("krum", {"byzantine": 1.5}), ("krum", {"keep": 2}), ("multi_krum", {"keep": True}),
    ("trimmed_mean", {"trim": 0.5}), ("trimmed_mean", {"trim": 0}), ("trimmed_mean", {"trim": "much"}),
    ("norm_clipping", {"radius": -1.0}), ("norm_clipping", {"radius": float("nan")}),
    ("centred_clipping", {"iterations": 0}), ("centred_clipping", {"radius": float("inf")}),
])  # fmt: skip
def test_an_impossible_option_is_named(name, options):
    with pytest.raises(ConfigError, match=f"method {name}.*{next(iter(options))}"):
        plugins.load("methods", name).create(**options)
