"""Lottery ticket grids at scale.

The names in ``__all__`` are stable: what their documentation says of them, their parameters and
what they return holds in every later version. One that is to go warns for two minor versions, with
a ``DeprecationWarning`` that names what takes its place; the changelog says so, too. Everything
else may change in any version. docs/stability.md lists them.

Names are imported when they are first used: the engine needs only torch, torchvision and
numpy, the results only zarr and xarray.
"""

import os
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lthdask.cluster.client import open_client as open_client
    from lthdask.errors import InputError as InputError
    from lthdask.flow import run as run
    from lthdask.interactive import submit as submit
    from lthdask.options import Options as Options
    from lthdask.report.controls import controls as controls
    from lthdask.report.early_stop import early_stop as early_stop
    from lthdask.report.paired import difference_to_dense as difference_to_dense
    from lthdask.report.selection import select as select
    from lthdask.report.verdict import frontier as frontier
    from lthdask.report.verdict import verdicts as verdicts
    from lthdask.results import follow as follow
    from lthdask.results import open_results as open_results
    from lthdask.storage.loading import load_ticket as load_ticket
    from lthdask.storage.transfer import transfer as transfer
    from lthdask.study import Study as Study
    from lthdask.training.hold import hold as hold
    from lthdask.worker.masks import open_mask as open_mask

_HOME = {
    "InputError": "errors",
    "Options": "options",
    "Study": "study",
    "controls": "report.controls",
    "difference_to_dense": "report.paired",
    "early_stop": "report.early_stop",
    "follow": "results",
    "frontier": "report.verdict",
    "hold": "training.hold",
    "load_ticket": "storage.loading",
    "open_client": "cluster.client",
    "open_mask": "worker.masks",
    "open_results": "results",
    "run": "flow",
    "select": "report.selection",
    "submit": "interactive",
    "transfer": "storage.transfer",
    "verdicts": "report.verdict",
}

__all__ = [
    "InputError",
    "Options",
    "Study",
    "controls",
    "difference_to_dense",
    "early_stop",
    "follow",
    "frontier",
    "hold",
    "load_ticket",
    "open_client",
    "open_mask",
    "open_results",
    "run",
    "select",
    "submit",
    "transfer",
    "verdicts",
]


if os.path.expanduser("~") == "~":  # a user without a name, as in containers
    os.environ["HOME"] = os.sep  # or packages that we import end with an error


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return __all__
