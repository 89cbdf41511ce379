"""Watch a study that runs elsewhere, or one that has ended."""

from contextlib import suppress
from pathlib import Path

import rich_click as click
from rich.console import Console

from lthdask.commands import options
from lthdask.commands.shared import exit_with, folder_of, say

# Everything else is imported when it is needed: --help must not wait for Bokeh.


@click.command("watch", context_settings=options.CONTEXT)
@options.folder
@options.study
@options.out
@options.port
@options.allow_origin
def command(
    folder: Path | None, study: str, out: Path | None, port: int, allow_origin: tuple[str, ...]
) -> None:
    """Show a study in the browser while it runs elsewhere, or after it has ended.

    DIR is the study's folder, the same as --out. The page only reads it. It listens on this
    machine alone, and its address has a secret that opens it.

    Ctrl-C ends it. Exit codes: 0, or 2 for invalid input.
    """
    console = Console()
    exit_with(console, lambda: _watch(console, folder_of(folder, study, out), port, allow_origin))


def _watch(console: Console, path: Path, port: int, origins: tuple[str, ...]) -> int:
    from lthdask.report.page.alone import serve

    with suppress(KeyboardInterrupt):
        serve(path, port, origins, lambda line: say(console, line))
    return 0
