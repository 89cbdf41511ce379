"""Whether every file of a study is as it was written."""

from pathlib import Path

import rich_click as click
from rich.console import Console

from lthdask.commands import completion, options
from lthdask.commands.shared import exit_with, say

# Everything else is imported when it is needed: --help must not wait for torch.


@click.command("check", context_settings=options.CONTEXT)
@click.argument(
    "folder",
    metavar="DIR",
    type=click.Path(path_type=Path),
    shell_complete=completion.folder,
)
@click.option("--repair", is_flag=True, help="Mark what is damaged to be trained again.")
@click.pass_context
def command(context: click.Context, folder: Path, repair: bool) -> None:
    """Read every file of the study in DIR, and say what is damaged.

    Also says what must be retrained; --repair marks exactly that. The command that trained
    the study then trains it again.

    Exit codes: 0 if everything is whole or was repaired, 1 if something is damaged, 2 for
    invalid input, or if --repair finds that somebody runs the study.
    """
    console = Console()
    exit_with(console, lambda: _check(console, folder, repair, context.command_path))


def _check(console: Console, folder: Path, mend: bool, typed: str) -> int:
    from lthdask.checks.folder import check, repair

    found = repair(folder) if mend else check(folder)
    for damage in found:
        say(console, str(damage))
    left = [damage for damage in found if damage.mend is None or not mend]
    if not found:
        say(console, f"{folder} is whole")
    elif not left:
        say(console, "repaired; the command that trained the study trains what is missing")
    elif any(damage.mend for damage in left):
        say(console, f"{typed} {folder} --repair marks exactly that")
    return 1 if left else 0
