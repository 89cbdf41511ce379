"""Train a lottery ticket grid: python scripts/run.py --help."""

import json
from importlib import resources
from pathlib import Path
from typing import Any

import click
from rich.console import Console

from lthdask.commands import options
from lthdask.commands.shared import (
    changes,
    cluster_file,
    ended,
    import_ahead,
    train,
    worker_count,
)
from lthdask.commands.shared import say as _say
from lthdask.errors import InputError
from lthdask.grid import ARMS

# Everything else is imported when it is needed: --help must not wait for torch.

STUDIES = sorted(
    file.name.removesuffix(".yaml") for file in (resources.files("lthdask") / "studies").iterdir()
)
COMMON = {
    "thresholds": "grid.thresholds",
    "rewind_epochs": "grid.rewind_epochs",
    "arms": "grid.arms",
    "replicates": "grid.replicates",
    "pruning": "pruning.schedule",
    "rounds": "pruning.rounds",
    "epochs": "recipe.epochs",
    "seed": "seed",
    "device": "engine.device",
}


@click.command(context_settings={"max_content_width": 100})
@click.option(
    "--study",
    "which",
    metavar="NAME|FILE",
    default="digits",
    show_default=True,
    help=f"The study: {', '.join(STUDIES)}, or a YAML file.",
)
@click.option(
    "--thresholds",
    metavar="LIST",
    help="Shares of the prunable weights to prune, between 0 and 1, such as 0.5,0.9; "
    "or cutoffs, with --set pruning.by=cutoff.",
)
@click.option(
    "--rewind-epochs",
    metavar="LIST",
    help="Epochs of the dense run that tickets restart from, such as 0,1,2.",
)
@click.option(
    "--arms",
    metavar="LIST",
    help=f"What is done with a mask: of {', '.join(list(ARMS)[:5])}; ticket by default.",
)
@click.option(
    "--stability",
    is_flag=True,
    help="Train two children of each checkpoint, too, and measure the barrier between them.",
)
@click.option(
    "--pruning",
    type=click.Choice(["one_shot", "iterative"]),
    help="All at once, or in --rounds; the rate of a round is --set pruning.rate=0.2.",
)
@click.option("--rounds", metavar="N", help="Rounds of iterative pruning, in place of thresholds.")
@click.option("--epochs", metavar="N", help="Epochs of the dense run, T.")
@click.option("--replicates", metavar="N", help="Independent repetitions of the whole grid.")
@click.option("--seed", metavar="N", help="What every random draw derives from.")
@click.option(
    "--device",
    type=click.Choice(["auto", "cpu", "cuda"]),
    help="What cells train on; auto is a GPU where a worker has one.",
)
@options.other_keys
@click.option(
    "--out",
    metavar="DIR",
    type=click.Path(path_type=Path),
    help="The study's folder; runs/NAME by default. What is done in it is not done again.",
)
@options.data_set
@options.where_to_train
@click.option("--scheduler", metavar="ADDRESS", help="A Dask scheduler that runs already.")
@click.option(
    "--print-job-script", is_flag=True, help="Print what would be submitted, and start nothing."
)
@options.retry_failed
@click.option(
    "--max-attempts",
    metavar="N",
    type=click.IntRange(min=1),
    default=3,
    show_default=True,
    help="A cell is failed once so many attempts ended without a newer saved state.",
)
@click.option(
    "--masks-only",
    is_flag=True,
    help="Train the dense runs and compare the masks of their epochs, but train no cell.",
)
@click.option(
    "--adaptive",
    metavar="BUDGET",
    type=float,
    help="Search the frontier of matching tickets, within this share of the grid's epochs.",
)
@click.option(
    "--status", "status_only", is_flag=True, help="Print how far a study is, and start nothing."
)
@click.option("--dry-run", is_flag=True, help="Say what would be done, and start nothing.")
@options.as_json
def main(**given: Any) -> None:
    """Train a lottery ticket grid and fill its Zarr cube.

    Trains the dense network once, then every ticket of the grid: thresholds by rewind
    epochs. Run it again to finish what is not finished; what is done is never trained
    again. Ends with 0 if no cell is pending or failed, with 1 if one is, with 2 if
    something that was given cannot be used.
    """
    # With --json, standard output holds nothing but JSON.
    console = Console(stderr=given["as_json"])
    ended(console, lambda: _run(console, **given))


def _run(
    console: Console,
    which: str,
    settings: tuple[str, ...],
    out: Path | None,
    data: Path | None,
    download: bool,
    workers: str | None,
    cluster: Path | None,
    deploy: str | None,
    scheduler: str | None,
    print_job_script: bool,
    retry_failed: bool,
    max_attempts: int,
    stability: bool,
    masks_only: bool,
    adaptive: float | None,
    status_only: bool,
    dry_run: bool,
    as_json: bool,
    **common: str | None,
) -> int:
    count, cluster = worker_count(workers), cluster_file(cluster, deploy)
    if not (status_only or dry_run or print_job_script):
        import_ahead(cluster, deploy, scheduler)
    given = {COMMON[name]: str(value) for name, value in common.items() if value is not None}
    from lthdask.study import Study

    study = Study.read(which).changed(given | changes(settings))
    if stability:
        arms = dict.fromkeys([*study.grid.arms, "ticket_child", "dense_child"])
        study = study.changed({"grid.arms": ",".join(arms)})
    if status_only:
        return _print_status(console, out or Path("runs") / study.name, as_json)
    from lthdask.cluster.settings import Settings

    where = Settings.read(cluster)  # what is wrong with it is said before anything starts
    if print_job_script:
        from lthdask.cluster.jobs import job_script

        queue = deploy or where.deployment
        queue = queue if queue not in ("auto", "local", "scheduler") else "slurm"
        click.echo(job_script(where, queue))
        return 0

    from lthdask.storage.results import read_results

    if dry_run:
        from lthdask.cluster.deployment import choose

        place = choose(where, deploy, scheduler, lambda line: None)
        return _print_plan(console, study, out, data, retry_failed, count, place, as_json)
    folder = train(
        console,
        study,
        out,
        data,
        download=download,
        workers=count,
        cluster=cluster,
        deploy=deploy,
        scheduler=scheduler,
        retry_failed=retry_failed,
        max_attempts=max_attempts,
        masks_only=masks_only,
        adaptive=adaptive,
    )
    if masks_only:
        return _print_masks(console, read_results(folder), folder, as_json)
    return _print_outcome(console, read_results(folder), study, folder, as_json)


def _print_masks(console: Console, results: Any, folder: Path, as_json: bool) -> int:
    """Say how the masks of the dense epochs differ."""
    from lthdask.report.masks import mask_sentences, mask_table, mask_values

    if as_json:
        click.echo(json.dumps(mask_values(results) | {"folder": str(folder)}, indent=2))
        return 0
    console.print(mask_table(results))
    for sentence in mask_sentences(results):
        _say(console, sentence)
    return 0


def _print_plan(
    console: Console,
    study: Any,
    out: Path | None,
    data: Path | None,
    retry_failed: bool,
    workers: tuple[int, int] | None,
    deployment: str,
    as_json: bool,
) -> int:
    """Say what would be done."""
    from lthdask.cluster.local import local_workers
    from lthdask.driver.plan import plan
    from lthdask.options import Options
    from lthdask.report.progress import duration

    here = deployment == "local"
    found = plan(study, out, data, Options(retry_failed=retry_failed), here=here)
    room = local_workers(study.engine.threads)
    asked = workers[1] if workers else (room if here else 1)
    count = min(asked, room) if here else asked
    seconds = found.seconds(count, study.recipe.epochs)
    if as_json:
        values = {
            "study": study.name,
            "cells": len(found.cells),
            "done": found.done,
            "dense_runs": found.dense_runs,
            "epochs": found.epochs,
            "disk_bytes": found.disk,
            "deployment": deployment,
            "workers": count,
            "seconds": seconds,
        }
        click.echo(json.dumps(values, indent=2))
        return 0
    _say(console, f"{study.name}: {len(found.cells)} cells to train, {found.done} done")
    _say(
        console,
        f"epochs  {found.epochs}, with {found.dense_runs} dense runs of {study.recipe.epochs}",
    )
    _say(console, f"disk    {found.disk / 1e6:.0f} MB")
    if seconds is None:
        _say(console, f"time    not known: {found.source}")
    else:
        _say(
            console,
            f"time    about {duration(seconds)} on {count} workers ({deployment}), "
            f"judged by {found.source}",
        )
    return 0


def _print_status(console: Console, out: Path, as_json: bool) -> int:
    """Say how far a study is, and who runs it."""
    from lthdask.report.summary import counts
    from lthdask.storage.driver import driver_of
    from lthdask.storage.folder import Folder
    from lthdask.storage.results import read_results
    from lthdask.study import Study

    folder = Folder(out)
    text = folder.study()
    if text is None:
        raise InputError(f"there is no study in {folder.path}; give its folder with --out")
    study = Study.parse(text, str(folder.path / "study.yaml"))
    results = read_results(folder.path)
    found = ", ".join(f"{count} {status}" for status, count in counts(results).items())
    manifest, driver = folder.manifest(), driver_of(folder.path)
    dense = len(manifest.checkpoints) if manifest else 0
    _say(console, f"{study.name}: {found}; {dense} of {study.grid.replicates} dense runs trained")
    _say(console, f"being run by {driver}" if driver else "nobody runs it now")
    for name, state in folder.unfinished().items():
        _say(console, f"  {name}: {state}")
    return _print_outcome(console, results, study, folder.path, as_json)


def _print_outcome(console: Console, results: Any, study: Any, folder: Path, as_json: bool) -> int:
    """Say what came out, and return the exit code."""
    from lthdask.report.summary import cells_with, limits, outcome, reasons, sentences
    from lthdask.report.tables import print_table, tables
    from lthdask.storage.folder import Folder

    why = reasons(results, Folder(folder))
    if as_json:
        values = outcome(results, study.matching_margin)
        click.echo(json.dumps(values | {"folder": str(folder), "reasons": why}, indent=2))
    else:
        for table in tables(results, study.matching_margin):
            print_table(console, table)
        for sentence in (*sentences(results, study.matching_margin), limits(results)):
            if sentence:
                _say(console, sentence)
        for reason, file in list(why.items())[:5]:
            _say(console, f"failed: {reason}; see {file}")
        if len(why) > 5:
            _say(console, f"and {len(why) - 5} more reasons; see {folder / 'cells'}")
        _say(console, f"results in {folder}: lthdask.open_results({str(folder)!r})")
    return 1 if cells_with(results, "pending") or cells_with(results, "failed") else 0


if __name__ == "__main__":
    main()
