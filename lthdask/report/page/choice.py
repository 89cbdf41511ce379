"""What somebody chooses on the page: an arm, a replicate, a cell. It is kept in the address."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import xarray as xr
from bokeh.layouts import row
from bokeh.models import CustomJS, Row, Select

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
        replicates = [str(replicate) for replicate in results.replicate.values.tolist()]
        mean = [(MEAN, f"mean of {len(replicates)}")] if len(replicates) > 1 else []
        arms = [(arm, arm.replace("_", " ")) for arm in results.arm.values.tolist()]
        self._offer(self.arm, arms)
        self._offer(self.replicate, [*mean, *((name, name) for name in replicates)])
        for select in (self.threshold, self.rewind_epoch):
            values = [repr(value) for value in results[select.name].values.tolist()]
            texts = [f"{float(value):g}" for value in values]
            self._offer(select, [("", "none"), *zip(values, texts, strict=True)])

    def _offer(self, select: Select, options: Sequence[tuple[str, str]]) -> None:
        values = [value for value, _ in options]
        wanted = select.value or self._wanted.get(select.name or "", "")
        if select.options != options:
            select.options = list(options)
        if select.value not in values or not select.value:
            select.value = wanted if wanted in values else values[0]

    def choose_cell(self, *at: float) -> None:
        """Choose the cell at a threshold and a rewind epoch, or none."""
        values = map(repr, at) if at else ("", "")
        self.threshold.value, self.rewind_epoch.value = values

    @property
    def choice(self) -> Choice:
        """What is chosen now."""
        at = self.threshold.value, self.rewind_epoch.value
        return Choice(
            self.arm.value,
            None if self.replicate.value in (MEAN, "") else int(self.replicate.value),
            (float(at[0]), float(at[1])) if all(at) else None,
        )
