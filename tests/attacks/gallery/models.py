"""What is served: weights, headers and records that are not what was announced, or that do harm."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from functools import partial

import numpy as np

from braintorrent.records import Artifact, Record, digest, encode_record
from braintorrent.records.canonical import pack
from braintorrent.records.content import CHUNK_BYTES, chunk_digests
from gallery import Answers, attack
from gallery.mallory import Mallory
from gallery.scene import TASK, until

SIZE = TASK["size"]


async def refused(mallory: Mallory, reason: str, **hooks: object) -> None:
    """Serve what was offered until the victim has refused the last of it for this reason."""
    version = str(mallory.offers[-1].version)
    async with mallory.serving(**hooks):
        got = await until(lambda: mallory.scene.entry(mallory.id)["refused"].get(version), 15)
        assert got, (mallory.calls[-5:], mallory.scene.entry(mallory.id))
    assert mallory.scene.entry(mallory.id)["refused"][version].startswith(reason)


def headed(mallory: Mallory, header: bytes) -> bytes:
    """A blob of the agreed size whose safetensors header is another one."""
    honest = mallory.weights()
    return header + honest[len(header) :]


def header(mallory: Mallory, change: Callable[[dict], None]) -> bytes:
    """The honest header, changed, in its own length as far as that goes."""
    own = mallory.scene.lab.learner.schema.header
    table = json.loads(own[8:])
    change(table)
    text = json.dumps(table, separators=(",", ":")).encode()
    return struct.pack("<Q", len(text)) + text


@attack("announces weights of another shape", named="refused: .*schema")
async def another_schema(mallory: Mallory) -> Answers:
    mallory.offer(mallory.weights(), schema="0" * 64)
    return await refused(mallory, "schema")


@attack("claims a header of 2^63 bytes in a safetensors file, and of none", named="refused: .*schema")
async def bomb_sizes_in_safetensors(mallory: Mallory) -> Answers:
    for counter, length in enumerate((2**63, 2**64 - 1, 0, 1 << 40), 1):
        mallory.offer(headed(mallory, struct.pack("<Q", length)), counter)
    return await refused(mallory, "schema")


@attack("lets two tensors of a safetensors file overlap", named="refused: .*schema")
async def overlapping_offsets(mallory: Mallory) -> Answers:
    def change(table: dict) -> None:
        table["steps"]["data_offsets"] = table["parameters"]["data_offsets"]

    mallory.offer(headed(mallory, header(mallory, change)))
    return await refused(mallory, "schema")


def _moved(table: dict, offsets: list[int]) -> None:
    table["steps"]["data_offsets"] = offsets


@attack("points a tensor before the start of its file, and far past its end", named="refused: .*schema")
async def negative_offsets(mallory: Mallory) -> Answers:
    for counter, offsets in enumerate(([-8, 0], [2**62, 2**62 + 8], [16, 8]), 1):
        change = partial(_moved, offsets=offsets)
        mallory.offer(headed(mallory, header(mallory, change)), counter)
    return await refused(mallory, "schema")


@attack("publishes weights that are not a number", named="refused: .*not-finite")
async def nan_weights(mallory: Mallory) -> Answers:
    mallory.offer(mallory.weights(lambda x: x[7:8].fill(np.nan)))
    return await refused(mallory, "not-finite")


@attack("publishes weights that are infinite, or so large that a sum of them is", named="refused: .*not-finite")
async def infinite_weights(mallory: Mallory) -> Answers:
    mallory.offer(mallory.weights(lambda x: x[-1:].fill(-np.inf)))
    mallory.offer(mallory.weights(lambda x: x.fill(3e38)), 2)
    return await refused(mallory, "not-finite")


@attack("announces a record that is no record", named="refused: .*record")
async def garbage_record(mallory: Mallory) -> Answers:
    mallory.offer(mallory.weights(), record=b"\xdd\x7f\xff\xff\xff" + b"\0" * 50)
    return await refused(mallory, "record")


@attack("claims in its record a blob of 32 GiB", named="refused: .*record")
async def record_of_a_giant(mallory: Mallory) -> Answers:
    size = 32 << 30
    chunks = ("0" * 64,) * (size // CHUNK_BYTES)
    artifact = [["weights", "safetensors", size, "1" * 64, list(chunks)]]
    mallory.offer(mallory.weights(), record=pack([1, [], artifact, []]))
    return await refused(mallory, "record")


@attack("lists in its record chunks of other bytes than it announced", named="refused: .*record")
async def record_of_other_bytes(mallory: Mallory) -> Answers:
    other = mallory.weights(lambda x: x.fill(2))
    artifact = Artifact(
        kind="weights", codec="safetensors", size=len(other), digest=digest(other), chunks=tuple(chunk_digests([other]))
    )
    mallory.offer(mallory.weights(), record=encode_record(Record(parents=(), artifacts=(artifact,), metrics=())))
    return await refused(mallory, "record")


@attack("serves other bytes than it announced, in one chunk of the blob", named="from m.*(digest|chunk)")
async def wrong_chunk_bytes(mallory: Mallory) -> Answers:
    blob = mallory.weights()
    announced = mallory.offer(blob)
    mallory.blobs[announced.content] = blob[:-50] + b"\1" * 50
    return await noted(mallory)


@attack("serves other bytes than it announced for the record", named="from m.*digest")
async def wrong_record_bytes(mallory: Mallory) -> Answers:
    announced = mallory.offer(mallory.weights())
    mallory.blobs[announced.record] = b"\0" * len(mallory.blobs[announced.record])
    return await noted(mallory)


@attack("offers a blob of another size than its record says", named="from m.*size")
async def another_size(mallory: Mallory) -> Answers:
    announced = mallory.offer(mallory.weights())
    mallory.blobs[announced.content] += b"\0" * 1000
    return await noted(mallory)


@attack("announces blobs and has none of them", named="404|no such blob|gone")
async def empty_promises(mallory: Mallory) -> Answers:
    for counter in range(1, 20):
        mallory.offer(mallory.weights(), counter)
    mallory.blobs.clear()
    async with mallory.serving():
        assert await mallory.called(3, "blobs")
    return None


async def noted(mallory: Mallory) -> None:
    """Serve until the victim has written down what is wrong with the bytes."""
    async with mallory.serving():
        name = f"from {mallory.name}"
        assert await until(lambda: name in mallory.scene.status()["notes"], 15), mallory.calls


async def skipped_or_bounded(mallory: Mallory, seconds: float = 15.0) -> None:
    """Serve until the victim has merged the model, within bounds that the test checks, or refused it."""
    async with mallory.serving():
        entry = lambda: mallory.scene.entry(mallory.id)  # noqa: E731
        assert await until(lambda: entry()["merged"] or entry()["refused"], seconds), (mallory.calls, entry())


async def honest(mallory: Mallory) -> np.ndarray:
    """The victim's own newest parameters: what would pass any gate."""
    return (await mallory.scene.model())[1]


def setting(values: np.ndarray) -> Callable[[np.ndarray], None]:
    """A change that puts these values in."""
    return lambda x: x.__setitem__(slice(None), values)


@attack("sends an update scaled a thousandfold, to outweigh all others", named="refused: .*(norm|validation)")
async def scaled_update(mallory: Mallory) -> Answers:
    own, start = await honest(mallory), mallory.scene.lab.learner.weights().view("parameters")
    mallory.offer(mallory.weights(setting(start + 1000 * (own - start))))
    return await refused_for(mallory, ("norm", "validation"))


@attack("sends the update with its sign flipped", named="refused: .*validation")
async def sign_flipped_update(mallory: Mallory) -> Answers:
    mallory.offer(mallory.weights(setting(-await honest(mallory))))
    return await refused_for(mallory, ("validation",))


@attack("sends noise of the size of a model", named="refused: .*validation")
async def noise_for_a_model(mallory: Mallory) -> Answers:
    mallory.offer(mallory.weights(setting(2 * np.random.default_rng(0).standard_normal(SIZE, np.float32))))
    return await refused_for(mallory, ("validation",))


@attack("sends denormal numbers, on which processors are slow", named="(merged|refused): ", share=0.5)
async def denormal_weights(mallory: Mallory) -> Answers:
    mallory.offer(mallory.weights(setting(np.full(SIZE, 1e-42, np.float32))))
    return await skipped_or_bounded(mallory)


@attack("claims a thousand milliard training cases, to weigh as much", named="merged: 1", share=0.5)
async def inflated_sample_counts(mallory: Mallory) -> Answers:
    own = await honest(mallory)
    mallory.offer(mallory.weights(setting(own * np.float32(0.999))), samples=10**12)
    await skipped_or_bounded(mallory)
    assert await until(lambda: mallory.scene.merged().get(mallory.id)), "an honest model with a false count is merged"
    return None


@attack(
    "sends a sound model and claims to be its only author: the neighbour's own bytes",
    named="(merged|refused): ",
    share=0.5,
)
async def anothers_model_under_its_own_name(mallory: Mallory) -> Answers:
    own = await honest(mallory)
    mallory.offer(mallory.weights(setting(own)))
    return await skipped_or_bounded(mallory)


async def refused_for(mallory: Mallory, reasons: tuple[str, ...]) -> None:
    """Serve what was offered until the victim has refused it for one of these reasons."""
    async with mallory.serving():
        entry = mallory.scene.entry
        assert await until(lambda: set(entry(mallory.id)["refused"].values()) & set(reasons), 15), entry(mallory.id)
