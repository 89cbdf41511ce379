"""Whether the engine does what it should on this machine."""

import platform
import time

import rich_click as click
from rich.console import Console

from lthdask.commands import options
from lthdask.commands.shared import counted, exit_with, say

# Everything else is imported when it is needed: --help must not wait for torch.


@click.command("selfcheck", context_settings=options.CONTEXT)
@click.option(
    "--device",
    type=click.Choice(["auto", "cpu", "cuda"]),
    default="auto",
    show_default=True,
    help="Device to train on. auto is a GPU if there is one.",
)
def command(device: str) -> None:
    """Check masks, checkpoints, controls and cohorts on this machine.

    Trains a small study of real digits, in well under a minute.

    Exit codes: 0 if every check holds, 1 if one does not, 2 for invalid input.
    """
    console = Console()
    exit_with(console, lambda: _check(console, device))


def _check(console: Console, device: str) -> int:
    from importlib.metadata import version

    from lthdask.checks.machine import device_name, findings
    from lthdask.checks.small_study import small_experiment

    began = time.monotonic()
    experiment = small_experiment(device)
    engine = experiment.engine
    libraries = (f"{name} {version(name)}" for name in ("lthdask", "torch", "torchvision", "numpy"))
    threads = counted(engine.threads, "thread")
    say(console, f"{device_name(engine.device)}, {engine.precision}, {threads}")
    say(console, f"Python {platform.python_version()}, {', '.join(libraries)}")
    failed = 0
    for finding in findings(experiment):
        failed += not finding.passed
        mark = "ok    " if finding.passed else "FAILED"
        say(console, f"{mark}  {finding.check}: {finding.text}")
    seconds = time.monotonic() - began
    say(console, f"{f'{failed} failed' if failed else 'all hold'}, in {seconds:.0f} s")
    return 1 if failed else 0
