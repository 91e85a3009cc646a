"""Every verb acts on a peer folder: its argument, or -C FOLDER, or the current one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click


def folder_argument(function: Callable[..., Any]) -> Callable[..., Any]:
    """A verb that takes the folder as its argument or by -C."""

    def joined(*args: Any, folder: Path | None, in_folder: Path | None, **kwargs: Any) -> Any:
        if folder is not None and in_folder is not None:
            raise click.UsageError("give the peer folder once: as the argument or with -C")
        return function(*args, folder=folder or in_folder or Path("."), **kwargs)

    joined.__doc__, joined.__name__ = function.__doc__, function.__name__
    joined.__click_params__ = getattr(function, "__click_params__", [])  # type: ignore[attr-defined]
    argument = click.argument("folder", required=False, type=click.Path(path_type=Path))
    option = click.option(
        "-C", "in_folder", metavar="FOLDER", type=click.Path(path_type=Path), help="The peer folder (default: here)."
    )
    return argument(option(joined))
