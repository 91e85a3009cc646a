"""A researcher's own training loop as a Learner: any object with `weights`, `load`, `train`, `evaluate` and `samples`.

weights() -> name -> torch tensor or numpy array, such as a state_dict; names, shapes and dtypes never change
load(mapping)       takes such weights, as copies of its own
train()             one version; returns nothing, a loss, or {"loss": ..., "steps": ...}
evaluate()          metrics on own validation cases, {} without any
samples             training cases
score               optional: the metric of evaluate() that is better when larger ("score")
state(), restore()  optional: name -> array, what a checkpoint keeps beside the weights, such as the optimiser
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from braintorrent.contracts import Trained
from braintorrent.errors import ConfigError, Diverged
from braintorrent.weights import Role, Schema, TensorSpec, Weights, role_of_dtype
from braintorrent.weights.schema import DTYPES

VERBS = ("weights", "load", "train", "evaluate")
_NAMES = {dtype: name for name, dtype in DTYPES.items() if name != "BF16"}


class LoopLearner:
    """A learning.Learner that is halted between versions only. ConfigError names what the loop lacks or got wrong.

    role_of: (tensor name, role its dtype suggests) -> role, see methods.Method.role; who: how errors call the loop.
    """

    def __init__(self, loop: Any, role_of: Callable[[str, str], str]) -> None:
        self._loop, self._who = loop, type(loop).__name__
        _check(loop, self._who)
        self.score = str(getattr(loop, "score", "score"))
        self._like = self._own()
        self._specs = {name: self._spec(name, value, role_of) for name, value in self._like.items()}
        self.schema = Schema.of(self._specs.values())
        if not self.schema.nbytes:
            raise ConfigError(f"{self._who}.weights() has nothing that travels, so there is nothing to learn together")
        self._weights = Weights(self.schema)

    @property
    def samples(self) -> int:
        """Training cases."""
        return int(self._loop.samples)

    def weights(self) -> Weights:
        """The loop's weights, copied into one buffer that the next call overwrites."""
        own = self._own()
        if own.keys() != self._specs.keys():
            odd = ", ".join(sorted(own.keys() ^ self._specs.keys())[:3])
            raise ConfigError(f"{self._who}.weights() has other names than at first: {odd}")
        for name, value in own.items():
            spec, now = self._specs[name], (_dtype(value), tuple(value.shape))
            if now != (spec.dtype, spec.shape):
                raise ConfigError(
                    f"{self._who}.weights(): {name} is {now[0]} {list(now[1])} now, was {spec.dtype} "
                    f"{list(spec.shape)}; shapes and dtypes must stay as they were agreed"
                )
            if name in self.schema.slots:
                _write(value, self._weights.view(name))
        return self._weights

    def load(self, weights: Weights) -> None:
        """Give the loop these weights, in the kinds, dtypes and on the devices of its own; personal ones stay."""
        if weights is not self._weights:
            self._weights.copy_from(weights)
        views = {name: self._weights.view(name) for name in self.schema.slots}
        personal = self._own() if len(views) < len(self._like) else {}
        self._loop.load({n: _copy(views[n], like) if n in views else personal[n] for n, like in self._like.items()})

    def train(self, halt: Callable[[], bool], progress: Callable[[int, int], None]) -> Trained:
        """One version. Diverged when its loss is not finite."""
        if halt():
            return Trained(0, 0.0, math.nan, complete=False)
        began = time.monotonic()
        said = self._loop.train()
        seconds = time.monotonic() - began
        facts = said if isinstance(said, Mapping) else {} if said is None else {"loss": said}
        loss = float(facts.get("loss", math.nan))
        if "loss" in facts and not math.isfinite(loss):
            raise Diverged(f"training diverged: {self._who}.train() gave loss {loss}; a lower learning rate may help")
        progress(1, 1)
        return Trained(int(facts.get("steps", 1)), seconds, loss)

    def evaluate(self) -> dict[str, float]:
        """The loop's metrics."""
        return {str(name): float(value) for name, value in (self._loop.evaluate() or {}).items()}

    def state(self) -> dict[str, NDArray[Any]]:
        """What the loop wants back beside its weights."""
        if not hasattr(self._loop, "state"):
            return {}
        return {name: _array(value) for name, value in self._loop.state().items()}

    def restore(self, state: Mapping[str, NDArray[Any]]) -> None:
        """Undo `state`."""
        if state:
            self._loop.restore(dict(state))

    def _own(self) -> dict[str, Any]:
        found = self._loop.weights()
        if not isinstance(found, Mapping):
            raise ConfigError(f"{self._who}.weights() gave a {type(found).__name__}; needed: name -> tensor or array")
        for name, value in found.items():
            if not isinstance(value, np.ndarray) and not hasattr(value, "detach"):
                what = f"{self._who}.weights(): {name} is a {type(value).__name__}"
                raise ConfigError(f"{what}; torch tensors and numpy arrays travel")
        return dict(found)

    def _spec(self, name: str, value: Any, role_of: Callable[[str, str], str]) -> TensorSpec:
        dtype = _dtype(value)
        try:
            return TensorSpec(name, dtype, tuple(value.shape), Role(role_of(name, role_of_dtype(dtype))))
        except ValueError as error:
            raise ConfigError(f"{self._who}.weights(): {error}") from None


def _check(loop: Any, who: str) -> None:
    lacking = [f"{verb}()" for verb in VERBS if not callable(getattr(loop, verb, None))]
    if not isinstance(getattr(loop, "samples", None), int | np.integer):
        lacking.append("samples, a whole number of training cases")
    if hasattr(loop, "state") != hasattr(loop, "restore"):
        lacking.append("restore()" if hasattr(loop, "state") else "state()")
    if lacking:
        raise ConfigError(f"{who} is no learner yet, it lacks: {', '.join(lacking)}")


def _dtype(value: Any) -> str:
    if isinstance(value, np.ndarray):
        return _NAMES.get(value.dtype, str(value.dtype))
    from braintorrent.weights.modules import TORCH_DTYPES

    return TORCH_DTYPES.get(value.dtype, str(value.dtype))


def _write(value: Any, view: NDArray[Any]) -> None:
    if isinstance(value, np.ndarray):
        np.copyto(view, value)
    else:
        import torch

        torch.from_numpy(view).view(value.dtype).copy_(value.detach())


def _copy(view: NDArray[Any], like: Any) -> Any:
    if isinstance(like, np.ndarray):
        return view.copy()
    import torch

    return torch.from_numpy(view).view(like.dtype).to(like.device, copy=True)


def _array(value: Any) -> NDArray[Any]:
    return np.array(value.detach().cpu().numpy() if hasattr(value, "detach") else value)
