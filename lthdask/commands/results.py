"""What came out of a study: tables, verdicts, and what they do not say."""

import json
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

import rich_click as click
from rich.console import Console

from lthdask.commands import options
from lthdask.commands.shared import counted, exit_with, folder_of, say

if TYPE_CHECKING:
    from lthdask.study import Study

# Everything else is imported when it is needed: --help must not wait for SciPy.


@click.command("results", context_settings=options.CONTEXT)
@options.folder
@options.study
@options.out
@options.as_json
def command(folder: Path | None, study: str, out: Path | None, as_json: bool) -> None:
    """Print what came out of a study so far: tables and verdicts.

    DIR is the study's folder, the same as --out. `lthdask status` is quicker, and says how far
    it is.

    Exit codes: 0 if no cell is pending or failed, 1 if one is, 2 for invalid input.
    """
    console = Console(stderr=as_json)
    exit_with(console, lambda: print_outcome(console, folder_of(folder, study, out), as_json))


def print_outcome(console: Console, path: Path, as_json: bool, study: "Study | None" = None) -> int:
    """Say what came out of the study in a folder, or of a part of it; return the exit code.

    Raises
    ------
    InputError
        If there are no results in the folder.
    """
    from lthdask.report.accuracy_map import print_table
    from lthdask.report.summary import cells_with, failed_cells, limits, outcome, sentences
    from lthdask.report.tables import tables
    from lthdask.storage.folder import Folder
    from lthdask.storage.results import open_asked, open_results

    folder = Folder(path)
    results = open_asked(path, study, "layers") if study else open_results(path, "layers")
    failed = failed_cells(results)
    why = folder.runs.reasons(failed)
    if as_json:
        values = outcome(results) | {"folder": str(folder.path), "reasons": why}
        parts = json.JSONEncoder(indent=2).iterencode(values)
        while text := "".join(islice(parts, 100_000)):  # at once, 100,000 cells take 325 MB
            click.echo(text, nl=False)
        click.echo()
    else:
        for table in tables(results):
            print_table(console, table)
        for sentence in (*sentences(results), limits(results)):
            if sentence:
                say(console, sentence)
        say_reasons(console, why, folder.path)
        say(console, f"results in {folder.path}: lthdask.open_results({str(folder.path)!r})")
    return 1 if failed or cells_with(results, "pending") else 0


def say_reasons(console: Console, why: dict[str, str], folder: Path) -> None:
    """Say why cells failed, and where to read more; on standard error where all else is quiet."""
    if console.quiet:
        console = Console(stderr=True)
    for reason, file in list(why.items())[:5]:
        say(console, f"failed: {reason}; see {file}")
    if len(why) > 5:
        say(console, f"and {counted(len(why) - 5, 'more reason')}; see {folder / 'cells'}")
