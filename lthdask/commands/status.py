"""How far a study is, who runs it, and what came out."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import rich_click as click
from rich.console import Console

from lthdask.commands import completion, options
from lthdask.commands.shared import counted, exit_with, say
from lthdask.errors import InputError

if TYPE_CHECKING:
    from lthdask.study import Study

# Everything else is imported when it is needed: --help must not wait for torch.


@click.command("status", context_settings=options.CONTEXT)
@click.argument(
    "folder",
    metavar="[DIR]",
    required=False,
    type=click.Path(path_type=Path),
    shell_complete=completion.folder,
)
@options.study
@options.out
@options.as_json
def command(folder: Path | None, study: str, out: Path | None, as_json: bool) -> None:
    """Print how far a study is, who runs it, and its results so far.

    DIR is the study's folder, the same as --out. Nothing is started.

    Exit codes: 0 if no cell is pending or failed, 1 if one is, 2 for invalid input.
    """
    if folder and out:
        raise click.UsageError("give the study's folder once: as DIR, or with --out")
    console = Console(stderr=as_json)
    exit_with(console, lambda: print_status(console, folder or out or _usual(study), as_json))


def _usual(study: str) -> Path:
    """Return the folder in which a study is by default."""
    from lthdask.study import Study

    return Path("runs") / Study.read(study).name


def print_status(console: Console, out: Path, as_json: bool) -> int:
    """Say how far the study in a folder is, and who runs it; return the exit code.

    Raises
    ------
    InputError
        If there is no study in the folder.
    """
    from lthdask.report.summary import counts
    from lthdask.storage.driver import driver_of
    from lthdask.storage.folder import Folder
    from lthdask.storage.results import read_results
    from lthdask.study import Study

    folder = Folder(out)
    text = folder.study()
    if text is None:
        raise InputError(f"there is no study in {folder.path}; give its folder with `out`")
    study = Study.parse(text, str(folder.path / "study.yaml"))
    results = read_results(folder.path)
    found = ", ".join(f"{count} {status}" for status, count in counts(results).items())
    manifest, runs = folder.manifest(), study.grid.replicates
    dense = len(manifest.checkpoints) if manifest else 0
    say(console, f"{study.name}: {found}; {dense} of {counted(runs, 'dense run')} trained")
    driver = driver_of(folder.path)
    say(console, f"being run by {driver}" if driver else "nobody runs it now")
    for name, state in folder.unfinished().items():
        say(console, f"  {name}: {state}")
    return print_outcome(console, results, study, folder.path, as_json)


def print_outcome(
    console: Console, results: Any, study: "Study", folder: Path, as_json: bool
) -> int:
    """Say what came out of a study; return the exit code."""
    from lthdask.report.summary import cells_with, outcome, reasons
    from lthdask.storage.folder import Folder

    why = reasons(results, Folder(folder))
    if as_json:
        values = outcome(results, study.matching_margin)
        click.echo(json.dumps(values | {"folder": str(folder), "reasons": why}, indent=2))
    else:
        _print_tables(console, results, study.matching_margin)
        for reason, file in list(why.items())[:5]:
            say(console, f"failed: {reason}; see {file}")
        if len(why) > 5:
            say(console, f"and {counted(len(why) - 5, 'more reason')}; see {folder / 'cells'}")
        say(console, f"results in {folder}: lthdask.open_results({str(folder)!r})")
    return 1 if cells_with(results, "pending") or cells_with(results, "failed") else 0


def _print_tables(console: Console, results: Any, margin: float) -> None:
    from lthdask.report.summary import limits, sentences
    from lthdask.report.tables import print_table, tables

    for table in tables(results, margin):
        print_table(console, table)
    for sentence in (*sentences(results, margin), limits(results)):
        if sentence:
            say(console, sentence)
