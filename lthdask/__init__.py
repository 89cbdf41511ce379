"""Lottery ticket grids at scale.

Names are imported when they are first used: the engine needs only torch, torchvision and
numpy, the results only zarr and xarray.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lthdask.cluster.client import open_client as open_client
    from lthdask.errors import InputError as InputError
    from lthdask.flow import run as run
    from lthdask.options import Options as Options
    from lthdask.storage.results import open_results as open_results
    from lthdask.study import Study as Study

_HOME = {
    "InputError": "errors",
    "Options": "options",
    "Study": "study",
    "open_client": "cluster.client",
    "open_results": "storage.results",
    "run": "flow",
}

__all__ = ["InputError", "Options", "Study", "open_client", "open_results", "run"]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return __all__
