"""A study's results beside the published ones, with the noise, and the signatures."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import xarray as xr
from rich import box
from rich.console import Console
from rich.table import Table

from lthdask import growing
from lthdask.errors import InputError, on_command_line
from lthdask.reading import flattened
from lthdask.report.accuracy_map import print_table
from lthdask.report.contrasts import deviation_of_median
from lthdask.report.counterparts import medians
from lthdask.report.published import Accuracy, Numbers, Place, Published, column
from lthdask.report.signatures import Signature, signatures
from lthdask.storage.results import study_of
from lthdask.study import Study

OWN = ("name", "seed", "keep_until", "matching_margin", "grid.")
"""Keys in which a study may differ from the protocol."""
SUBSET = "data.subset"


@dataclass(frozen=True)
class Comparison:
    """An accuracy beside the published one.

    Attributes
    ----------
    place : Place or None
        None stands for the dense network.
    ours : Accuracy or None
        None if it is missing.
    published : Accuracy
    noise : float
        Two standard deviations, in points, of the difference of the two medians (dense: means),
        from the published standard deviation of one run and the number of runs of each. In
        one place of twenty, chance alone exceeds it.
    """

    place: Place | None
    ours: Accuracy | None
    published: Accuracy
    noise: float

    @property
    def difference(self) -> float | None:
        """Our accuracy minus the published one, in points."""
        return None if self.ours is None else self.ours.percent - self.published.percent

    @property
    def within(self) -> bool | None:
        """Whether the difference is within the noise; None where ours is missing."""
        return None if self.difference is None else abs(self.difference) <= self.noise


@dataclass(frozen=True)
class Reproduction:
    """Everything that can be said about a study beside a published grid.

    Attributes
    ----------
    card : Published
    comparisons : list of Comparison
    signatures : list of Signature
    differences : list of str
        Settings in which the study differs from the protocol. If there are any, the numbers
        are not comparable, only the signatures are.
    known : list of str
        In what the authors' code and data differ from the study all the same.
    epochs : int
        T of the study.
    """

    card: Published
    comparisons: list[Comparison]
    signatures: list[Signature]
    differences: list[str]
    known: list[str]
    epochs: int

    @property
    def holds(self) -> bool:
        """Whether every signature holds."""
        return all(signature.holds for signature in self.signatures)


def reproduction(
    results: xr.Dataset, card: Published, iterative: xr.Dataset | None = None
) -> Reproduction:
    """Compare results with a published grid.

    Parameters
    ----------
    results : xarray.Dataset
        Results of the grid, as from :func:`lthdask.open_results`.
    card : Published
    iterative : xarray.Dataset, optional
        Results of iterative pruning, where the grid is of one-shot pruning.

    Raises
    ------
    InputError
        If they are the results of something else.
    """
    if iterative is not None and card.schedule == "iterative":
        raise InputError(
            f"the grid of the card {card.study} is itself of iterative pruning; give results of it "
            f"with `results`, and leave out `iterative`"
        )
    ours = medians(results, card)
    rounds = None if iterative is None else medians(iterative, card, "iterative")
    return Reproduction(
        card,
        compare(ours, card),
        signatures(ours, card, rounds),
        differences(results, card),
        card.differing(_settings(results)),
        study_of(results)["recipe"]["epochs"],
    )


def compare(ours: Numbers, card: Published) -> list[Comparison]:
    """Return each published place of the grid beside ours; the dense network is last."""
    cells = [
        Comparison(place, own := ours.cells.get(place), said, _noise(own, said, card))
        for place, said in card.grid.cells.items()
    ]
    dense, own = card.grid.dense, ours.dense
    assert dense is not None
    runs = [accuracy.runs for accuracy in (own, dense) if accuracy]
    noise = 2 * card.dense_deviation * math.sqrt(sum(1 / n for n in runs))
    return [*cells, Comparison(None, own, dense, noise)]


def differences(results: xr.Dataset, card: Published) -> list[str]:
    """Return the settings in which a study is neither the card's nor nearer to its authors'."""
    lines = growing.differences(Study.read(card.study), Study.from_dict(study_of(results)))
    keys, settings = (line.partition(":")[0] for line in lines), _settings(results)
    theirs = {key for key, value in card.exact.items() if settings.get(key) == value}
    return [key for key in keys if key not in theirs and not key.startswith(OWN)]


def table(found: Reproduction) -> Table:
    """Return the published table, ours and their differences, in percent and points."""
    card, at = found.card, {c.place: c for c in found.comparisons}
    shown = Table(title="test accuracy, %", box=box.SIMPLE_HEAD, title_style="")
    shown.title_justify = "left"
    shown.add_column("remaining", justify="right")
    shown.add_column("")
    for arm, k in card.columns:
        shown.add_column(column(arm, k).removeprefix("ticket "), justify="right")
    replicates = max((c.ours.runs for c in found.comparisons if c.ours), default=0)
    for remaining in card.remaining:
        row = [at[Place(*column, remaining)] for column in card.columns]
        _add_rows(shown, f"{remaining:g} %", row, replicates, not found.differences)
    _add_rows(shown, "dense", [at[None]], replicates, not found.differences)
    return shown


def print_reproduction(console: Console, found: Reproduction) -> None:
    """Print everything."""
    print_table(console, table(found))
    for sentence in sentences(found):
        console.print(on_command_line(sentence), highlight=False, soft_wrap=True, markup=False)


def sentences(found: Reproduction) -> list[str]:
    """Return what the table does not say by itself, and the signatures."""
    card, judged = found.card, [c for c in found.comparisons if c.within is not None]
    said = [f"published: {card.source}"]
    if SUBSET in found.differences:
        said.append(
            "nothing is comparable here, neither the numbers nor the signatures, because the study "
            "trains on a subset of the images: take this as a trial of the command"
        )
    elif found.differences:
        said.append(
            f"the numbers are not comparable, only the signatures are, because the study "
            f"differs from the protocol in {', '.join(found.differences)}"
        )
    elif judged:
        outside = sum(not c.within for c in judged)
        noise = sorted({f"{c.noise:.2f}" for c in judged if c.place})
        said.append(
            f"* {outside} of {len(judged)} differ from the published ones by more than the noise "
            f"(± {' or '.join(noise)}; dense ± {found.comparisons[-1].noise:.2f}), which is two "
            f"standard deviations of the difference; chance exceeds it in 1 of 20 cases"
        )
    if found.epochs != card.epochs:
        pairs = (f"{k} is {own}" for k, own in card.rewind_epochs(found.epochs).items())
        said.append(
            f"the study has {found.epochs} epochs, and the protocol {card.epochs}; of the "
            f"published rewind epochs, {', '.join(pairs)} here"
        )
    if missing := len(found.comparisons) - len(judged):
        said.append(
            f"{missing} of {len(found.comparisons)} published accuracies have no counterpart here"
        )
    said += ["known differences between their protocol and ours:"] * bool(found.known)
    said += [f"    {difference}" for difference in found.known]
    for signature in found.signatures:
        said += [f"({signature.number}) {signature.claim}: {verdict(signature)}"]
        said += [f"    {check}" for check in signature.deciding[:5]]
        if signature.holds is None and signature.missing:
            said.append(f"    missing: {_first(signature.missing)}")
        elif signature.holds is None:
            said.append("    too few runs to tell: add replicates")
        said += [f"    {signature.note}"] * bool(signature.note)
    return said


def verdict(signature: Signature) -> str:
    """Return what became of a signature, in words."""
    return {True: "holds", False: "does not hold", None: "cannot be judged"}[signature.holds]


def outcome(found: Reproduction) -> dict[str, Any]:
    """Return all of it as values that JSON can hold."""
    dense = found.comparisons[-1]
    return {
        "study": found.card.study,
        "source": found.card.source,
        "epochs": found.epochs,
        "known_differences": found.known,
        "comparable": not found.differences,
        "differences": found.differences,
        "cells": [c.place._asdict() | _values(c) for c in found.comparisons if c.place],
        "dense": _values(dense),
        "signatures": [
            {
                "number": signature.number,
                "claim": signature.claim,
                "verdict": verdict(signature),
                "checks": [
                    {
                        "what": check.label,
                        "points": check.value,
                        "least": check.least if math.isfinite(check.least) else None,
                        "most": check.most if math.isfinite(check.most) else None,
                        "leeway": check.leeway,
                        "missing": list(check.missing),
                    }
                    for check in signature.checks
                ],
                "note": signature.note,
            }
            for signature in found.signatures
        ],
    }


def _settings(results: xr.Dataset) -> dict[str, Any]:
    """Return the settings of the study by their dotted keys."""
    return flattened(study_of(results))


def _noise(ours: Accuracy | None, published: Accuracy, card: Published) -> float:
    runs = [accuracy.runs for accuracy in (ours, published) if accuracy]
    return 2 * card.deviation * math.hypot(*map(deviation_of_median, runs))


def _values(comparison: Comparison) -> dict[str, Any]:
    ours = comparison.ours
    return {
        "ours": ours.percent if ours else None,
        "runs": ours.runs if ours else 0,
        "published": comparison.published.percent,
        "difference": comparison.difference,
        "noise": comparison.noise if ours else None,
        "within_noise": comparison.within,
    }


def _add_rows(
    shown: Table, name: str, row: Sequence[Comparison], replicates: int, comparable: bool
) -> None:
    """Add three rows: published, ours and, where they are comparable, the difference."""
    ours = [
        f"{c.ours.percent:.2f}" + (f" ({c.ours.runs})" if c.ours.runs < replicates else "")
        if c.ours
        else ""
        for c in row
    ]
    shown.add_row(name, "published", *(f"{c.published.percent:.2f}" for c in row))
    shown.add_row("", "ours", *ours, end_section=not comparable)
    if comparable:
        marked = [
            "" if c.difference is None else f"{c.difference:+.2f}{'' if c.within else '*'}"
            for c in row
        ]
        shown.add_row("", "difference", *marked, end_section=True)


def _first(names: Sequence[str]) -> str:
    more = f" and {len(names) - 5} more" if len(names) > 5 else ""
    return ", ".join(names[:5]) + more
