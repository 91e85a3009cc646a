"""The pipeline as configuration: no value of a federation's options is ever evaluated by MONAI."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from braintorrent.errors import ConfigError
from braintorrent.tasks._bundle_files import bundle_files
from braintorrent.tasks._options import Options, make_network
from braintorrent.tasks._pipeline import common_form, instantiate, network, postprocessing


@pytest.mark.parametrize(
    "value", ["$__import__('os').getpid()", "@bundle_root", "%other.json", ["a", {"b": "$1"}], {"_target_": "Compose"}]
)
def test_no_option_is_an_instruction(options: dict[str, Any], value: Any) -> None:
    arguments = {**options["network_args"], "act": value}
    with pytest.raises(ConfigError, match=r"task\.network_args\.act.* code"):
        bundle_files(Options(**options | {"network_args": arguments}))


def test_the_described_network_is_the_agreed_one(options: dict[str, Any]) -> None:
    agreed = Options(**options)
    torch.manual_seed(0)
    ours = make_network(agreed, "task")
    torch.manual_seed(0)
    theirs = instantiate(network(agreed))
    for (name, a), (other, b) in zip(ours.state_dict().items(), theirs.state_dict().items(), strict=True):
        assert name == other
        assert torch.equal(a, b)


def test_labels_are_resampled_as_labels(options: dict[str, Any]) -> None:
    steps = common_form(Options(**options | {"spacing": [1.0, 1.0, 1.0]}), ["image", "label"])
    assert steps[1]["mode"] == ["bilinear", "nearest"]


def test_probabilities_are_resampled_and_labels_are_not(options: dict[str, Any]) -> None:
    """The way back over another voxel size goes by probabilities: labels would have steps."""
    names = [step["_target_"] for step in postprocessing(Options(**options | {"spacing": [1.0, 1.0, 1.0]}))]
    assert names == ["Activationsd", "Invertd", "AsDiscreted"]
    assert [step["_target_"] for step in postprocessing(Options(**options))] == ["AsDiscreted", "Invertd"]
