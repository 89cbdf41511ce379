"""What somebody chooses on the page: an arm, a replicate, a cell. It is kept in the address."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import xarray as xr
from bokeh.layouts import row
from bokeh.models import CustomJS, Row, Select

from lthdask.report.labels import ks_of

Options = Sequence[tuple[str, str]]
MEAN = "mean"
KEEP = """
const url = new URL(window.location)
for (const select of selects) {
  if (select.value) url.searchParams.set(select.name, select.value)
  else url.searchParams.delete(select.name)
}
window.history.replaceState(null, "", url)
"""


class Choice(NamedTuple):
    """What is shown.

    Attributes
    ----------
    arm : str
    replicate : int or None
        None is the mean over all of them.
    cell : (float, float) or None
        Threshold and rewind epoch of the cell whose curves are shown.
    """

    arm: str
    replicate: int | None
    cell: tuple[float, float] | None


class Chooser:
    """Lists to choose from, which the keyboard reaches too.

    Parameters
    ----------
    wanted : mapping of str to str
        What the address asks for.
    """

    def __init__(self, wanted: Mapping[str, str]) -> None:
        self._wanted = wanted
        self.arm = Select(title="arm", name="arm", width=150)
        self.replicate = Select(title="replicate", name="replicate", width=120)
        self.threshold = Select(title="threshold", name="threshold", width=110)
        self.rewind_epoch = Select(title="rewind epoch", name="rewind_epoch", width=110)
        self.selects = [self.arm, self.replicate, self.threshold, self.rewind_epoch]
        keep = CustomJS(args={"selects": self.selects}, code=KEEP)
        for select in self.selects:
            select.js_on_change("value", keep)

    def layout(self) -> Row:
        """Return the lists side by side."""
        return row(*self.selects)

    def offer(self, results: xr.Dataset) -> None:
        """Offer what a study has; what was chosen stays chosen."""
        for select, options in zip(self.selects, _offers(results), strict=True):
            if select.options != options:
                select.options = list(options)
            select.value = self._chosen(select, options)
        self._wanted = {}

    def _chosen(self, select: Select, options: Options) -> str:
        """Return what is chosen of what is offered; at first, what the address asks for."""
        wanted = self._wanted.get(select.name or "", select.value)
        values = [value for value, _ in options]
        return wanted if wanted in values else values[0]

    def choose_cell(self, *at: float) -> None:
        """Choose the cell at a threshold and a rewind epoch, or none."""
        values = map(repr, at) if at else ("", "")
        self.threshold.value, self.rewind_epoch.value = values

    def choice(self, results: xr.Dataset) -> Choice:
        """Return what is chosen of what a study has."""
        offers = zip(self.selects, _offers(results), strict=True)
        arm, replicate, *at = (self._chosen(select, options) for select, options in offers)
        return Choice(
            arm,
            None if replicate == MEAN else int(replicate),
            (float(at[0]), float(at[1])) if all(at) else None,
        )


def _offers(results: xr.Dataset) -> list[Options]:
    """Return what each list offers: values, and how they are shown."""
    replicates = [str(replicate) for replicate in results.replicate.values.tolist()]
    mean = [(MEAN, f"mean of {len(replicates)}")] if len(replicates) > 1 else []
    arms = [(arm, arm.replace("_", " ")) for arm in results.arm.values.tolist()]
    thresholds = [(t, f"{t:g}") for t in results.threshold.values.tolist()]
    ks = zip(results.rewind_epoch.values.tolist(), ks_of(results), strict=True)
    return [
        arms,
        [*mean, *((name, name) for name in replicates)],
        [("", "none"), *((repr(value), text) for value, text in thresholds)],
        [("", "none"), *((repr(value), f"{k:g}") for value, k in ks)],
    ]
