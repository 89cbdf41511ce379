"""What a person does with results: open them, and ask.

Importing this gives every dataset the accessor ``lth``, in which the questions stand.
"""

from typing import Any

import xarray as xr

import lthdask
from lthdask.storage.results import follow as follow
from lthdask.storage.results import open_asked as open_asked
from lthdask.storage.results import open_results as open_results


@xr.register_dataset_accessor("lth")
class Questions:
    """The questions that can be asked of results; each is the function of the same name.

    Examples
    --------
    >>> results.lth.verdicts(margin=1).verdict.sel(threshold=0.5, rewind_epoch=0).item()
    'winning ticket'
    """

    def __init__(self, results: xr.Dataset) -> None:
        self._results = results

    def select(self, **at: Any) -> xr.Dataset:
        """Ask :func:`lthdask.select`."""
        return lthdask.select(self._results, **at)

    def difference_to_dense(self, accuracy: str = "test_accuracy") -> xr.DataArray:
        """Ask :func:`lthdask.difference_to_dense`."""
        return lthdask.difference_to_dense(self._results, accuracy)

    def verdicts(self, margin: float | None = None, **options: Any) -> xr.Dataset:
        """Ask :func:`lthdask.verdicts`."""
        return lthdask.verdicts(self._results, margin, **options)

    def frontier(self, margin: float | None = None, level: float = 0.05) -> xr.Dataset:
        """Ask :func:`lthdask.frontier`."""
        return lthdask.frontier(self._results, margin, level)

    def controls(self, level: float = 0.05) -> xr.Dataset:
        """Ask :func:`lthdask.controls`."""
        return lthdask.controls(self._results, level)

    def early_stop(self, level: float = 0.05) -> xr.Dataset:
        """Ask :func:`lthdask.early_stop`."""
        return lthdask.early_stop(self._results, level)
