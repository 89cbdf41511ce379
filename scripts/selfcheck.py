"""Check the engine on this machine: python scripts/selfcheck.py --help."""

import platform
import time
from importlib.metadata import version

import click
from rich.console import Console

from lthdask.commands.shared import ended, say

# Everything else is imported when it is needed: --help must not wait for torch.


@click.command(context_settings={"max_content_width": 100})
@click.option(
    "--device",
    type=click.Choice(["auto", "cpu", "cuda"]),
    default="auto",
    show_default=True,
    help="What to train on; auto is a GPU where there is one.",
)
def main(device: str) -> None:
    """Check that masks, checkpoints, controls and cohorts are what they should be on this machine.

    Trains a small study of real digits, in well under a minute. Ends with 0 if all holds,
    with 1 if something does not, with 2 if what was given cannot be used.
    """
    console = Console()
    ended(console, lambda: _check(console, device))


def _check(console: Console, device: str) -> int:
    from lthdask.checks.machine import findings, small_experiment

    began = time.monotonic()
    experiment = small_experiment(device)
    engine = experiment.engine
    libraries = (f"{name} {version(name)}" for name in ("lthdask", "torch", "torchvision", "numpy"))
    say(console, f"{_name(engine.device)}, {engine.precision}, {engine.threads} thread(s)")
    say(console, f"Python {platform.python_version()}, {', '.join(libraries)}")
    failed = 0
    for finding in findings(experiment):
        failed += not finding.passed
        mark = "ok    " if finding.passed else "FAILED"
        say(console, f"{mark}  {finding.check}: {finding.text}")
    seconds = time.monotonic() - began
    say(console, f"{f'{failed} failed' if failed else 'all hold'}, in {seconds:.0f} s")
    return 1 if failed else 0


def _name(device: str) -> str:
    """Return what a device is called."""
    if device == "cpu":
        return f"cpu ({platform.machine()})"
    import torch

    return f"{device} ({torch.cuda.get_device_name()})"


if __name__ == "__main__":
    main()
