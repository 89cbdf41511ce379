"""How far a study is, and who runs it."""

from pathlib import Path

import rich_click as click
from rich.console import Console

from lthdask.commands import options
from lthdask.commands.results import print_outcome, say_reasons
from lthdask.commands.shared import counted, exit_with, folder_of, say

# Everything else is imported when it is needed. A look must be quick: neither torch nor xarray.


@click.command("status", context_settings=options.CONTEXT)
@options.folder
@options.study
@options.out
@options.as_json
def command(folder: Path | None, study: str, out: Path | None, as_json: bool) -> None:
    """Print how far a study is, who runs it, and its accuracies so far.

    DIR is the study's folder, the same as --out. Nothing is started. --json prints what
    `lthdask results` knows, too.

    Exit codes: 0 if no cell is pending or failed, 1 if one is, 2 for invalid input.
    """
    console = Console(stderr=as_json)
    exit_with(console, lambda: print_status(console, folder_of(folder, study, out), as_json))


def print_status(console: Console, out: Path, as_json: bool) -> int:
    """Say how far the study in a folder is, and who runs it; return the exit code.

    Raises
    ------
    InputError
        If there is no study in the folder.
    """
    from lthdask.reading import yaml_mapping
    from lthdask.report.accuracy_map import accuracies, print_table
    from lthdask.source import in_words
    from lthdask.storage.arrays import Arrays
    from lthdask.storage.driver import driver_of, no_study
    from lthdask.storage.folder import Folder
    from lthdask.storage.schema import Status

    folder = Folder(out)
    text = folder.study()
    if text is None:
        raise no_study(folder.path)
    study = yaml_mapping(text, str(folder.path / "study.yaml"))
    arrays, dense = Arrays(folder.path), folder.dense_runs()
    status, replicates = arrays["status"], len(arrays.axes["replicate"])
    counts = {s: int((status == s).sum()) for s in Status}
    found = ", ".join(f"{n} {s.name.lower()}" for s, n in counts.items() if n)
    runs = f"{dense} of {counted(replicates, 'dense run')} trained"
    say(console, f"{study.get('name')}: {found}; {runs}")
    if source := study.get("source"):
        say(console, in_words(source))
    driver = driver_of(folder.path)
    say(console, f"being run by {driver}" if driver else "nobody runs it now")
    for run, state in folder.runs.unfinished().items():
        say(console, f"  {run}: {state}")
    if as_json:
        return print_outcome(console, folder.path, as_json)
    ticket = arrays.axes["arm"].tolist().index("ticket")
    accuracy, density = (arrays.named("metrics", m)[ticket] for m in ("test_accuracy", "density"))
    thresholds, ks = arrays.axes["threshold"].tolist(), arrays.ks
    last = 100 * arrays.named("dense_curves", "test_accuracy")[:, -1]
    map_of_tickets = accuracies(thresholds, ks, status[ticket], 100 * accuracy, density, last)
    print_table(console, map_of_tickets)
    why = folder.runs.reasons(arrays.cells(Status.FAILED))
    say_reasons(console, why, folder.path)
    say(console, f"tables and verdicts: lthdask results {folder.path}")
    return 1 if counts[Status.PENDING] or counts[Status.FAILED] else 0
