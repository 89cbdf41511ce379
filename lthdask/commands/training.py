"""Training from the command line: a client, a bar, and a quiet end."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from lthdask.commands.options import Where
from lthdask.commands.shared import counted, say
from lthdask.options import Options

if TYPE_CHECKING:
    from lthdask.driver.opening import Opened
    from lthdask.driver.remaining import Remaining
    from lthdask.study import Study

# Everything else is imported when it is needed: --help must not wait for torch.


def import_ahead(where: Where) -> None:
    """Have what workers of this machine need imported while this process does the same.

    Raises
    ------
    InputError
        If there is something wrong with the cluster file.
    """
    from lthdask.cluster.deployment import choose
    from lthdask.cluster.settings import Settings

    settings = Settings.read(where.cluster)
    if choose(settings, where.deploy, where.scheduler, lambda line: None) == "local":
        from lthdask.cluster.local import start_forkserver

        with settings.applied():
            start_forkserver()


def train(
    console: Console,
    study: "Study",
    where: Where,
    out: Path | None,
    data: Path | None,
    options: Options,
) -> Path:
    """Train what is left of a study, and show it; return the study's folder.

    Raises
    ------
    InputError
        If something that was given cannot be used.
    KeyboardInterrupt
        If it was stopped; the workers have ended by then.
    """
    from lthdask import flow
    from lthdask.cluster.client import open_client
    from lthdask.cluster.settings import Settings
    from lthdask.driver.opening import driving_study
    from lthdask.driver.remaining import remaining
    from lthdask.report.progress import shown

    settings = Settings.read(where.cluster)
    options = replace(options, checkpoint_interval=settings.checkpoint_interval)
    with driving_study(study, out, options) as opened:
        left = remaining(opened)
        if not left.replicates:
            _say_that_all_is_done(console, opened)
        else:
            opened_client = open_client(
                where.workers,
                threads=study.engine.threads,
                cluster=where.cluster,
                deployment=where.deploy,
                scheduler=where.scheduler,
                say=lambda line: say(console, line),
            )
            with opened_client as client, _stopping_once(console):
                _say_what_is_left(console, study, left)
                with shown(console) as watch:
                    flow.train(opened, client, data, watch)
    return opened.folder.path


def _say_that_all_is_done(console: Console, opened: "Opened") -> None:
    from lthdask.storage.schema import Status

    failed = list(opened.cells.values()).count(Status.FAILED)
    again = f"nothing left to train, {failed} failed; `retry_failed` trains them again"
    say(console, f"{opened.study.name}: {again if failed else 'every cell is done'}")


def _say_what_is_left(console: Console, study: "Study", left: "Remaining") -> None:
    dense = f", {counted(len(left.dense_runs), 'dense run')}" if left.dense_runs else ""
    say(console, f"{study.name}: {counted(len(left.cells), 'cell')} to train{dense}")


@contextmanager
def _stopping_once(console: Console) -> Iterator[None]:
    """Take one signal to stop; further ones must not disturb what leaves nothing in a queue."""
    try:
        yield
    except KeyboardInterrupt:
        from lthdask.cluster.workers import quiet_loops

        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        quiet_loops()
        say(console, "stopping the workers")
        raise
