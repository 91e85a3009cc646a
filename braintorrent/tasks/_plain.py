"""What an agreed value may be where MONAI reads it: values of a federation are data, and never run as code.

MONAI evaluates texts that begin with $, follows those that begin with @ or %, and takes keys that begin with _ for
the choice of a class.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from braintorrent.errors import ConfigError

_CODE = ("$", "@", "%")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
_ELSEWHERE = re.compile(r"^\s*([/\\~]|[A-Za-z]:[/\\])|(^|[/\\])\.\.([/\\]|$)|://")


def check_plain(value: Any, where: str, *, paths: bool = True) -> None:
    """ConfigError naming the place unless there are texts, numbers, lists and tables only, none of them code.

    paths: whether a text may be an absolute path, a URL, or lead out of its folder.
    """
    if isinstance(value, dict):
        for key, item in value.items():
            if str(key).startswith("_"):
                raise ConfigError(f"{where}.{key}: a name that begins with _ would choose code; change the bundle")
            check_plain(item, f"{where}.{key}", paths=paths)
    elif isinstance(value, list | tuple):
        for index, item in enumerate(value):
            check_plain(item, f"{where}.{index}", paths=paths)
    elif not isinstance(value, str | int | float | bool):
        raise ConfigError(f"{where}: a {type(value).__name__}; allowed are texts, numbers, lists and tables")
    elif isinstance(value, str) and value.lstrip().startswith(_CODE):
        raise ConfigError(f"{where}: {value[:20]!r} would be run as code; plain values only")
    elif isinstance(value, str) and not paths and _ELSEWHERE.search(value):
        raise ConfigError(f"{where}: leads to files outside the bundle and the data; change the bundle instead")


def plain_names(names: Sequence[str]) -> None:
    """ValueError unless names are fit for a bundle's configuration and a line of text."""
    for name in names:
        if name.lstrip().startswith(_CODE) or _CONTROL.search(name):
            raise ValueError(f"{name[:20]!r}: a name begins with none of $ @ %, and has no control characters")
