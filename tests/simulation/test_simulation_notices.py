"""Word of labs among many peers in virtual time, under loss and with few asks."""

from __future__ import annotations

from dataclasses import replace

import pytest

from braintorrent.protocol.notices import Introduction, Notices, Proof
from braintorrent.protocol.policy import Policy
from braintorrent.simulation import World
from braintorrent.simulation.scenario import Links, Scenario


def world(peers: int = 50) -> World:
    """Everybody asks 2 others each 10 seconds, every fourth message is lost, and all there is to hear is notices."""
    policy = Policy(fanout=2, ask_every=10.0, mean_interval=1e6, max_backoff=60.0)
    scenario = Scenario("notices", "", peers, 1000.0, policy, links=Links(loss=0.25), speed=(2 / 3, 2.0))
    return World(scenario, 5).run(60.0)


def held(peer) -> Notices:
    assert peer.machine is not None
    return peer.machine.notices


@pytest.mark.parametrize("count", [1, 60])
def test_what_one_says_all_come_to_hold(count: int) -> None:
    made = world()
    first = made.peers["lab00000"]
    for n in range(count):
        raw = f"introduction {n}".encode()
        first.machine.noticed(Introduction(made.federation, first.name, f"new-{n}", f"new-{n}", (), n, raw))
    seconds = 0
    while len({held(peer).digest for peer in made.peers.values()}) > 1:
        seconds += 10
        made.run(60.0 + seconds)
        assert seconds < 600
    assert {len(list(held(peer))) for peer in made.peers.values()} == {count}
    assert seconds <= (100 if count == 1 else 300)


def test_one_proof_quarantines_a_life_everywhere() -> None:
    made = world()
    made.run(100.0)
    liar, witness = made.peers["lab00001"], made.peers["lab00002"]
    newest = liar.disk.newest
    assert newest is not None
    other = replace(newest, content="f" * 64)
    witness.machine.heard(Proof(newest, other, b"proof"), "nobody", made.clock.now)
    made.run(300.0)
    for peer in made.peers.values():
        if peer is not liar:
            entry = peer.machine.table.entries[liar.name]
            assert entry.quarantined == {newest.version.incarnation}
            assert entry.held is None
    assert len({q.first.author for q in made.equivocations}) == 1
