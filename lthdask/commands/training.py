"""Training from the command line: a client, a bar, and a quiet end."""

import logging
import os
import platform
import shlex
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from lthdask.commands.asked import Where
from lthdask.commands.shared import ENDING, counted, say
from lthdask.errors import InputError, on_command_line
from lthdask.events import Event
from lthdask.options import Options

if TYPE_CHECKING:
    from lthdask.driver.opening import Opened
    from lthdask.driver.remaining import Remaining
    from lthdask.storage.log import StudyLog
    from lthdask.study import Study

LEVELS = {"failed": logging.ERROR, "diverged": logging.WARNING}
"""How bad it is, what became of a run."""

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
) -> "Opened":
    """Train what is left of a study, and show it; return the study with its folder, as it was.

    Raises
    ------
    InputError
        If something that was given cannot be used.
    KeyboardInterrupt
        If it was stopped; the workers have ended by then.
    """
    from lthdask.cluster.settings import Settings
    from lthdask.driver.keeping import drop_worse
    from lthdask.driver.opening import driving_study
    from lthdask.driver.remaining import remaining
    from lthdask.storage.log import StudyLog

    settings = Settings.read(where.cluster)
    options = replace(options, checkpoint_interval=settings.checkpoint_interval)
    with (
        StudyLog().kept() as log,
        _end_in(log),
        driving_study(study, out, options) as opened,
    ):
        log.write(opened.folder.log)
        left = remaining(opened)
        if left.replicates:
            _train(console, log, opened, left, where, data)
        else:
            _say_that_all_is_done(console, log, opened)
            drop_worse(opened)
    return opened


def _train(
    console: Console,
    log: "StudyLog",
    opened: "Opened",
    left: "Remaining",
    where: Where,
    data: Path | None,
) -> None:
    """Train what is left on workers of its own."""
    from lthdask import flow
    from lthdask.cluster.client import open_client
    from lthdask.cluster.deployment import choose
    from lthdask.cluster.settings import Settings
    from lthdask.report.progress import shown
    from lthdask.worker.work import Work

    def tell(line: str) -> None:
        say(console, line)
        log.lines.info(on_command_line(line))

    if where.cluster:  # which may be the one that lies here, and nobody thought of
        tell(f"cluster file: {where.cluster.absolute()}")
    settings = Settings.read(where.cluster)
    here = choose(settings, where.deploy, where.scheduler, lambda line: None) == "local"
    Work(opened.study, opened.engine, opened.folder, data, opened.options).require_folder(here)
    client = open_client(
        where.workers,
        threads=opened.study.engine.threads,
        cluster=where.cluster,
        deployment=where.deploy,
        scheduler=where.scheduler,
        say=tell,
    )
    with client, stopping_once(console):
        log.lines.info("scheduler %s", client.scheduler.address)
        dense = f", {counted(len(left.dense_runs), 'dense run')}" if left.dense_runs else ""
        again = f", {counted(left.again_epochs, 'epoch')} of dense runs again" if left.again else ""
        again += f", {len(left.done)} of the cells again, for their weights" if left.done else ""
        tell(f"{opened.study.name}: {counted(len(left.cells), 'cell')} to train{dense}{again}")
        with shown(console) as show:
            watch = _all_of(show, _written_to(log), _saying_what_went_wrong(console))
            flow.train(opened, client, data, watch)


def _all_of(*watching: Callable[[Event], None]) -> Callable[[Event], None]:
    def watch(event: Event) -> None:
        for one in watching:
            one(event)

    return watch


def _written_to(log: "StudyLog") -> Callable[[Event], None]:
    """Return what writes the progress into the log."""
    from lthdask.report.progress import told

    return told(lambda line, event: log.lines.log(LEVELS.get(event.status, logging.INFO), line))


def _saying_what_went_wrong(console: Console) -> Callable[[Event], None]:
    """Return what says on standard error which runs went wrong, where nothing else does."""
    errors = Console(stderr=True, quiet=not console.quiet)

    def watch(event: Event) -> None:
        if event.status in LEVELS:
            say(errors, f"{event.name} {event.status}")

    return watch


@contextmanager
def _end_in(log: "StudyLog") -> Iterator[None]:
    """Write into the log what began, and how it ended."""
    from lthdask.report.progress import duration
    from lthdask.storage.manifest import versions_here

    began = time.monotonic()
    command = shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]])
    versions = ", ".join(f"{package} {version}" for package, version in versions_here().items())
    log.lines.info("%s: process %d on %s, %s", command, os.getpid(), platform.node(), versions)
    try:
        yield
        log.lines.info("ended after %s", duration(time.monotonic() - began))
    except InputError as error:
        log.lines.error("ended: %s", on_command_line(str(error)))
        raise
    except KeyboardInterrupt:
        log.lines.warning("stopped after %s", duration(time.monotonic() - began))
        raise
    except Exception:
        log.lines.critical("ended by an unexpected error", exc_info=True)
        raise


def _say_that_all_is_done(console: Console, log: "StudyLog", opened: "Opened") -> None:
    from lthdask.storage.schema import Status

    failed = list(opened.cells.values()).count(Status.FAILED)
    again = f"nothing left to train, {failed} failed; `retry_failed` trains them again"
    line = f"{opened.study.name}: {again if failed else 'every cell is done'}"
    if failed and console.quiet:
        console = Console(stderr=True)
    say(console, line)
    log.lines.log(logging.ERROR if failed else logging.INFO, on_command_line(line))


@contextmanager
def stopping_once(console: Console) -> Iterator[None]:
    """Take one signal to stop; further ones must not disturb what leaves nothing in a queue."""
    try:
        yield
    except KeyboardInterrupt:
        from lthdask.cluster.workers import quiet_loops

        for number in (signal.SIGINT, *ENDING):
            signal.signal(number, signal.SIG_IGN)
        quiet_loops()
        say(console, "stopping the workers")
        raise
