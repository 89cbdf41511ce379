"""Train a lottery ticket grid."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import rich_click as click
from rich.console import Console

from lthdask.commands import options
from lthdask.commands.asked import Given, Where, asked_study, how_to_train
from lthdask.commands.options import DONE, WHERE
from lthdask.commands.plan import print_plan
from lthdask.commands.report import leave_report
from lthdask.commands.results import print_outcome
from lthdask.commands.shared import Output, counted, exit_with, say
from lthdask.commands.status import print_status
from lthdask.commands.training import import_ahead, train
from lthdask.errors import InputError, listed
from lthdask.options import Options

if TYPE_CHECKING:
    from lthdask.storage.folder import Folder
    from lthdask.study import Study

# Everything else is imported when it is needed: --help must not wait for torch.


@click.command("run", context_settings=options.CONTEXT)
@options.whole_study
@options.download
@options.where_to_train
@click.option(
    "--print-job-script",
    is_flag=True,
    help="Print the job script that would be submitted, and start nothing.",
    panel=WHERE,
)
@options.retry_failed
@click.option(
    "--max-attempts",
    metavar="N",
    type=click.IntRange(min=1),
    default=Options.max_attempts,
    show_default=True,
    help="Mark a cell as failed after this many attempts without new saved progress.",
    panel=DONE,
)
@options.masks_only
@options.adaptive
@options.keep
@options.allow_origin
@click.option("--dry-run", is_flag=True, help="Start nothing, and do as `plan` does.", panel=DONE)
@click.option("--status", is_flag=True, help="Start nothing, and do as `status` does.", panel=DONE)
@options.out
@options.as_json
@options.quiet
def command(**given: Any) -> None:
    """Train a lottery ticket grid and fill its Zarr cube.

    The dense network is trained first, then every ticket of the grid: pruning thresholds by
    rewind epochs. The same command picks up where it left off. What is done is never trained
    again.

    Exit codes: 0 if no cell is pending or failed, 1 if one is, 2 for invalid input.
    """
    # With --json, standard output holds nothing but JSON.
    console = Output(stderr=given["as_json"], quiet=given["quiet"])
    exit_with(console, lambda: _run(console, given), resumes=True)


def _run(console: Console, given: Given) -> int:
    where, as_json = Where.of(given), given["as_json"]
    starts_nothing = [name for name in ("status", "dry_run", "print_job_script") if given[name]]
    if len(starts_nothing) > 1:
        options = listed(f"--{name.replace('_', '-')}" for name in starts_nothing)
        raise InputError(f"choose one of {options}")
    if not starts_nothing:
        import_ahead(where)
    study = asked_study(given)
    if given["status"]:
        return print_status(console, given["out"] or Path("runs") / study.name, as_json)
    if given["print_job_script"]:
        return _print_job_script(where)
    if given["dry_run"]:
        return print_plan(console, study, where, given)
    opened = train(console, study, where, given["out"], given["data"], how_to_train(given))
    folder = opened.folder.path
    tell = _print_masks if given["masks_only"] else print_outcome
    code = tell(console, folder, as_json, study)
    if opened.more and not given["masks_only"]:
        more = "; ".join(f"{axis} {listed(values)}" for axis, values in opened.more.items())
        say(console, f"{folder} has more than this ({more}): lthdask results {folder}")
    if opened.options.keep != "none":
        _say_kept(console, opened.folder)
    leave_report(console, folder)
    return code


def _say_kept(console: Console, folder: "Folder") -> None:
    from lthdask.storage.tickets import Tickets

    tickets = Tickets(folder)
    kept = counted(len(tickets.names()), "ticket")
    say(console, f"{kept} kept in {tickets.path}: lthdask.load_ticket(FILE)")


def _print_job_script(where: Where) -> int:
    """Print what would be submitted to the queue, or to Slurm where none is chosen."""
    from lthdask.cluster.jobs import job_script
    from lthdask.cluster.places import QUEUES
    from lthdask.cluster.settings import Settings

    settings = Settings.read(where.cluster)
    queue = where.deploy or settings.deployment
    if queue == "srun":
        raise InputError("`deployment` is srun, which queues no job; choose slurm to see one")
    click.echo(job_script(settings, queue if queue in QUEUES else "slurm"))
    return 0


def _print_masks(console: Console, folder: Path, as_json: bool, study: "Study") -> int:
    """Say how the masks of the dense epochs differ."""
    from lthdask.report.accuracy_map import print_table
    from lthdask.report.masks import mask_sentences, mask_table, mask_values
    from lthdask.storage.results import open_asked

    results = open_asked(folder, study, "masks")
    if as_json:
        click.echo(json.dumps(mask_values(results) | {"folder": str(folder)}, indent=2))
        return 0
    print_table(console, mask_table(results))
    for sentence in mask_sentences(results):
        say(console, sentence)
    return 0
