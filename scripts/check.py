"""Check that a study's folder is whole: python scripts/check.py --help."""

import sys
from pathlib import Path

import click
from rich.console import Console

from lthdask.errors import InputError

# Everything else is imported when it is needed: --help must not wait for torch.


@click.command(context_settings={"max_content_width": 100})
@click.argument("run", metavar="RUN", type=click.Path(path_type=Path))
@click.option("--repair", "mend", is_flag=True, help="Mark what is damaged to be trained again.")
def main(run: Path, mend: bool) -> None:
    """Read all that a study wrote into its folder RUN, and say what is damaged.

    And what has to be trained again; --repair marks just that, and the study's own command
    then trains it. Ends with 0 if everything is whole or could be repaired, with 1 if
    something is damaged, with 2 if there is no study, or --repair finds it being run.
    """
    console = Console(soft_wrap=True, highlight=False, markup=False)
    try:
        from lthdask.checks.folder import check, repair

        found = repair(run) if mend else check(run)
    except InputError as error:
        Console(stderr=True).print(f"error: {error}", highlight=False, soft_wrap=True, markup=False)
        sys.exit(2)
    for damage in found:
        console.print(str(damage))
    left = [damage for damage in found if damage.mend is None or not mend]
    if not found:
        console.print(f"{run} is whole")
    elif not left:
        console.print("repaired; the command that trained the study trains what is missing")
    elif any(damage.mend for damage in left):
        console.print(f"python scripts/check.py {run} --repair marks just that")
    sys.exit(1 if left else 0)


if __name__ == "__main__":
    main()
