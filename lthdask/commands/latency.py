"""What kept tickets are worth on this machine: parameters, size and time."""

from pathlib import Path
from typing import TYPE_CHECKING

import rich_click as click
from rich.console import Console

from lthdask.commands import completion, options
from lthdask.commands.shared import counted, exit_with, rewind_epoch_of, say

if TYPE_CHECKING:
    from rich.table import Table

    from lthdask.export.latency import Measured

# Everything else is imported when it is needed: --help must not wait for torch.


@click.command("latency", context_settings=options.CONTEXT)
@click.argument(
    "folder", metavar="RUN", type=click.Path(path_type=Path), shell_complete=completion.folder
)
@click.option("--rewind-epoch", metavar="K", help="Default: the one of which most were kept.")
@click.option("--arm", default="ticket", show_default=True)
@click.option("--replicate", type=int, metavar="R", help="Default: as with the rewind epoch.")
@click.option(
    "--threads",
    type=click.IntRange(min=1),
    default=1,
    show_default=True,
    help="Threads of each runtime.",
)
@options.code
def command(
    folder: Path,
    rewind_epoch: str | None,
    arm: str,
    replicate: int | None,
    threads: int,
    code: tuple[Path, ...],
) -> None:
    """Tabulate what the tickets that RUN kept are worth on this machine's CPU.

    Parameters, multiply-adds, size, and the time of a batch of 1 and of 32, by PyTorch, and by ONNX
    Runtime and OpenVINO where they are installed: with the zeros, and compacted.

    Exit codes: 0 if they were measured, 2 for invalid input.
    """
    console = Console()

    def body() -> int:
        from lthdask.checks.machine import device_name
        from lthdask.export.choice import Asked
        from lthdask.export.latency import ROUNDS, kept_row, latency

        k = rewind_epoch_of(rewind_epoch)
        cells = kept_row(folder, Asked(rewind_epoch=k, arm=arm, replicate=replicate))
        one = cells[0]
        with Console(stderr=True).status("measuring"):
            rows, notes = latency(folder, cells, threads, code)
        console.print(_table(rows))
        say(
            console,
            f"{one.arm}, k = {one.rewind_epoch:g}, replicate {one.replicate}, on "
            f"{device_name('cpu')} with {counted(threads, 'thread')}: milliseconds of a batch, the "
            f"least of {ROUNDS} rounds; in brackets how many times as fast as with zeros",
        )
        for note in notes:
            say(console, note)
        return 0

    exit_with(console, body)


def _table(rows: "list[Measured]") -> "Table":
    from rich import box
    from rich.table import Table

    from lthdask.export.latency import COMPACTED

    table = Table(box=box.SIMPLE_HEAD)
    heads = [f"{runtime} {batch}" for runtime, batch in rows[0].seconds]
    table.add_column("left, %", justify="right")
    table.add_column("network")
    for head in ("parameters", "multiply-adds", "KB", *heads):
        table.add_column(head, justify="right")
    for before, row in zip([None, *rows], rows, strict=False):
        times = []
        for at, seconds in row.seconds.items():
            gain = ""
            if before and row.form == COMPACTED:
                gain = f" ({before.seconds[at] / seconds:.2f})"
            times.append(f"{1000 * seconds:.2f}{gain}")
        sizes = (row.parameters, row.multiply_adds, round(row.size / 1000))
        table.add_row(f"{100 * row.density:.3g}", row.form, *(f"{n:,}" for n in sizes), *times)
    return table
