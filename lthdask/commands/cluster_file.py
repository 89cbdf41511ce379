"""The cluster file to start from."""

from importlib import resources
from pathlib import Path

import rich_click as click
from rich.console import Console

from lthdask.commands import options
from lthdask.commands.shared import exit_with, say
from lthdask.errors import InputError


@click.command("cluster-file", context_settings=options.CONTEXT)
@click.argument("file", metavar="[FILE]", default="cluster.yaml", type=click.Path(path_type=Path))
@click.option("--force", is_flag=True, help="Replace the file if it is there.")
def command(file: Path, force: bool) -> None:
    """Write a commented cluster file, which says where to train.

    FILE is ./cluster.yaml by default, where `run` looks for it. Use - for standard output.
    Most sites change the lines marked with (site).

    Exit codes: 0, or 2 if the file is there already or cannot be written.
    """
    console = Console()
    exit_with(console, lambda: _write(console, file, force))


def _write(console: Console, file: Path, force: bool) -> int:
    text = (resources.files("lthdask") / "cluster" / "cluster.yaml").read_text(encoding="utf-8")
    if file == Path("-"):
        click.echo(text, nl=False)
        return 0
    try:
        with file.open("w" if force else "x", encoding="utf-8") as written:
            written.write(text)
    except FileExistsError:
        raise InputError(f"{file} is there already; --force replaces it") from None
    except OSError as error:
        raise InputError(f"cannot write {file}: {error.strerror}") from None
    say(console, f"wrote {file}; most sites change the lines marked with (site)")
    return 0
