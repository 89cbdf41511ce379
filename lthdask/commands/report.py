"""One page to send: figures, tables and how a study came about."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import rich_click as click
from rich.console import Console

from lthdask.commands import completion, options
from lthdask.commands.shared import exit_with, folder_of, say
from lthdask.errors import InputError, may, permitted

# Everything else is imported when it is needed: --help must not wait for Bokeh.

_FILE = click.Path(path_type=Path, dir_okay=False)


@click.command("report", context_settings=options.CONTEXT)
@click.argument(
    "folders",
    metavar="[DIR]...",
    nargs=-1,
    type=click.Path(path_type=Path),
    shell_complete=completion.folder,
)
@options.study
@options.out
@click.option(
    "-o",
    "--output",
    metavar="FILE",
    type=_FILE,
    help="Where to write the page (default: report.html in the study's folder; of several "
    "studies, comparison.html here).",
    panel=options.OUTPUT,
)
@click.option(
    "--csv",
    metavar="FILE",
    type=_FILE,
    help="Write a table of the cells, and no page unless -o is given, too.",
    panel=options.OUTPUT,
)
@click.option(
    "--methods",
    is_flag=True,
    help="Print what a paper says of the methods, with references, or write it to -o FILE; and no "
    "page.",
    panel=options.OUTPUT,
)
@click.option(
    "--figures",
    metavar="DIR",
    type=click.Path(path_type=Path, file_okay=False),
    help="Write each figure of one study as PNG, SVG and vector PDF, and no page unless -o is "
    "given, too. It takes Chromium or Chrome on PATH.",
    panel=options.OUTPUT,
)
@click.option(
    "--width",
    metavar="MM",
    type=float,
    help="Width of these figures, such as 85 for a column of a paper (default: that of the page, "
    "159 for most).",
    panel=options.OUTPUT,
)
def command(
    folders: tuple[Path, ...], study: str, out: Path | None, methods: bool, **wanted: Any
) -> None:
    """Write what came out of a study as one page that opens without a network.

    It holds a summary, figures, tables, the cost, the methods and what failed. DIR is the study's
    folder, the same as --out. Of several studies, it compares their figures and settings.

    Exit codes: 0 if it was written, 2 for invalid input.
    """
    console = Console()
    if wanted["width"] and not wanted["figures"]:
        raise click.UsageError("--width is that of --figures")
    if methods and (wanted["csv"] or wanted["figures"] or len(folders) > 1):
        raise click.UsageError("--methods takes the folder of one study, and no --csv or --figures")
    if len(folders) > 1:
        exit_with(console, lambda: _compare(console, folders, **wanted))
    folder = folders[0] if folders else None
    if methods:
        exit_with(
            console, lambda: _methods(console, folder_of(folder, study, out), wanted["output"])
        )
    exit_with(console, lambda: _report(console, folder_of(folder, study, out), **wanted))


def write_report(console: Console, folder: Path, output: Path | None = None) -> None:
    """Write the report of a study, into its folder by default, and say where it is.

    Raises
    ------
    InputError
        If there are no results in the folder.
    OSError
        If the file cannot be written.
    """
    from lthdask.report.account import GROUPS, report
    from lthdask.report.methods.text import methods
    from lthdask.report.summary import failed_cells
    from lthdask.storage.arrays import Arrays
    from lthdask.storage.folder import Folder
    from lthdask.storage.results import dataset_of

    output = output or folder / "report.html"
    with permitted(folder):
        arrays = Arrays(folder)
        _require_writable(output)
        results = dataset_of(arrays, GROUPS)
        why = Folder(folder).runs.reasons(failed_cells(results))
        page = report(results, why, methods(arrays))
    _write(output, page)
    say(console, f"report: {output}")


def leave_report(console: Console, folder: Path) -> None:
    """Write the report of a study whose run has ended, which nothing may make fail any more."""
    try:
        write_report(console, folder)
    except Exception as problem:
        say(console, f"no report was written: {problem}; lthdask report {folder} -o FILE does")


def _report(
    console: Console,
    folder: Path,
    output: Path | None,
    csv: Path | None,
    figures: Path | None,
    width: float | None,
) -> int:
    from lthdask.report.account import tidy
    from lthdask.storage.results import open_results

    with _elsewhere():
        if csv:
            _write(csv, tidy(open_results(folder, "records")))
            say(console, f"table: {csv}")
        if output or not (csv or figures):
            write_report(console, folder, output)
    if figures:
        with _elsewhere("--figures DIR"):
            _save_figures(console, folder, figures, width)
    return 0


def _methods(console: Console, folder: Path, output: Path | None) -> int:
    from lthdask.report.methods.text import methods

    text = methods(folder)
    if not output:
        click.echo(text, nl=False)
        return 0
    with _elsewhere():
        _write(output, text)
    say(console, f"methods: {output}")
    return 0


def _save_figures(console: Console, folder: Path, to: Path, width: float | None) -> None:
    from lthdask.report.account import GROUPS
    from lthdask.report.account import figures as all_of
    from lthdask.report.figures.saving import save_all
    from lthdask.storage.results import open_results

    drawn = all_of(open_results(folder, *GROUPS))
    to.mkdir(parents=True, exist_ok=True)
    save_all(drawn, to, width)
    say(console, f"figures: {len(drawn)} in {to}, each as PNG, SVG and PDF")


def _compare(
    console: Console, folders: tuple[Path, ...], output: Path | None, **of_one: Any
) -> int:
    from lthdask.report.account import GROUPS, comparison
    from lthdask.storage.results import open_results

    if given := [name for name in ("csv", "figures") if of_one[name]]:
        raise InputError(f"--{given[0]} takes one study; give one folder")
    names = [folder.name or str(folder) for folder in map(Path.resolve, folders)]
    if len(set(names)) < len(names):
        names = list(map(str, folders))
    studies = {n: open_results(f, *GROUPS) for n, f in zip(names, folders, strict=True)}
    if len(studies) < len(folders):
        raise InputError("the same folder was given twice")
    output = output or Path("comparison.html")
    with _elsewhere():
        _require_writable(output)
        _write(output, comparison(studies))
    say(console, f"comparison: {output}")
    return 0


def _require_writable(output: Path) -> None:
    """Say at once, and not after the work, that a file cannot be written."""
    if output.is_dir() or not may(output.absolute().parent, os.W_OK):
        raise OSError(f"{output} cannot be written")


def _write(output: Path, text: str) -> None:
    from lthdask.storage.files import write_whole

    try:
        write_whole(output, text.encode())
    except OSError as problem:
        raise OSError(f"{output} cannot be written: {problem.strerror}") from None


@contextmanager
def _elsewhere(option: str = "-o FILE") -> Iterator[None]:
    try:
        yield
    except OSError as problem:
        why = problem.strerror or problem
        raise InputError(f"{_place(problem)}{why}; write it elsewhere with {option}") from None


def _place(problem: OSError) -> str:
    """Return the folder that was to be written to, and not the name of the file aside."""
    return f"cannot write to {Path(problem.filename).parent}: " if problem.filename else ""
