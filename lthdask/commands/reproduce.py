"""Reproduce a published grid."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import rich_click as click
from rich.console import Console

from lthdask.commands import completion, options
from lthdask.commands.asked import Given, Where, changes
from lthdask.commands.options import DONE, KEYS, OUTPUT, STUDY, a_folder
from lthdask.commands.shared import Output, exit_with, say
from lthdask.commands.training import import_ahead, train
from lthdask.errors import InputError
from lthdask.options import Options

if TYPE_CHECKING:
    from lthdask.driver.opening import Opened

# Everything else is imported when it is needed: --help must not wait for torch.

CARDS = completion.shipped("published")


@click.command(
    "reproduce", context_settings=options.CONTEXT, epilog=f"CARD is one of: {', '.join(CARDS)}."
)
@click.argument("card", metavar="CARD", shell_complete=completion.one_of(CARDS))
@click.option(
    "--fraction",
    metavar="F",
    type=float,
    default=1.0,
    show_default=True,
    help="Train this share of the protocol's epochs, milestones and rewind epochs. The numbers "
    "are then not comparable; only the signatures are.",
    panel=STUDY,
)
@click.option(
    "--exact",
    is_flag=True,
    help="Also do what the authors' code does otherwise than ours, as far as settings can: "
    "shortcuts, initialisation, batch norm, images. What still differs is said.",
    panel=STUDY,
)
@options.replicates
@options.subset
@options.settings
@options.data
@options.download
@options.where_to_train
@a_folder(
    "--results",
    metavar="RUN",
    help="Train nothing: compare the results of this study's folder.",
    panel=DONE,
)
@a_folder(
    "--iterative",
    metavar="RUN",
    help="Folder of a study of the same protocol that pruned iteratively, for its signature.",
    panel=DONE,
)
@options.retry_failed
@a_folder(
    "--out",
    metavar="DIR",
    help="The study's folder (default: runs/reproduce-CARD, with -exact if it is).",
    panel=OUTPUT,
)
@options.as_json
@options.quiet
def command(**given: Any) -> None:
    """Train the grid of CARD as it was published, and compare.

    Prints the accuracies beside the published ones, with the noise. Also says in what their
    code still differs from ours, and which signatures hold of late rewinding, or of the first
    paper. The same command picks up where it left off.

    Exit codes: 0 if every signature holds, 1 if one does not or cannot be judged, 2 for
    invalid input.
    """
    # With --json, standard output holds nothing but JSON.
    console = Output(stderr=given["as_json"], quiet=given["quiet"])
    exit_with(console, lambda: _reproduce(console, given), resumes=True)


def _reproduce(console: Console, given: Given) -> int:
    where = Where.of(given)
    _require_used(given)
    if given["results"] is None:
        import_ahead(where)
    from lthdask.report.published import published
    from lthdask.report.reproduction import outcome, print_reproduction, reproduction
    from lthdask.storage.results import open_asked, open_results

    theirs = published(given["card"])
    # What cannot be read is said before anything is trained.
    rounds = open_results(given["iterative"]) if given["iterative"] else None
    if results := given["results"]:
        ours = open_results(results)
    else:
        opened = _train(console, theirs, where, given)
        results, ours = opened.folder.path, open_asked(opened.folder.path, opened.asked)
    found = reproduction(ours, theirs, rounds)
    if given["as_json"]:
        click.echo(json.dumps(outcome(found) | {"folder": str(results)}, indent=2))
    else:
        print_reproduction(console, found)
        say(console, f"results in {results}: lthdask.open_results({str(results)!r})")
    return 0 if found.holds else 1


def _require_used(given: Given) -> None:
    """Refuse options that would mean nothing where nothing is trained.

    Raises
    ------
    InputError
        If there is one.
    """
    if given["results"] is None:
        return
    kept = ("card", "results", "iterative", "as_json", "quiet", "cluster")
    usual = {"fraction": 1.0}
    names = {"settings": "set"}
    for name, value in given.items():
        if name not in kept and value not in (None, False, (), usual.get(name)):
            option = names.get(name, name).replace("_", "-")
            raise InputError(
                f"--{option} is for training, and with `results` nothing is trained; leave one "
                f"of them out"
            )


def _train(console: Console, theirs: Any, where: Where, given: Given) -> "Opened":
    """Train the published grid; return the study with its folder."""
    from lthdask.reading import flattened
    from lthdask.report.published import protocol
    from lthdask.study import Study

    study, exact = Study.read(theirs.study), given["exact"]
    keys = protocol(theirs, given["fraction"], study.recipe.schedule.milestones, exact)
    for name in ("replicates", "subset"):
        keys |= {KEYS[name]: given[name]} if given[name] else {}
    study = study.changed(keys | changes(given["settings"]))
    if exact and theirs.their_code:
        left = theirs.differing(flattened(study.to_dict()))
        say(console, f"what still differs from their code: {'; '.join(left)}")
    usual = f"reproduce-{given['card']}{'-exact' if exact else ''}"
    return train(
        console,
        study,
        where,
        given["out"] or Path("runs") / usual,
        given["data"],
        Options(download=given["download"], retry_failed=given["retry_failed"]),
    )
