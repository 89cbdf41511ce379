"""What training a study would take: cells, epochs, disk and time."""

import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import rich_click as click
from rich.console import Console

from lthdask.commands import options
from lthdask.commands.asked import Given, Where, asked_study, how_to_train
from lthdask.commands.shared import counted, exit_with, say

if TYPE_CHECKING:
    from lthdask.rewinding import Rewind
    from lthdask.study import Study

# Everything else is imported when it is needed: --help must not wait for torch.


@click.command("plan", context_settings=options.CONTEXT)
@options.whole_study
@options.where_to_train
@options.retry_failed
@options.masks_only
@options.adaptive
@options.keep
@options.out
@options.as_json
def command(**given: Any) -> None:
    """Print what a run would do: network, cells, epochs, disk, worker-hours and time.

    Times are of the order in which the run would train, for --workers and for 1, 2, 4, ...
    workers, as if every epoch took as long as another. The plain nested loop trains every cell
    for all epochs, and shares none with the dense run.

    The options are those of the run. Nothing is started, and nothing is written. Data are looked at
    where they can be read from here.

    Exit codes: 0, or 2 for invalid input.
    """
    console = Console(stderr=given["as_json"])
    exit_with(console, lambda: print_plan(console, asked_study(given), Where.of(given), given))


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
    cells, runs = values["cells"], values["dense_runs"]
    say(console, f"{study.name}: {counted(cells, 'cell')} to train, {values['done']} done")
    dense = f"{counted(runs, 'dense run')} of {study.recipe.epochs}"
    say(console, f"network {_sized(study, values['network'])}")
    # A search leaves out cells that the loop would train: that is not saved by sharing.
    most, saved = ("", _saved(values)) if given["adaptive"] is None else ("at most ", "")
    say(console, f"epochs  {most}{_short(values['epochs'])}, with {dense}{_again(values)}{saved}")
    for line in _rewinding(study, values["steps"]):
        say(console, f"rewind  {line}")
    disk, more = (values[name] / 1e6 for name in ("disk_bytes", "disk_meanwhile_bytes"))
    meanwhile = f", and at most {more:.0f} MB more while it runs" if more else ""
    say(console, f"disk    {disk:.0f} MB{meanwhile}")
    _say_time(console, values)
    if values["epochs"]:
        _print_schedules(console, values["schedules"])
    return 0


def _sized(study: "Study", size: dict[str, Any] | None) -> str:
    """Say which network it is, and how large."""
    from lthdask.own import plain

    form = study.network.settings().get("form")
    name = plain(study.network.name) + (f", form {form}" if form else "")
    if size is None:
        return f"{name}: its size is known once the data are read"
    takes = f"{size['parameters']:,} parameters, {size['prunable']:,} of them prunable"
    if size["multiply_adds"] is None:
        return f"{name}: {takes}; multiply-adds cannot be counted: {size['problem']}"
    shape = "×".join(map(str, size["input"]))
    return f"{name}: {takes}, {size['multiply_adds']:,} multiply-adds for an input of {shape}"


def _again(values: dict[str, Any]) -> str:
    """Say what is trained again of dense runs, whose states were not kept, or are lost."""
    again = values["epochs_again"]
    return f" and {counted(again, 'epoch')} again, for states that are not there" if again else ""


def _saved(values: dict[str, Any]) -> str:
    """Say what the plain nested loop would train instead."""
    more, fewer = values["plain_epochs"], values["epochs"]
    if more == fewer:
        return ""
    return f"; the plain nested loop trains {more:,}: sharing saves {_percent(1 - fewer / more)}"


def _rewinding(study: "Study", steps: int) -> list[str]:
    """Say at which steps the rewind epochs lie that are no whole epochs."""
    from lthdask.rewinding import step_of

    ks = [k for k in study.grid.ks if not isinstance(k, int)]
    if ks and not steps:
        unknown = "how many steps an epoch has is not known before a worker has read the data"
        return [f"{unknown}; until then, iterations count as none"]
    told = [f"k={k:g} is step {step_of(k, steps):,}{_exactly(k, steps)}" for k in ks]
    return [f"{', '.join(told)}; an epoch has {counted(steps, 'step')}"] if told else []


def _exactly(k: "Rewind", steps: int) -> str:
    """Return at which step k lies, where it is between two."""
    from lthdask.rewinding import is_between

    return (
        f", the nearest to {k * steps:.4g}" if isinstance(k, float) and is_between(k, steps) else ""
    )


def _short(epochs: float) -> str:
    return f"{epochs:,}" if isinstance(epochs, int) else f"{epochs:,.1f}"


def _say_time(console: Console, values: dict[str, Any]) -> None:
    from lthdask.report.progress import duration

    if values["seconds"] is None:
        say(console, f"time    not known: {values['judged_by']}")
        return
    on = f"{counted(values['workers'], 'worker')} ({values['deployment']})"
    say(
        console,
        f"time    about {duration(values['seconds'])} on {on}, judged by {values['judged_by']}",
    )
    hours = values["worker_hours"]
    say(console, f"work    {hours:{',.0f' if hours >= 10 else '.2g'}} worker-hours")


def _print_schedules(console: Console, schedules: list[dict[str, Any]]) -> None:
    """Print how long some numbers of workers need."""
    from rich import box
    from rich.table import Table

    from lthdask.report.accuracy_map import print_table
    from lthdask.report.progress import duration

    timed = schedules[0]["seconds"] is not None
    table = Table("workers", "time" if timed else "epochs in a row", "busy", box=box.SIMPLE)
    for column in table.columns:
        column.justify = "right"
    for row in schedules:
        took = duration(row["seconds"]) if timed else _short(row["wall_epochs"])
        table.add_row(f"{row['workers']:,}", took, _percent(row["busy"]))
    print_table(console, table)


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %"


def _plan(study: "Study", where: Where, given: Given) -> dict[str, Any]:
    """Return what a run would do, as ``--json`` prints it."""
    from lthdask.cluster.deployment import choose, room
    from lthdask.cluster.settings import Settings
    from lthdask.data.readers import require_folder
    from lthdask.driver.plan import plan

    settings = Settings.read(where.cluster)
    deployment = choose(settings, where.deploy, where.scheduler, lambda line: None)
    here = deployment == "local"
    found = plan(study, given["out"], given["data"], how_to_train(given), here=here)
    if found.epochs and given["data"] is None:  # wherever it is trained
        require_folder(study.data, None)
    most = room(deployment, study.engine.threads)
    asked = where.workers[1] if where.workers else most or 1
    workers = min(asked, most) if most else asked
    seconds = found.seconds(found.epochs)
    return {
        "study": study.name,
        "network": found.size and asdict(found.size),
        "cells": len(found.cells),
        "done": found.done,
        "dense_runs": found.dense_runs,
        "epochs": found.epochs,
        "steps": found.steps,
        "epochs_again": found.left.again_epochs,
        "plain_epochs": found.plain,
        "disk_bytes": found.disk,
        "disk_meanwhile_bytes": found.meanwhile(workers),
        "deployment": deployment,
        **asdict(found.on(workers)),
        "worker_hours": None if seconds is None else seconds / 3600,
        "judged_by": found.source,
        "schedules": [asdict(schedule) for schedule in found.on_some(also=workers)],
    }
