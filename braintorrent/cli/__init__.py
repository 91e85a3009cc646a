"""The command line: parses, delegates, prints. One file per verb group; nothing heavy is imported up here."""

from __future__ import annotations

import atexit
import gc
import importlib
import os
import sys
from difflib import get_close_matches

# Spinning OpenMP threads make several training processes on few cores many times slower; read once by torch.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import click

from braintorrent.cli._interrupt import raise_between_imports
from braintorrent.errors import LocalError, StorageFull

VERBS = {
    "new": "new",
    "id": "identity",
    "trust": "identity",
    "invite": "joining",
    "join": "joining",
    "roster": "roster",
    "revoke": "roster",
    "rotate": "roster",
    "backup": "backup",
    "restore": "backup",
    "check": "checking",
    "run": "running",
    "status": "watching",
    "lineage": "lineage",
    "rollback": "rolling_back",
    "audit": "audit",
    "evaluate": "evaluating",
    "predict": "predicting",
    "export": "exporting",
    "launch": "launching",
    "split": "splitting",
    "demo": "demo",
    "simulate": "simulating",
}
COMPUTES = {"run", "join", "check", "launch", "demo", "evaluate", "predict", "simulate"}
CONTEXT = {"help_option_names": ["-h", "--help"]}


class LazyVerbs(click.Group):
    """Loads a verb's module when it is used, so that `--help` and `--version` answer at once."""

    def list_commands(self, context: click.Context) -> list[str]:
        return list(VERBS)

    def get_command(self, context: click.Context, name: str) -> click.Command | None:
        if name not in VERBS:
            return None
        module = importlib.import_module(f"braintorrent.cli.{VERBS[name]}")
        command: click.Command = getattr(module, name)
        return command

    def resolve_command(
        self, context: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        try:
            return super().resolve_command(context, args)
        except click.UsageError as error:
            near = get_close_matches(args[0], VERBS, n=1)
            meant = f"did you mean {near[0]}?" if near else f"verbs: {', '.join(VERBS)}"
            error.message = f"{error.message.rstrip('.')}; {meant}"
            raise


def _version(context: click.Context, _parameter: click.Parameter, value: bool) -> None:
    if value and not context.resilient_parsing:
        from importlib.metadata import version

        click.echo(f"braintorrent {version('braintorrent')}")
        context.exit()


@click.group(cls=LazyVerbs, context_settings=CONTEXT)
@click.option("--version", is_flag=True, is_eager=True, expose_value=False, callback=_version, help="Show the version.")
def cli() -> None:
    """Learn together on medical images, without a server.

    Each lab runs one peer beside its scans. Peers find each other, ask who has a newer model, fetch it,
    merge it with their own, train on their own scans, and announce the result. No scan leaves its lab.

    \b
    See it work:        braintorrent demo
    Your own scans:     braintorrent new lab-a --from SCANS     (or, for a trial: braintorrent split SCANS -o labs)
                        braintorrent check lab-a
    Two labs:           braintorrent run lab-a
                        braintorrent invite lab-b -C lab-a          (prints a code; give it to the other lab)
                        braintorrent join CODE lab-b --data SCANS   (there; shows whom it would join, and asks)
    Two labs by hand:   braintorrent id lab-a       (prints a line; give it to the other lab)
                        braintorrent id lab-b
                        braintorrent trust "LINE OF LAB-A" -C lab-b
                        braintorrent trust "LINE OF LAB-B" -C lab-a     (trust goes both ways)
                        braintorrent run lab-a      (and lab-b, each on its own machine)
                        braintorrent status lab-a
    """


def start() -> None:
    """Entry point of a process that is `braintorrent` and nothing else."""
    raise_between_imports()
    if sys.argv[1:2] and sys.argv[1] in COMPUTES:
        from braintorrent.cli._pages import MALLOC, SMALL_OBJECTS, with_large_pages

        with_large_pages(MALLOC, *([SMALL_OBJECTS] if sys.argv[1] == "simulate" else []))
    # As it ends, Python looks through everything for garbage: two seconds of MONAI, which the system frees anyhow.
    atexit.register(gc.freeze)
    main()


def main(command: click.Command = cli) -> None:
    """Run a command line. What is wrong is one line on stderr; a lab's own fault or a wrong command has exit code 2."""
    try:
        command(standalone_mode=False)
    except click.exceptions.Abort:
        click.echo("braintorrent: stopped", err=True)
        sys.exit(130)
    except click.exceptions.Exit as error:
        sys.exit(error.exit_code)
    except click.exceptions.NoArgsIsHelpError as error:
        error.show()
        sys.exit(error.exit_code)
    except click.ClickException as error:
        click.echo(f"braintorrent: {_described(error)}", err=True)
        sys.exit(error.exit_code)
    except (LocalError, StorageFull) as error:
        click.echo(f"braintorrent: {error}", err=True)
        sys.exit(2)
    except BaseExceptionGroup as group:
        own = group.subgroup(LocalError)
        if own is None or len(own.exceptions) != len(group.exceptions):
            raise
        click.echo(f"braintorrent: {_first(own)}", err=True)
        sys.exit(2)


def _described(error: click.ClickException) -> str:
    text = error.format_message().rstrip(".")
    verb = error.ctx.command_path if isinstance(error, click.UsageError) and error.ctx else ""
    return f"{text[:1].lower()}{text[1:]}{f'; see: {verb} --help' if verb else ''}"


def _first(group: BaseExceptionGroup[LocalError]) -> BaseException:
    first = group.exceptions[0]
    return _first(first) if isinstance(first, BaseExceptionGroup) else first
