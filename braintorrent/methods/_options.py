"""[method.options] of the methods here: an unknown or impossible one is refused by name."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from braintorrent.errors import ConfigError


def none_but(method: str, unknown: Mapping[str, Any], *known: str) -> None:
    """ConfigError if any option is left over."""
    if unknown:
        there = f"there are: {', '.join(known)}" if known else "it has none"
        raise ConfigError(f"method {method} has no option {', '.join(sorted(unknown))}; {there}")


def whole(method: str, name: str, value: Any, least: int) -> int:
    """A whole number of at least `least`, or a ConfigError."""
    if type(value) is not int or value < least:
        raise ConfigError(f"method {method}: {name}: a whole number of at least {least}, not {value!r}")
    return value


def number(method: str, name: str, value: Any, below: float = math.inf) -> float:
    """A number above 0 and below `below`, or a ConfigError."""
    if type(value) not in (int, float) or not 0 < value < below:
        limit = "" if below == math.inf else f" and below {below:g}"
        raise ConfigError(f"method {method}: {name}: a number above 0{limit}, not {value!r}")
    return float(value)
