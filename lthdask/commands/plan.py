"""What training a study would take: cells, epochs, disk and time."""

import json
from typing import TYPE_CHECKING, Any

import rich_click as click
from rich.console import Console

from lthdask.commands import options
from lthdask.commands.options import Given, Where, how_to_train, study_of
from lthdask.commands.shared import counted, exit_with, say

if TYPE_CHECKING:
    from lthdask.study import Study

# Everything else is imported when it is needed: --help must not wait for torch.


@click.command("plan", context_settings=options.CONTEXT)
@options.whole_study
@options.where_to_train
@options.retry_failed
@options.masks_only
@options.adaptive
@options.out
@options.as_json
def command(**given: Any) -> None:
    """Print what a run would do: cells, epochs, disk and time.

    The options are those of the run. Nothing is started, and nothing is written.

    Exit codes: 0, or 2 for invalid input.
    """
    console = Console(stderr=given["as_json"])
    exit_with(console, lambda: print_plan(console, study_of(given), Where.of(given), given))


def print_plan(console: Console, study: "Study", where: Where, given: Given) -> int:
    """Say what a run would do; return the exit code.

    Raises
    ------
    InputError
        If something that was given cannot be used.
    """
    values = _plan(study, where, given)
    if given["as_json"]:
        click.echo(json.dumps(values, indent=2))
        return 0
    cells, runs, workers = values["cells"], values["dense_runs"], values["workers"]
    say(console, f"{study.name}: {counted(cells, 'cell')} to train, {values['done']} done")
    dense = f"{counted(runs, 'dense run')} of {study.recipe.epochs}"
    say(console, f"epochs  {values['epochs']}, with {dense}")
    say(console, f"disk    {values['disk_bytes'] / 1e6:.0f} MB")
    if values["seconds"] is None:
        say(console, f"time    not known: {values['judged_by']}")
        return 0
    from lthdask.report.progress import duration

    on = f"{counted(workers, 'worker')} ({values['deployment']})"
    time = f"about {duration(values['seconds'])} on {on}"
    say(console, f"time    {time}, judged by {values['judged_by']}")
    return 0


def _plan(study: "Study", where: Where, given: Given) -> dict[str, Any]:
    """Return what a run would do, as ``--json`` prints it."""
    from lthdask.cluster.deployment import choose, room
    from lthdask.cluster.settings import Settings
    from lthdask.driver.plan import plan

    settings = Settings.read(where.cluster)
    deployment = choose(settings, where.deploy, where.scheduler, lambda line: None)
    here = deployment == "local"
    found = plan(study, given["out"], given["data"], how_to_train(given), here=here)
    most = room(deployment, study.engine.threads)
    asked = where.workers[1] if where.workers else most or 1
    workers = min(asked, most) if most else asked
    return {
        "study": study.name,
        "cells": len(found.cells),
        "done": found.done,
        "dense_runs": found.dense_runs,
        "epochs": found.epochs,
        "disk_bytes": found.disk,
        "deployment": deployment,
        "workers": workers,
        "seconds": found.seconds(workers, study.recipe.epochs),
        "judged_by": found.source,
    }
