"""The options of every command, each declared once; `asked` says what they mean together."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import rich_click as click

from lthdask.arms import ARMS, CHILDREN
from lthdask.cluster.places import DEPLOYMENTS
from lthdask.commands import completion
from lthdask.options import Options

if TYPE_CHECKING:
    pass

Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]

# Lines without frames: they are read in a pipe as well, and searched with grep.
CONTEXT: dict[str, Any] = {
    "rich_help_config": {
        "theme": "default-slim",
        "max_width": 100,
        "text_paragraph_linebreaks": "\n\n",
        "padding_helptext_first_line": (0, 0, 1, 0),
        "style_errors_panel_box": "BLANK",
        "errors_panel_title": "error",
    }
}
STUDY, WHERE, DONE, OUTPUT = "Study", "Where to train", "What is done", "Output"
OWN_ARMS = [arm for arm in ARMS if arm not in CHILDREN]
"""Arms that are asked for by name; children come with ``--stability``."""
KEYS: dict[str, str] = {}
"""Options that set one key of the study: name → key."""


def together(*options: Decorator) -> Decorator:
    """Return one decorator for several options, which ``--help`` shows in this order."""

    def decorated(command: Callable[..., Any]) -> Callable[..., Any]:
        for option in reversed(options):
            command = option(command)
        return command

    return decorated


def _key(option: str, key: str, text: str, **attributes: Any) -> Decorator:
    """Return an option that sets a key of the study."""
    KEYS[option.removeprefix("--").replace("-", "_")] = key
    return click.option(option, help=text, panel=STUDY, **attributes)


def a_folder(option: str, **attributes: Any) -> Decorator:
    """Return an option that takes a folder."""
    kind = click.Path(path_type=Path)
    return click.option(option, type=kind, shell_complete=completion.folder, **attributes)


study = click.option(
    "--study",
    metavar="NAME|FILE",
    default="digits",
    show_default=True,
    shell_complete=completion.study,
    help=f"The study: {', '.join(completion.shipped('studies'))}, or a YAML file.",
    panel=STUDY,
)
code = click.option(
    "--code",
    metavar="FILE",
    multiple=True,
    type=click.Path(path_type=Path),
    help="Run this file, such as mine.py, whose functions the study names, such as mine:build. "
    "Repeatable.",
    panel=STUDY,
)
subset = _key("--subset", "data.subset", "Take the first N training images only.", metavar="N")
replicates = _key(
    "--replicates", "grid.replicates", "Independent repetitions of the whole grid.", metavar="N"
)
settings = click.option(
    "--set",
    "settings",
    metavar="KEY=VALUE",
    multiple=True,
    help="Set any other key of the study, such as engine.threads=2. Repeatable.",
    panel=STUDY,
)
folder = click.argument(
    "folder",
    metavar="[DIR]",
    required=False,
    type=click.Path(path_type=Path),
    shell_complete=completion.folder,
)
data = a_folder(
    "--data", metavar="DIR", help="Folder of the data set, if it needs one.", panel=STUDY
)
download = click.option(
    "--download",
    is_flag=True,
    help="Fetch the data set into --data if it is missing.",
    panel=STUDY,
)
ticket = click.option(
    "--ticket",
    metavar="RUN|FILE",
    type=click.Path(path_type=Path),
    shell_complete=completion.folder,
    help="Train the tickets that another run kept, in place of one's own: network and grid are "
    "theirs, data and recipe those of --study. Of a FILE, all replicates have the one ticket.",
    panel=STUDY,
)
whole_study = together(
    study,
    ticket,
    _key(
        "--thresholds",
        "grid.thresholds",
        "Shares of the prunable weights to prune, between 0 and 1, such as 0.5,0.9. They are "
        "cutoffs with --set pruning.by=cutoff. Other arms can have some of them: --set "
        "grid.thresholds_of.reinit=0.9.",
        metavar="LIST",
    ),
    _key(
        "--rewind-epochs",
        "grid.rewind_epochs",
        "Epochs of the dense run that tickets restart from, such as 0,0.5,2; or iterations, such "
        "as 0,100it,500it. Other arms can have some of them: "
        "--set grid.rewind_epochs_of.lr_rewind=1.",
        metavar="LIST",
    ),
    _key(
        "--arms",
        "grid.arms",
        f"What to do with a mask (default: ticket). Any of {', '.join(OWN_ARMS)}.",
        metavar="LIST",
        shell_complete=completion.list_of(OWN_ARMS),
    ),
    click.option(
        "--stability",
        is_flag=True,
        help="Also train two children of each checkpoint, and measure the barrier between them.",
        panel=STUDY,
    ),
    _key(
        "--pruning",
        "pruning.schedule",
        "Prune all at once, or in --rounds. Set the rate of a round with --set pruning.rate=0.2.",
        type=click.Choice(["one_shot", "iterative"]),
    ),
    _key(
        "--rounds",
        "pruning.rounds",
        "Rounds of iterative pruning, in place of thresholds.",
        metavar="N",
    ),
    subset,
    _key("--epochs", "recipe.epochs", "Epochs of the dense run, T.", metavar="N"),
    replicates,
    _key("--seed", "seed", "The number that every random draw derives from.", metavar="N"),
    _key(
        "--device",
        "engine.device",
        "Device that cells train on. auto is a GPU if a worker has one.",
        type=click.Choice(["auto", "cpu", "cuda"]),
    ),
    settings,
    code,
    data,
)
where_to_train = together(
    click.option(
        "--workers",
        metavar="N|MIN..MAX",
        help="Number of workers, one device each: on this machine or in an allocation (default: "
        "one per GPU, else per core, as far as memory has room), or in queued jobs (default: 1).",
        panel=WHERE,
    ),
    click.option(
        "--deploy",
        metavar="WHERE",
        shell_complete=completion.one_of(DEPLOYMENTS),
        help=f"{', '.join(DEPLOYMENTS)}. The default is what the cluster file says, or auto: "
        "srun in a Slurm allocation with GPUs, slurm if sbatch answers here, else local.",
        panel=WHERE,
    ),
    click.option(
        "--scheduler",
        metavar="ADDRESS",
        help="Address of a running Dask scheduler, to use its workers.",
        panel=WHERE,
    ),
    click.option(
        "--cluster",
        metavar="FILE",
        type=click.Path(path_type=Path),
        help="Cluster file, in Dask's format (default: ./cluster.yaml, if it is there).",
        panel=WHERE,
    ),
)
retry_failed = click.option(
    "--retry-failed", is_flag=True, help="Train failed cells again.", panel=DONE
)
masks_only = click.option(
    "--masks-only",
    is_flag=True,
    help="Train the dense runs and compare the masks of their epochs, but train no cell.",
    panel=DONE,
)
adaptive = click.option(
    "--adaptive",
    metavar="BUDGET",
    type=float,
    help="Search for the frontier of matching tickets with this share of the grid's epochs.",
    panel=DONE,
)
keep = together(
    click.option(
        "--keep",
        metavar="WHAT",
        default=Options.keep,
        show_default=True,
        help="Trained networks to keep in the folder tickets: none, matching (until the verdict "
        "all tickets, then those that are not worse than dense), all, or a list of threshold, "
        "rewind epoch and arm, such as 0.9:2,0.95:2:reinit. What is done and was not kept is "
        "trained again for it.",
        panel=DONE,
    ),
    click.option(
        "--keep-rewound",
        is_flag=True,
        help="Keep the weights that they were trained from, too.",
        panel=DONE,
    ),
)
out = a_folder(
    "--out", metavar="DIR", help="The study's folder (default: runs/NAME).", panel=OUTPUT
)
as_json = click.option(
    "--json",
    "as_json",
    is_flag=True,
    help="Print JSON on standard output, and everything else on standard error.",
    panel=OUTPUT,
)
quiet = click.option(
    "--quiet",
    is_flag=True,
    help="Print warnings and errors only: no bar, no tables; with --json, the JSON.",
    panel=OUTPUT,
)
port = click.option(
    "--port",
    metavar="N",
    type=click.IntRange(0, 65535),
    default=0,
    help="Port of this machine at which the page listens (default: any that is free).",
    panel=OUTPUT,
)
allow_origin = click.option(
    "--allow-origin",
    metavar="HOST:PORT",
    multiple=True,
    help="Another address from which a browser may have the page, such as a proxy's; it can be "
    "given several times. Those of this machine are always allowed.",
    panel=OUTPUT,
)
