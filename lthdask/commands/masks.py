"""The mask of a ticket as a file, for other tools and other studies."""

from pathlib import Path

import rich_click as click
from rich.console import Console

from lthdask.commands import completion, options
from lthdask.commands.shared import exit_with, say

# Everything else is imported when it is needed: --help must not wait for torch.


@click.command("masks", context_settings=options.CONTEXT)
@click.argument(
    "folder",
    metavar="DIR",
    type=click.Path(path_type=Path),
    shell_complete=completion.folder,
)
@click.option("--threshold", type=float, required=True, help="Threshold of the tickets.")
@click.option("--replicate", type=int, default=0, show_default=True, help="Replicate.")
@click.option(
    "--rewind-epoch",
    metavar="K",
    help="Rewind epoch (default: the first); rounds of iterative pruning have a mask for each.",
)
@click.option(
    "-o",
    "--output",
    metavar="FILE",
    type=click.Path(path_type=Path, dir_okay=False),
    required=True,
    help="Where to write it, as safetensors: booleans by the names of the weights.",
)
@options.data
@options.code
def command(
    folder: Path,
    threshold: float,
    replicate: int,
    rewind_epoch: str | None,
    output: Path,
    data: Path | None,
    code: tuple[Path, ...],
) -> None:
    """Write the mask of the tickets of a threshold, drawn again from the study in DIR.

    The file can be given to another study, as --set pruning.masks=FILE. From the second round of
    iterative pruning on, the weights that a mask was taken from are not kept, and there is none.

    Exit codes: 0 if it was written, 2 for invalid input.
    """
    console = Console()
    at = threshold, replicate, rewind_epoch
    exit_with(console, lambda: _write(console, folder, at, output, data, code))


def _write(
    console: Console,
    folder: Path,
    at: tuple[float, int, str | None],
    output: Path,
    data: Path | None,
    code: tuple[Path, ...],
) -> int:
    from lthdask.errors import InputError
    from lthdask.given import digest_of, saved
    from lthdask.own import allow
    from lthdask.reading import value_of
    from lthdask.storage.files import write_whole
    from lthdask.worker.masks import open_mask

    for file in code:
        allow(file)
    threshold, replicate, k = at
    k = None if k is None else value_of(k, False, "--rewind-epoch")
    mask = open_mask(folder, threshold, replicate, k, data)
    try:
        write_whole(output, saved(mask))
    except OSError as problem:
        raise InputError(
            f"cannot write {output}: {problem.strerror}; write it elsewhere with -o FILE"
        ) from None
    kept = sum(int(of.sum()) for of in mask.values())
    count = sum(of.numel() for of in mask.values())
    say(console, f"mask: {output}, {kept:,} of {count:,} weights, {digest_of(mask)}")
    return 0
