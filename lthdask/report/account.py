"""The report of a study: what came out of it, what it cost, and how it came about."""

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import xarray as xr
from bokeh.plotting import figure
from rich import box
from rich.table import Table

from lthdask.arms import CHILDREN
from lthdask.reading import flattened, shown
from lthdask.report.controls import chosen_rewind_epochs
from lthdask.report.cost import cost
from lthdask.report.document import Section, document
from lthdask.report.figures.curves import learning_curves
from lthdask.report.figures.density import accuracy_over_density, early_stop_over_density
from lthdask.report.figures.layers import dead_channels_by_layer, density_by_layer
from lthdask.report.figures.map import difference_map
from lthdask.report.figures.masks import mask_distances
from lthdask.report.figures.rewinding import barrier_over_k, frontier_over_k
from lthdask.report.figures.timeline import timeline
from lthdask.report.masks import mask_sentences, mask_table
from lthdask.report.summary import counts, limits, sentences, sparsest_matching
from lthdask.report.tables import tables
from lthdask.rewinding import number, rewind
from lthdask.storage.results import open_part, study_of
from lthdask.storage.schema import CELL

GROUPS = ("layers", "records", "masks")
"""Groups of variables that a report shows, but for the curves, of which it reads those it draws."""


def report(results: xr.Dataset, why: Mapping[str, str] | None = None, methods: str = "") -> str:
    """Return the report of a study as one HTML page, which needs no network.

    Parameters
    ----------
    results : Dataset
        What ``lthdask.open_results(path, *GROUPS)`` returned.
    why : mapping of str to str, optional
        Why cells failed: what was raised → a file that says more.
    methods : str
        The methods in words, a paragraph on each line.
    """
    spent = cost(results)
    maps, over_axes, inside = _maps(results), _over_axes(results), _inside(results)
    sections = [
        Section("Summary", _summary(results)),
        Section("Tickets and controls beside the dense run", figures=[*maps.values()]),
        Section("Where it pays to prune, and to rewind", figures=[*over_axes.values()]),
        Section("Training and what is left of the layers", figures=[*inside.values()]),
        Section("Tables", tables=[*tables(results), *_mask_tables(results)]),
        Section("Cost", [str(spent) if spent else "No cell has a record of its time."],
                [timeline(results)]),
        Section("Failures", _failures(results, why or {})),
        *([Section("Methods", [*filter(None, methods.splitlines())])] if methods else []),
        Section("How it came about", facts=_provenance(results)),
        Section("The study", text=results.attrs["study"].strip()),
    ]  # fmt: skip
    name = str(study_of(results)["name"])
    return document(f"{name}: lottery tickets", _written(), sections)


def figures(results: xr.Dataset) -> dict[str, figure]:
    """Return the figures of a report, under the names that their files have.

    Parameters
    ----------
    results : Dataset
        What ``lthdask.open_results(path, *GROUPS)`` returned.
    """
    last = _named([timeline], results)
    return _maps(results) | _over_axes(results) | _inside(results) | last


def comparison(studies: Mapping[str, xr.Dataset]) -> str:
    """Return a page that compares studies: their settings, and their figures side by side.

    Parameters
    ----------
    studies : mapping of str to Dataset
        Name → what ``lthdask.open_results(path, *GROUPS)`` returned.
    """
    each = studies.items()
    sections = [
        *(Section(name, _summary(results)) for name, results in each),
        Section("Settings in which they differ", tables=[_differences(studies)]),
    ]
    for title, draw in _COMPARED.items():
        sections.append(
            Section(title, figures=[_of(name, draw(results)) for name, results in each])
        )
    return document(" and ".join(studies), _written(), sections)


def tidy(results: xr.Dataset) -> str:
    """Return the cells of a study as CSV: a row for each, and a column for each variable."""
    known = [name for name, of in results.data_vars.items() if set(of.dims) == set(CELL)]
    beside = [name for name in results.coords if set(results[name].dims) <= set(CELL)]
    words = dict(enumerate(results.status.attrs["flag_meanings"].split()))
    table = results[known].reset_coords()[[*known, *(n for n in beside if n not in CELL)]]
    rows = table.to_dataframe(dim_order=CELL).reset_index()
    rows["status"] = rows["status"].map(words)
    return str(rows.to_csv(index=False, lineterminator="\n"))


def _written() -> str:
    now = datetime.now(UTC)
    return f"written {now:%Y-%m-%d %H:%M} UTC by lthdask {version('lthdask')}"


def _summary(results: xr.Dataset) -> list[str]:
    """Return what came out, the most important first."""
    found = counts(results)
    states = ", ".join(f"{n} {name.replace('_', ' ')}" for name, n in found.items())
    dense = results.dense_test_accuracy.values
    known = [f"{accuracy:.2f} %" for accuracy in dense if accuracy == accuracy]
    trained = f"dense test accuracy {', '.join(known)}" if known else "no dense run is trained"
    *before, last = sentences(results)
    said = [last, f"cells: {states}; {trained}", *before, limits(results) or ""]
    masks = mask_sentences(results) if _masks_are_known(results) else []
    said = [*said, *masks] if "done" in found else [*masks, *said]
    return [_sentence(line) for line in said if line]


def _sentence(line: str) -> str:
    line = line.removeprefix("* ")
    return f"{line[0].upper()}{line[1:]}."


def _arms(results: xr.Dataset) -> list[str]:
    return [str(arm) for arm in results.arm.values if arm not in CHILDREN]


def _maps(results: xr.Dataset) -> dict[str, figure]:
    return {f"map-{arm.replace('_', '-')}": difference_map(results, arm) for arm in _arms(results)}


def _over_axes(results: xr.Dataset) -> dict[str, figure]:
    drawn = [accuracy_over_density, frontier_over_k, early_stop_over_density]
    return _named(drawn + [barrier_over_k] * ("barrier" in results), results)


def _inside(results: xr.Dataset) -> dict[str, figure]:
    drawn = [_learning_curves, density_by_layer, dead_channels_by_layer]
    return _named(drawn + [mask_distances] * _masks_are_known(results), results)


def _masks_are_known(results: xr.Dataset) -> bool:
    return bool(results.mask_distances.notnull().any())


def _mask_tables(results: xr.Dataset) -> list[Table]:
    return [mask_table(results)] if _masks_are_known(results) else []


def _named(
    drawn: Sequence[Callable[[xr.Dataset], figure]], results: xr.Dataset
) -> dict[str, figure]:
    return {draw.__name__.strip("_").replace("_", "-"): draw(results) for draw in drawn}


def _learning_curves(results: xr.Dataset) -> figure:
    """Return the learning curves of the sparsest ticket that matches, or else of the sparsest."""
    at = sparsest_matching(results)
    if at is None:
        chosen = chosen_rewind_epochs(results)
        last, k = results.threshold[0], results.rewind_epoch[0]
        if chosen.size:
            last, k = chosen.threshold[-1], chosen[-1]
        at = {"threshold": last.item(), "rewind_epoch": k.item()}
    threshold, k = at["threshold"], number(rewind(at["rewind_epoch"]))
    if "test_accuracy_curve" not in results:
        place = results.encoding["source"]
        results = open_part(place, "curves", threshold=threshold, rewind_epoch=k)
    return learning_curves(results, "ticket", threshold, k)


def _failures(results: xr.Dataset, why: Mapping[str, str]) -> list[str]:
    failed, diverged = (counts(results).get(name, 0) for name in ("failed", "diverged"))
    lines = [f"{failed} failed, {diverged} diverged." if failed or diverged else "None."]
    return lines + [f"{reason}; see {Path(*Path(file).parts[-3:])}" for reason, file in why.items()]


def _provenance(results: xr.Dataset) -> dict[str, str]:
    names = {"data": "data", "engine": "engine", "versions": "versions", "format": "format"}
    return {label: str(results.attrs.get(name, "unknown")) for name, label in names.items()}


def _of(name: str, plot: figure) -> figure:
    plot.title.text = f"{name}: {plot.title.text}"
    return plot


def _differences(studies: Mapping[str, xr.Dataset]) -> Table:
    """Return the settings that are not the same in all studies."""
    table = Table(title="", box=box.SIMPLE_HEAD)
    for head in ("setting", *studies):
        table.add_column(head)
    settings = [_settings(results) for results in studies.values()]
    for key in dict.fromkeys(key for of in settings for key in of):
        values = [of.get(key, "") for of in settings]
        if len(set(values)) > 1:
            table.add_row(key, *values)
    return table


def _settings(results: xr.Dataset) -> dict[str, str]:
    study = flattened(dict(study_of(results)))
    return {key: shown(value) for key, value in study.items()} | _provenance(results)


_COMPARED = {
    "Maps": difference_map,
    "Accuracy over density": accuracy_over_density,
    "Frontier over the rewind epoch": frontier_over_k,
    "Learning curves": _learning_curves,
    "Workers over time": timeline,
}
"""Figures that are shown side by side: heading → figure."""
