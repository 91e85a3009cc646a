"""A torch module bound to one flat buffer."""

import pytest
import torch
from safetensors.torch import load
from torch import nn

from braintorrent.errors import ConfigError
from braintorrent.weights import Schema, TensorSpec, Weights
from braintorrent.weights.modules import FlatModel


class Mixed(nn.Module):
    """Every kind of tensor at once: tied, 0-d, empty, not contiguous, half precision, transient."""

    def __init__(self):
        super().__init__()
        self.encoder = nn.Linear(4, 4, bias=False)
        self.decoder = nn.Linear(4, 4, bias=False)
        self.decoder.weight = self.encoder.weight
        self.norm = nn.BatchNorm1d(4)
        self.bfloat = nn.Parameter(torch.randn(3, dtype=torch.bfloat16))
        self.sixteen = nn.Parameter(torch.randn(2, 2, dtype=torch.float16), requires_grad=False)
        self.empty = nn.Parameter(torch.zeros(0, 5))
        self.scale = nn.Parameter(torch.tensor(0.5))
        self.turned = nn.Parameter(torch.randn(3, 2).t())
        self.register_buffer("mask", torch.ones(4), persistent=False)

    def forward(self, x):
        return self.norm(self.decoder(torch.relu(self.encoder(x)))) * self.scale * self.mask


@pytest.fixture
def model():
    torch.manual_seed(0)
    return Mixed()


def state(module):
    return {k: v.clone() for k, v in module.state_dict().items()}


def test_the_blob_is_the_state_dict_with_tied_tensors_once(model):
    before = state(model)
    blob = b"".join(FlatModel(model).weights().parts)
    values = load(blob)
    assert set(before) - set(values) == {"decoder.weight"}
    for name, value in values.items():
        assert torch.equal(value, before[name])
        assert value.dtype == before[name].dtype
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())


def test_on_the_cpu_nothing_is_copied(model):
    flat = FlatModel(model)
    parameters = dict(model.named_parameters())
    weights = flat.weights()
    weights.view("encoder.weight")[:] = 3
    assert torch.all(model.decoder.weight == 3)
    assert weights.view("encoder.weight").ctypes.data == model.encoder.weight.data_ptr()
    assert all(parameters[name] is p for name, p in model.named_parameters())  # an optimiser keeps its parameters


def test_training_shows_in_the_buffer(model):
    flat = FlatModel(model)
    optimiser = torch.optim.SGD(model.parameters(), lr=0.1)
    before = flat.weights().digest
    model(torch.randn(8, 4)).square().sum().backward()
    optimiser.step()
    assert flat.weights().digest != before
    assert flat.weights().view("norm.num_batches_tracked") == 1
    for name, value in load(b"".join(flat.weights().parts)).items():
        assert torch.equal(value, model.state_dict()[name])


def test_load_reaches_every_tensor_and_checks_the_schema(model):
    flat = FlatModel(model)
    other = Mixed()
    flat.load(FlatModel(other).weights())
    for name, value in other.state_dict().items():
        assert torch.equal(model.state_dict()[name], value), name
    with pytest.raises(ValueError, match="do not fit"):
        flat.load(Weights(Schema.of([TensorSpec("w", "F32", (1,))])))


def test_a_tensor_the_module_replaced_is_still_read_and_written(model):
    flat = FlatModel(model)
    model.norm.running_mean = torch.full((4,), 2.0)
    model.encoder.weight.data = torch.full((4, 4), 5.0)
    assert (flat.weights().view("norm.running_mean") == 2).all()
    assert (flat.weights().view("encoder.weight") == 5).all()
    merged = flat.weights().copy()
    merged.view("norm.running_mean")[:] = 9
    flat.load(merged)
    assert torch.all(model.norm.running_mean == 9)


def test_personal_tensors_stay(model):
    flat = FlatModel(model, lambda name, role: "personal" if name.startswith("norm.") else role)
    assert not any(spec.name.startswith("norm.") for spec in flat.schema.tensors)
    assert set(flat.personal) == {f"norm.{n}" for n in (
        "weight", "bias", "running_mean", "running_var", "num_batches_tracked",
    )}  # fmt: skip
    other = FlatModel(Mixed(), lambda name, role: "personal" if name.startswith("norm.") else role).weights()
    model.norm.running_mean.fill_(7)
    flat.load(other)
    assert torch.all(model.norm.running_mean == 7)


def test_tensors_that_share_memory_are_tied_even_as_two_parameters():
    module = nn.ModuleDict({"a": nn.Linear(3, 3, bias=False), "b": nn.Linear(3, 3, bias=False)})
    module["b"].weight.data = module["a"].weight.data
    flat = FlatModel(module)
    assert [s.name for s in flat.schema.tensors] == ["a.weight"]
    flat.weights().view("a.weight")[:] = 4
    assert torch.all(module["b"].weight == 4)


def test_a_dtype_that_cannot_travel_names_the_tensor():
    module = nn.Module()
    module.phase = nn.Parameter(torch.zeros(2, dtype=torch.complex64))
    with pytest.raises(ConfigError, match=r"phase.*complex64"):
        FlatModel(module)
    module.magnitude = nn.Parameter(torch.zeros(2))
    assert "phase" in FlatModel(module, lambda name, role: "personal" if name == "phase" else role).personal


def test_a_role_that_does_not_fit_is_refused(model):
    with pytest.raises(ConfigError, match="cannot be counter"):
        FlatModel(model, lambda *_: "counter")
    with pytest.raises(ConfigError, match="communal"):
        FlatModel(model, lambda *_: "communal")


def test_a_model_that_shares_nothing_is_refused(model):
    with pytest.raises(ConfigError, match="nothing to learn together"):
        FlatModel(model, lambda *_: "personal")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an accelerator")
def test_on_an_accelerator_values_are_gathered_and_scattered(model):
    flat = FlatModel(model.cuda())
    before = state(model)
    merged = flat.weights().copy()
    merged.view("encoder.weight")[:] += 1
    flat.load(merged)
    assert torch.equal(model.decoder.weight, before["decoder.weight"] + 1)
    assert model.decoder.weight.is_cuda
