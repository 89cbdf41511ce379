"""Reproduce a published grid: python scripts/reproduce.py --help."""

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
    say,
    train,
    worker_count,
)

# Everything else is imported when it is needed: --help must not wait for torch.

CARDS = sorted(
    file.name.removesuffix(".yaml") for file in (resources.files("lthdask") / "published").iterdir()
)


@click.command(
    context_settings={"max_content_width": 100}, epilog=f"CARD is one of: {', '.join(CARDS)}."
)
@click.argument("card", metavar="CARD")
@options.data_set
@click.option(
    "--out",
    metavar="DIR",
    type=click.Path(path_type=Path),
    help="The study's folder; runs/reproduce-CARD by default. What is done in it is not done "
    "again.",
)
@click.option(
    "--results",
    metavar="RUN",
    type=click.Path(path_type=Path),
    help="Train nothing: compare the results of this study's folder.",
)
@click.option(
    "--iterative",
    metavar="RUN",
    type=click.Path(path_type=Path),
    help="Folder of a study of the same protocol that pruned iteratively, for its signature.",
)
@click.option(
    "--fraction",
    metavar="F",
    type=float,
    default=1.0,
    show_default=True,
    help="Train this share of the protocol's epochs, milestones and rewind epochs. The numbers "
    "are then not comparable; only the signatures may be looked at.",
)
@click.option("--replicates", metavar="N", help="Independent repetitions of the whole grid.")
@options.where_to_train
@options.retry_failed
@options.other_keys
@options.as_json
def main(**given: Any) -> None:
    """Train the grid of CARD as it was published, and compare.

    Prints the accuracies beside the published ones, with the noise, and which of the six
    signatures of late rewinding hold. Run it again to finish what is not finished. Ends
    with 0 if every signature holds, with 1 if one does not, or cannot be judged, with 2 if
    something that was given cannot be used.
    """
    # With --json, standard output holds nothing but JSON.
    console = Console(stderr=given["as_json"])
    ended(console, lambda: _run(console, **given))


def _run(
    console: Console,
    card: str,
    data: Path | None,
    download: bool,
    out: Path | None,
    results: Path | None,
    iterative: Path | None,
    fraction: float,
    replicates: str | None,
    workers: str | None,
    cluster: Path | None,
    deploy: str | None,
    retry_failed: bool,
    settings: tuple[str, ...],
    as_json: bool,
) -> int:
    count, cluster = worker_count(workers), cluster_file(cluster, deploy)
    if results is None:
        import_ahead(cluster, deploy, None)
    from lthdask.report.published import protocol, published
    from lthdask.report.reproduction import outcome, print_reproduction, reproduction
    from lthdask.storage.results import read_results
    from lthdask.study import Study

    theirs = published(card)
    rounds = read_results(iterative) if iterative else None  # before anything is trained
    if results is None:
        study = Study.read(theirs.study)
        given = {"grid.replicates": replicates} if replicates else {}
        asked = protocol(theirs, fraction, study.recipe.schedule.milestones)
        results = train(
            console,
            study.changed(asked | given | changes(settings)),
            out or Path("runs") / f"reproduce-{card}",
            data,
            download=download,
            workers=count,
            cluster=cluster,
            deploy=deploy,
            retry_failed=retry_failed,
        )
    found = reproduction(read_results(results), theirs, rounds)
    if as_json:
        click.echo(json.dumps(outcome(found) | {"folder": str(results)}, indent=2))
    else:
        print_reproduction(console, found)
        say(console, f"results in {results}: lthdask.open_results({str(results)!r})")
    return 0 if found.holds else 1


if __name__ == "__main__":
    main()
