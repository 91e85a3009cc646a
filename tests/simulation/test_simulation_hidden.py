"""A lab that can only dial out takes full part, and a cut that heals is noticed soon."""

from __future__ import annotations

import pytest

from braintorrent.protocol.policy import Policy, StopRule
from braintorrent.simulation import Link, World

SAME = Policy(ask_every=5.0, ask_deadline=10.0, alone_after=20.0, linger=60.0)


def merged_by(world: World, name: str) -> set[str]:
    """Whose models went directly into merges of a peer."""
    merges = (entry for entry in world.trace.entries if entry[1:3] == (name, "merge"))
    return {author for entry in merges for author, _ in entry[-1]}


@pytest.mark.parametrize("peers", [2, 6])
@pytest.mark.parametrize("loss", [0.0, 0.2])
def test_a_hidden_lab_and_the_others_merge_each_other(peers: int, loss: float) -> None:
    world = World(3, peers, SAME, link=Link(loss=loss))
    hidden, *others = sorted(world.peers)
    world.network.hidden = {hidden}
    world.run(600.0)
    assert merged_by(world, hidden) == set(others)
    for other in others:
        assert hidden in merged_by(world, other)


def test_two_hidden_labs_learn_of_each_other_through_one_that_is_not() -> None:
    world = World(4, 3, SAME)
    first, second, open_to_all = sorted(world.peers)
    world.network.hidden = {first, second}
    world.run(600.0)
    assert merged_by(world, first) == {second, open_to_all}
    assert merged_by(world, second) == {first, open_to_all}


def test_labs_end_together_with_the_same_model_though_one_is_hidden() -> None:
    world = World(5, 4, Policy(ask_every=5.0, alone_after=20.0, linger=120.0, stop=StopRule(versions=4)))
    world.network.hidden = {min(world.peers)}
    world.run(1000.0)
    assert not world.present()
    assert len({peer.model for peer in world.peers.values()}) == 1


def test_a_hidden_lab_costs_no_dialling_beside_a_rare_try() -> None:
    world = World(6, 2, SAME)
    hidden, other = sorted(world.peers)
    world.network.hidden = {hidden}
    world.run(600.0)
    machine = world.peers[other].machine
    assert machine is not None
    assert machine.contacts.of[hidden].calls_only
    before = world.asks
    world.run(1800.0)
    asks_of_hidden = 1200.0 / SAME.ask_every * 1.1 + 1200.0 / 10  # its rounds, and what it says as it publishes
    assert world.asks - before < asks_of_hidden + 1200.0 / SAME.ask_every / 1.5


@pytest.mark.parametrize(("peers", "seconds"), [(2, 60.0), (2, 3000.0), (6, 400.0), (6, 5000.0), (20, 200.0)])
def test_after_a_cut_heals_all_hold_each_others_newest_within_three_asks(peers: int, seconds: float) -> None:
    world = World(7, peers, SAME)
    world.run(120.0)
    world.network.part(sorted(world.peers)[: peers // 2])
    world.run(120.0 + seconds)
    world.network.heal()
    newest = {name: peer.disk.newest for name, peer in world.peers.items()}
    world.run(120.0 + seconds + 3 * SAME.ask_every)
    for holder in world.peers.values():
        assert holder.machine is not None
        for author, version in newest.items():
            if author == holder.name or version is None:
                continue
            held = holder.machine.table.entries[author].held
            assert held is not None
            assert held.version >= version.version, f"{holder.name} lacks {author}"
