"""Prepare a folder of images for a study."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import rich_click as click
from rich.console import Console
from rich.filesize import decimal
from rich.progress import Progress

from lthdask.commands import options
from lthdask.commands.asked import Given, Where, changes
from lthdask.commands.options import OUTPUT
from lthdask.commands.shared import Output, exit_with, say

# Everything else is imported when it is needed: --help must not wait for torch.


@click.command("prepare", context_settings=options.CONTEXT)
@options.study
@options.settings
@options.code
@options.data
@options.where_to_train
@options.a_folder("--out", metavar="DIR", required=True, help="Folder of the copy.", panel=OUTPUT)
@options.quiet
def command(**given: Any) -> None:
    """Decode a folder of images once, to bytes that are mapped into memory.

    Give the copy to `lthdask run` as --data in place of the folder. Results are the same, bit for
    bit, and a study may go on with either. A study with random crops (resized_crop) needs whole
    images, which take more room than their files: --set data.shorter_side=256 makes them smaller,
    and is then a part of what the study is.

    The same command picks up where it left off. Exit codes: 0, or 2 for invalid input.
    """
    console = Output(quiet=given["quiet"])
    exit_with(console, lambda: _prepare(console, given), resumes=True)


def _prepare(console: Console, given: Given) -> int:
    from lthdask.cluster.client import open_client
    from lthdask.cluster.queue import Queue
    from lthdask.commands.training import import_ahead, stopping_once
    from lthdask.driver.copying import copying_of, make_copy
    from lthdask.study import Study

    where = Where.of(given)
    import_ahead(where)
    study = Study.read(given["study"], given["code"]).changed(changes(given["settings"]))
    work = copying_of(study.data, given["data"], given["out"])
    client = open_client(
        where.workers,
        cluster=where.cluster,
        deployment=where.deploy,
        scheduler=where.scheduler,
        say=lambda line: say(console, line),
    )
    with client, stopping_once(console), _shown(console) as tell:
        copied = make_copy(work, Queue(client), tell)
    before = f", {copied.kept:,} of them made before" if copied.kept else ""
    say(
        console,
        f"{work.out}: {copied.images:,} {work.form}{before}; {decimal(copied.size)}. Give it as "
        f"`data`",
    )
    return 0


@contextmanager
def _shown(console: Console) -> Iterator[Callable[[int, int], None]]:
    """Yield what to call with the number of images that are done, and of all."""
    if not console.is_terminal:
        yield lambda done, of: say(console, f"{done:,} of {of:,} images")
        return
    with Progress(console=console) as bars:
        bar = bars.add_task("images", total=None)
        yield lambda done, of: bars.update(bar, completed=done, total=of)
