"""Options that more than one command takes, in the same words."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from lthdask.commands.shared import DEPLOYMENTS

Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]


def _together(*options: Decorator) -> Decorator:
    """Return one decorator for several options, which ``--help`` shows in this order."""

    def decorated(command: Callable[..., Any]) -> Callable[..., Any]:
        for option in reversed(options):
            command = option(command)
        return command

    return decorated


data_set = _together(
    click.option(
        "--data",
        metavar="DIR",
        type=click.Path(path_type=Path),
        help="Folder of the data set, where it needs one.",
    ),
    click.option(
        "--download", is_flag=True, help="Fetch the data set into --data if it is missing."
    ),
)
where_to_train = _together(
    click.option(
        "--workers",
        metavar="N|MIN..MAX",
        help="Workers, one device each: processes of this machine, by default as many as it has "
        "GPUs, or else cores, for; or jobs of a queue, 1 by default.",
    ),
    click.option(
        "--cluster",
        metavar="FILE",
        type=click.Path(path_type=Path),
        help="Where to train, in Dask's format; ./cluster.yaml by default, if there is one.",
    ),
    click.option(
        "--deploy",
        metavar="WHERE",
        help=f"{', '.join(DEPLOYMENTS)}; in place of what the cluster file says. auto is Slurm "
        "where sbatch answers, this machine elsewhere.",
    ),
)
retry_failed = click.option("--retry-failed", is_flag=True, help="Train failed cells again.")
other_keys = click.option(
    "--set",
    "settings",
    metavar="KEY=VALUE",
    multiple=True,
    help="Any other key of the study, such as engine.threads=2. Repeatable.",
)
as_json = click.option(
    "--json", "as_json", is_flag=True, help="Print the outcome as JSON, for scripts."
)
