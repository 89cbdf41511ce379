"""What the commands share: training with a bar and a quiet end, errors and exit codes."""

import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from lthdask.errors import InputError, one_of

if TYPE_CHECKING:
    from lthdask.study import Study

# Everything else is imported when it is needed: --help must not wait for torch.

DEPLOYMENTS = ("auto", "local", "slurm", "pbs", "sge", "lsf", "htcondor")


def ended(console: Console, body: Callable[[], int]) -> None:
    """Run the body of a command and exit with its code: 2 for bad input, 130 if stopped."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        sys.exit(body())
    except InputError as error:
        Console(stderr=True).print(f"error: {error}", highlight=False, soft_wrap=True, markup=False)
        sys.exit(2)
    except KeyboardInterrupt:
        console.print("stopped; the same command goes on from here", highlight=False)
        sys.exit(130)


def say(console: Console, line: str) -> None:
    """Print a line as it is."""
    console.print(line, highlight=False, soft_wrap=True, markup=False)


def worker_count(text: str | None) -> tuple[int, int] | None:
    """Return the least and the most workers of ``--workers``."""
    if text is None:
        return None
    low, _, high = text.partition("..")
    try:
        least, most = int(low), int(high or low)
    except ValueError:
        raise InputError(f"--workers is a number, or MIN..MAX; got {text!r}") from None
    if not 1 <= least <= most:
        raise InputError(f"--workers must be 1 or more, and MIN not above MAX; got {text}")
    return least, most


def changes(settings: tuple[str, ...]) -> dict[str, str]:
    """Return the keys and values of ``--set``."""
    found = {}
    for setting in settings:
        key, equals, value = setting.partition("=")
        if not equals:
            raise InputError(f"--set takes KEY=VALUE; got {setting!r}")
        found[key.strip()] = value.strip()
    return found


def cluster_file(cluster: Path | None, deploy: str | None) -> Path | None:
    """Return the cluster file, given or lying here; refuse a deployment that there is not."""
    if deploy is not None and deploy not in DEPLOYMENTS:
        raise one_of("deployment", deploy, DEPLOYMENTS)
    here = Path("cluster.yaml")
    return here if cluster is None and here.is_file() else cluster


def import_ahead(cluster: Path | None, deploy: str | None, scheduler: str | None) -> None:
    """Have what workers of this machine need imported while this process does the same.

    Raises
    ------
    InputError
        If there is something wrong with the cluster file.
    """
    from lthdask.cluster.deployment import choose
    from lthdask.cluster.settings import Settings

    settings = Settings.read(cluster)
    if choose(settings, deploy, scheduler, lambda line: None) == "local":
        from lthdask.cluster.local import start_forkserver

        with settings.applied():
            start_forkserver()


def train(
    console: Console,
    study: "Study",
    out: Path | None,
    data: Path | None,
    *,
    download: bool = False,
    workers: tuple[int, int] | None = None,
    cluster: Path | None = None,
    deploy: str | None = None,
    scheduler: str | None = None,
    retry_failed: bool = False,
    max_attempts: int = 3,
    masks_only: bool = False,
    adaptive: float | None = None,
) -> Path:
    """Open a client, train what is left of a study, and show it; return the study's folder.

    Parameters
    ----------
    console : Console
        Where it is shown.
    study, out, data, download, retry_failed, max_attempts, masks_only, adaptive
        As for :func:`lthdask.run`.
    workers, cluster, deploy, scheduler
        As for :func:`lthdask.open_client`.

    Raises
    ------
    InputError
        If something that was given cannot be used.
    KeyboardInterrupt
        If it was stopped; the workers have ended by then.
    """
    from lthdask.cluster.client import open_client
    from lthdask.cluster.deployment import choose
    from lthdask.cluster.local import local_workers
    from lthdask.cluster.settings import Settings
    from lthdask.storage.schema import Status

    where = Settings.read(cluster)  # what is wrong with it is said before anything starts
    from lthdask import flow
    from lthdask.driver.opening import driving_study
    from lthdask.options import Options
    from lthdask.report.progress import shown

    options = Options(
        download, retry_failed, max_attempts, where.checkpoint_interval, masks_only, adaptive
    )
    with driving_study(study, out, options) as opened:
        left = opened.remaining()
        if not (left.cells or left.dense_runs or masks_only):
            failed = list(opened.cells.values()).count(Status.FAILED)
            again = f"nothing left to train, {failed} failed; --retry-failed trains them again"
            say(console, f"{study.name}: {again if failed else 'every cell is done'}")
            return opened.folder.path
        deployment = choose(where, deploy, scheduler, lambda line: say(console, line))
        threads, room = study.engine.threads, local_workers(study.engine.threads)
        if deployment == "local" and workers and workers[1] > room:
            say(console, f"{workers[1]} workers asked for; this machine has room for {room}")
        with (
            open_client(
                workers,
                threads=threads,
                cluster=cluster,
                deployment=deployment,
                scheduler=scheduler,
                say=lambda line: say(console, line),
            ) as client,
            stopping_once(console),
        ):
            runs = len(left.dense_runs)
            also = f", {runs} dense run{'s' * (runs > 1)}" if runs else ""
            say(console, f"{study.name}: {len(left.cells)} cells to train{also}")
            with shown(console) as watch:
                flow.train(opened, client, data, watch)
    return opened.folder.path


@contextmanager
def stopping_once(console: Console) -> Iterator[None]:
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
