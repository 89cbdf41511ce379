"""What the commands share: training with a bar and a quiet end, errors and exit codes."""

import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from lthdask.cluster.places import DEPLOYMENTS
from lthdask.errors import InputError, on_command_line, one_of

if TYPE_CHECKING:
    from lthdask.study import Study

# Everything else is imported when it is needed: --help must not wait for torch.


def ended(console: Console, body: Callable[[], int]) -> None:
    """Run the body of a command and exit with its code: 2 for bad input, 130 if stopped."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        sys.exit(body())
    except InputError as error:
        say(Console(stderr=True), f"error: {error}")
        sys.exit(2)
    except KeyboardInterrupt:
        say(console, "stopped; the same command goes on from here")
        sys.exit(130)


def say(console: Console, line: str) -> None:
    """Print a line as it is, but for parameters in backticks: here they are options."""
    console.print(on_command_line(line), highlight=False, soft_wrap=True, markup=False)


def counted(number: int, noun: str) -> str:
    """Return a number with its noun, in the plural where that is right."""
    return f"{number} {noun}{'s' * (number != 1)}"


def worker_count(text: str | None) -> tuple[int, int] | None:
    """Return the least and the most workers of ``--workers``."""
    if text is None:
        return None
    low, _, high = text.partition("..")
    try:
        least, most = int(low), int(high or low)
    except ValueError:
        raise InputError(f"`workers` is a number, or MIN..MAX; got {text!r}") from None
    if not 1 <= least <= most:
        raise InputError(f"`workers` must be 1 or more, and MIN not above MAX; got {text}")
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
    """Return the cluster file, given or lying here; refuse an unknown deployment."""
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
    from lthdask.cluster.settings import Settings

    where = Settings.read(cluster)  # what is wrong with it is said before anything starts
    from lthdask.driver.preparing import existing, remaining
    from lthdask.flow import run
    from lthdask.report.summary import cells_with
    from lthdask.storage.driver import refuse_if_driven
    from lthdask.storage.results import read_results

    folder = existing(study, out)
    left = remaining(study, folder, retry_failed)
    if not left.cells and not left.dense_runs and not masks_only:
        failed = len(cells_with(read_results(folder.path), "failed"))
        again = f"nothing left to train, {failed} failed; --retry-failed trains them again"
        say(console, f"{study.name}: {again if failed else 'every cell is done'}")
        return folder.path
    refuse_if_driven(folder.path)
    from lthdask.cluster.client import open_client
    from lthdask.cluster.deployment import choose
    from lthdask.cluster.local import local_workers
    from lthdask.cluster.workers import quiet_loops
    from lthdask.report.progress import shown

    deployment = choose(where, deploy, scheduler, lambda line: say(console, line))
    threads, room = study.engine.threads, local_workers(study.engine.threads)
    if deployment == "local" and workers and workers[1] > room:
        say(console, f"{workers[1]} workers asked for; this machine has room for {room}")
    with open_client(
        workers,
        threads=threads,
        cluster=cluster,
        deployment=deployment,
        scheduler=scheduler,
        say=lambda line: say(console, line),
    ) as client:
        try:
            runs = len(left.dense_runs)
            also = f", {runs} dense run{'s' * (runs > 1)}" if runs else ""
            say(
                console,
                f"{study.name}: {0 if masks_only else len(left.cells)} cells to train{also}",
            )
            with shown(console) as watch:
                run(
                    study,
                    client,
                    out,
                    data,
                    download=download,
                    retry_failed=retry_failed,
                    max_attempts=max_attempts,
                    masks_only=masks_only,
                    adaptive=adaptive,
                    checkpoint_interval=where.checkpoint_interval,
                    watch=watch,
                )
        except KeyboardInterrupt:
            # Once is enough: what follows leaves nothing behind in a queue.
            signal.signal(signal.SIGINT, signal.SIG_IGN)
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            quiet_loops()
            say(console, "stopping the workers")
            raise
    return folder.path
