"""The command `lthdask`, of which every other command is a part."""

import rich_click as click

from lthdask.commands import (
    check,
    cluster_file,
    export,
    latency,
    masks,
    options,
    plan,
    prepare,
    report,
    reproduce,
    results,
    run,
    selfcheck,
    status,
    watch,
)


@click.group(context_settings=options.CONTEXT)
@click.version_option(package_name="lthdask", prog_name="lthdask")
def main() -> None:
    """Lottery ticket grids at scale: pruning thresholds by rewind epochs.

    Start with `lthdask run`. Without any option, it trains a small grid on real digits.
    """


parts = (
    run,
    status,
    watch,
    results,
    report,
    masks,
    export,
    latency,
    plan,
    prepare,
    check,
    selfcheck,
    reproduce,
    cluster_file,
)
for part in parts:
    main.add_command(part.command)
