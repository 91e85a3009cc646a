"""A lab that can only dial out takes full part, and a cut that heals is noticed soon."""

from __future__ import annotations

import pytest

from braintorrent.protocol.policy import Policy, StopRule
from braintorrent.simulation import World
from braintorrent.simulation.scenario import Happening, Links, Peer, Scenario

POLICY = Policy(ask_every=5.0, ask_deadline=10.0, alone_after=20.0, linger=60.0)
HIDDEN = Peer(nat=True)


def world(peers: int, special: dict[int, Peer] | None = None, **options: object) -> World:
    """A federation whose lab 0 nobody can dial."""
    options = {"policy": POLICY, "special": {0: HIDDEN} if special is None else special, **options}
    return World(Scenario("hidden", "", peers, 1e6, **options), 3)  # type: ignore[arg-type]


def merged(of: World) -> dict[int, set[int]]:
    """Lab -> labs whose models went directly into its merges."""
    merges = [entry for entry in of.trace.entries if entry[2] == "merge"]
    return {
        peer.index: {of.peers[author].index for entry in merges if entry[1] == name for author, _ in entry[-1]}
        for name, peer in of.peers.items()
    }


@pytest.mark.parametrize("peers", [2, 6])
@pytest.mark.parametrize("loss", [0.0, 0.2])
def test_a_hidden_lab_and_the_others_merge_each_other(peers: int, loss: float) -> None:
    everyone = set(range(peers))
    run = world(peers, links=Links(loss=loss)).run(600.0)
    assert merged(run) == {index: everyone - {index} for index in everyone}


def test_two_hidden_labs_learn_of_each_other_through_one_that_is_not() -> None:
    run = world(3, {0: HIDDEN, 1: HIDDEN}).run(600.0)
    assert merged(run) == {0: {1, 2}, 1: {0, 2}, 2: {0, 1}}


def test_a_link_that_works_one_way_is_enough() -> None:
    run = world(2, {0: Peer(closed_to=(1,))}).run(600.0)
    assert merged(run) == {0: {1}, 1: {0}}


def test_a_newcomer_adopts_the_model_of_a_hidden_lab_before_it_trains() -> None:
    policy = Policy(ask_every=5.0, alone_after=60.0)
    run = world(2, policy=policy, happenings=(Happening(100.0, "join", (1,)),)).run(200.0)
    (first, *_) = [entry for entry in run.trace.entries if entry[1] == "lab00001" and entry[2] in ("merge", "publish")]
    assert first[2:4] == ("merge", True)


def test_labs_end_together_with_the_same_model_though_one_is_hidden() -> None:
    policy = Policy(ask_every=5.0, alone_after=20.0, linger=120.0, stop=StopRule(versions=4))
    run = world(4, policy=policy).run(1000.0)
    assert not run.present()
    assert len({peer.ended for peer in run.peers.values()}) == 1


def test_a_hidden_lab_is_dialled_once_in_a_while_and_no_more() -> None:
    run = world(2).run(600.0)
    machine = run.peers["lab00001"].machine
    assert machine is not None
    assert machine.contacts.of["lab00000"].calls_only
    before, seconds = machine.asks, 1800.0
    run.run(600.0 + seconds)
    assert machine.asks - before < seconds / POLICY.max_backoff * 1.2 + 1


@pytest.mark.parametrize(("peers", "seconds"), [(2, 60.0), (2, 3000.0), (6, 400.0), (6, 5000.0), (20, 200.0)])
def test_after_a_cut_heals_all_hold_each_others_newest_within_three_asks(peers: int, seconds: float) -> None:
    half, healed = tuple(range(peers // 2)), 120.0 + seconds
    run = world(peers, {}, happenings=(Happening(120.0, "partition", half, until=healed),)).run(healed)
    newest = {name: peer.disk.newest for name, peer in run.peers.items()}
    run.run(healed + 3 * POLICY.ask_every)
    for holder in run.peers.values():
        assert holder.machine is not None
        for author, version in newest.items():
            if author != holder.name and version is not None:
                held = holder.machine.table.entries[author].held
                assert held is not None
                assert held.version >= version.version, f"{holder.name} lacks {author}"
