"""Two labs that cannot learn together: each is told why from where it stands, in words it can act on."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from braintorrent.config import DIGESTED, Federation, agreement
from braintorrent.network import limits
from braintorrent.network.wire import Hello, decode_hello, encode_hello
from braintorrent.node.agreeing import HINT, difference, objection
from braintorrent.protocol.messages import common

TASK = {
    "kind": "segmentation", "labels": ["background", "anterior", "posterior"], "channels": 1, "modality": ["MRI"],
    "spacing": [1.0, 1.0, 2.5], "network": "UNet", "network_args": {"channels": [16, 32], "strides": [2]},
    "patch": [40, 56, 40], "lr": 0.001,
}  # fmt: skip
MEANWHILE = "until then models pass between the two through labs that speak both"
FACTS = {"start.weights": "a" * 64, "task.schema": "b" * 64}


def agreed(facts: dict[str, str] | None = None, **task: Any) -> dict[str, str]:
    whole = {key: value for key, value in (TASK | task).items() if value is not None}
    return agreement(Federation(format=1, id="federation-x", task=whole), FACTS | (facts or {}))


def hello(name: str, **task: Any) -> Hello:
    return Hello(name, "federation-x", agreement=agreed(**task), clock_ms=1_700_000_000_000)


def test_short_values_can_be_read_long_ones_are_digests():
    made = agreed(note="é" * 11, long="x" * 80, empty=[], many=list(range(65)), nested=[[1, 2], [3]], none={})
    assert made["task.labels.2"] == '"posterior"'
    assert made["task.spacing.2"] == "2.5"
    assert made["task.network_args.channels.1"] == "32"
    assert (made["task.empty"], made["task.none"], made["task.nested"]) == ("[]", "{}", "[[1, 2], [3]]")
    for key in ("task.note", "task.long", "task.many", "start.weights", "task.schema"):
        assert made[key].startswith(DIGESTED)
        assert len(made[key]) == len(DIGESTED) + 16
    sent = Hello("lab", "federation-x", agreement=made)
    assert decode_hello(encode_hello(sent)).agreement == made


def test_a_fact_stands_for_the_configured_value_and_all_below_it():
    made = agreed({"task.bundle": "pinned", "task.labels": "three"}, bundle="/home/me/private/bundle")
    assert made["task.bundle"] == '"pinned"'
    assert made["task.labels"] == '"three"'
    assert not any(key.startswith("task.labels.") for key in made)
    assert "private" not in json.dumps(made)


@pytest.mark.parametrize(
    ("theirs", "here", "there"),
    [
        (
            {"labels": ["background", "anterior", "tail"]},
            "lab-b maps 2 to tail, this lab to posterior", "lab-a maps 2 to posterior, this lab to tail",
        ),
        (
            {"labels": ["background", "anterior"]},
            "lab-b has no label 2, this lab maps it to posterior", "lab-a maps 2 to posterior, this lab has no label 2",
        ),
        ({"channels": 2}, "the number of channels is 2 there, 1 here", "the number of channels is 1 there, 2 here"),
        ({"modality": ["T1", "T2"]}, "the modality is [T1, T2] there, [MRI] here",
         "the modality is [MRI] there, [T1, T2] here"),
        ({"spacing": None}, "the voxel spacing is as stored there, 1.0 x 1.0 x 2.5 mm here",
         "the voxel spacing is 1.0 x 1.0 x 2.5 mm there, as stored here"),
        ({"network": "SegResNet"}, "the network is SegResNet there, UNet here",
         "the network is UNet there, SegResNet here"),
        ({"network_args": {"channels": [16, 64], "strides": [2]}},
         "task.network_args.channels is [16, 64] there, [16, 32] here",
         "task.network_args.channels is [16, 32] there, [16, 64] here"),
        ({"lr": 0.002}, "task.lr is 0.002 there, 0.001 here", "task.lr is 0.001 there, 0.002 here"),
        ({"lr": None}, "task.lr is not set there, 0.001 here", "task.lr is 0.001 there, not set here"),
        ({"labels": [f"l{n}" for n in range(99)]}, "the list of labels differs", "the list of labels differs"),
        ({"facts": {"task.schema": "c" * 64, "start.weights": "d" * 64}},
         "the networks differ in shape (the same arguments, so another release of MONAI or of the task)",
         "the networks differ in shape (the same arguments, so another release of MONAI or of the task)"),
        ({"facts": {"start.weights": "d" * 64}},
         "the initial weights differ (another file, or torch versions that draw other numbers)",
         "the initial weights differ (another file, or torch versions that draw other numbers)"),
    ],
)  # fmt: skip
def test_a_difference_in_words_from_either_side(theirs, here, there):
    a, b = hello("lab-a"), hello("lab-b", **theirs)
    for mine, other, words in ((a, b, here), (b, a, there)):
        found = objection(mine, other, other.name)
        assert found is not None
        assert (found.reason, found.detail) == ("agreement", words + HINT)


def test_three_in_words_the_weightiest_first_and_the_rest_by_key():
    mine = agreed()
    theirs = agreed(
        {"task.schema": "c" * 64}, lr=0.01, patch=[8, 8, 8], network="SegResNet", channels=4,
        labels=["background", "anterior", "tail"],
    )  # fmt: skip
    assert difference(mine, theirs, "lab-b") == (
        "lab-b maps 2 to tail, this lab to posterior; the number of channels is 4 there, 1 here; "
        "the network is SegResNet there, UNet here; also task.lr, task.patch, task.schema" + HINT
    )


def test_labels_are_counted_as_people_do():
    mine, theirs = ([f"{side} {n}" for n in range(12)] for side in ("left", "right"))
    said = difference(agreed(labels=mine), agreed(labels=theirs), "lab-b")
    assert said.index("maps 2 ") > said.index("maps 1 ")
    assert "also task.labels.3, task.labels.4" in said


def test_the_longest_difference_fits_and_stays_printable():
    odd = ["\x1b[31m", "\u202e", "[red]", " tail", 'a"b', "\ud800", ""]
    theirs = agreed(labels=odd, **{"x" * 100 + str(n): "y" * 60 for n in range(50)})
    said = difference(agreed(), theirs, "n" * 64)
    assert len(said) <= limits.DETAIL_CHARS
    assert said.endswith(HINT)
    assert said.isprintable()
    assert 'maps 0 to "\\u001b[31m", this lab to background' in said, "odd text stays escaped"
    assert 'maps 1 to "\\u202e"' in said


def test_whatever_a_hello_may_carry_is_put_into_words():
    strange = {
        "task.labels.0": "[" * 64,
        "task.labels.99999": "NaN",
        "task.labels": "{",
        "task.spacing.0": '"',
        "~": "9" * 64,
    }
    sent = decode_hello(encode_hello(Hello("lab-b", "federation-x", agreement=strange)))
    for mine, theirs in ((agreed(), sent.agreement), (sent.agreement, agreed())):
        said = difference(mine, theirs, "lab-b")
        assert said.isprintable()
        assert len(said) <= limits.DETAIL_CHARS


def test_other_objections_have_two_sides_as_well():
    a, b = hello("lab-a"), hello("lab-b")
    assert objection(a, b, "lab-b") is None
    for other, reason, here, there in (
        (replace(b, federation="federation-y"), "federation", "lab-b is in federation-y, this lab in federation-x",
         "lab-a is in federation-x, this lab in federation-y"),
        (replace(b, clock_ms=b.clock_ms + 7_200_000), "clock", "the clock of lab-b is 2.0 hours ahead of this lab's",
         "the clock of lab-a is 2.0 hours behind this lab's"),
        (replace(b, protocols=(2, 3)), "protocol",
         f"lab-b speaks protocols 2 to 3, this lab protocol 1: update braintorrent here; {MEANWHILE}",
         f"lab-a speaks protocol 1, this lab protocols 2 to 3: update braintorrent at lab-a; {MEANWHILE}"),
        (replace(b, codecs=("int8",)), "protocol", "lab-b reads weights as int8; both labs must read safetensors",
         "lab-a reads weights as safetensors; both labs must read safetensors"),
    ):  # fmt: skip
        for mine, theirs, words in ((a, other, here), (other, a, there)):
            found = objection(mine, theirs, theirs.name)
            assert found is not None
            assert (found.reason, found.detail) == (reason, words)


@pytest.mark.parametrize(
    ("mine", "theirs", "found"),
    [((1, 1), (1, 1), 1), ((1, 1), (1, 2), 1), ((1, 3), (2, 5), 3), ((1, 1), (2, 2), None), ((1, 2), (3, 4), None)],
)
def test_two_labs_speak_the_highest_protocol_that_both_know(mine, theirs, found):
    assert common(mine, theirs) == common(theirs, mine) == found
    a, b = replace(hello("lab-a"), protocols=mine), replace(hello("lab-b"), protocols=theirs)
    assert (objection(a, b, "lab-b") is None) == (found is not None)
