"""What a lab is offered by the one that invites it, checked before it is shown, written or used.

Joining must not choose code: an offer names installed plug-ins, classes of MONAI and torch, and plain values. A
bundle's configuration is code, so it is refused; docs/bundles.md says how to install one by hand.
"""

from __future__ import annotations

import re
import tomllib
from typing import Any

import tomli_w

from braintorrent import plugins
from braintorrent.config import Federation, Section, validate
from braintorrent.errors import ConfigError
from braintorrent.network.wire import clean

SHOWN = 400  # characters of a complaint, which may quote the offer
_NAME = re.compile(r"[a-z0-9_]{1,64}")
_FILE = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,127}")


def terms(text: str, federation: str, start: str, where: str) -> dict[str, Any]:
    """federation.toml as a table, every name and value in it allowed; ConfigError says which is not.

    federation: the id it must have; start: digest of the weights all begin from, which the table then names too.
    """
    try:
        table = tomllib.loads(text)
        agreed = validate(Federation, table, where)
        if agreed.id != federation:
            raise ConfigError(f"{where}: id: {agreed.id}, but the code is for {federation}")
        _task(agreed.task, f"{where}: task")
        _method(agreed, where)
        table["start"] = _start(agreed, start, where)
        if odd := [c for c in tomli_w.dumps(table) if not c.isprintable() and c != "\n"]:
            raise ConfigError(f"{where}: holds {odd[0]!a}, a character that hides or reorders text")
    except ConfigError as error:
        raise ConfigError(clean(str(error), SHOWN)) from None
    except (ValueError, RecursionError):
        raise ConfigError(f"{where}: not TOML that this release reads") from None
    return table


def _task(task: dict[str, Any], where: str) -> None:
    kind = task.get("kind")
    _installed("tasks", kind, f"{where}.kind")
    if kind == "bundle":
        raise ConfigError(f"{where}.kind: a bundle is code; install it by hand, see docs/bundles.md")
    from braintorrent.tasks._vetting import vet

    plugin = plugins.load("tasks", str(kind))
    options = getattr(plugin, "Options", None)
    if isinstance(options, type) and issubclass(options, Section):
        validate(options, task, where)
    vet(task, where)


def _method(agreed: Federation, where: str) -> None:
    from braintorrent.tasks._plain import check_plain

    _installed("methods", agreed.method.name, f"{where}: method.name")
    check_plain(agreed.method.options, f"{where}: method.options", paths=False)
    try:
        plugins.load("methods", agreed.method.name).create(**agreed.method.options)
    except (ConfigError, TypeError, ValueError) as error:
        raise ConfigError(f"{where}: method.options: {error}") from None


def _installed(kind: str, name: Any, where: str) -> None:
    if not (isinstance(name, str) and _NAME.fullmatch(name)):
        raise ConfigError(f"{where}: not the name of a plug-in (a-z, 0-9 and _)")
    if name not in plugins.names(kind):
        raise ConfigError(f"{where}: {name} is not installed here; there are: {', '.join(plugins.names(kind))}")


def _start(agreed: Federation, digest: str, where: str) -> dict[str, Any]:
    start = agreed.start
    if start.weights and not _FILE.fullmatch(start.weights):
        raise ConfigError(f"{where}: start.weights: not the plain name of a file")
    if start.digest not in ("", digest):
        raise ConfigError(f"{where}: start.digest: {start.digest[:12]}, but that lab began from {digest[:12]}")
    return {**start.model_dump(), "digest": digest}
