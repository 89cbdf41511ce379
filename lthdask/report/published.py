"""Published grids: what was measured there, and how to train the same cells."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib import resources
from typing import Any, Literal, NamedTuple

from lthdask.changing import REWIND_EPOCHS_OF
from lthdask.errors import InputError, one_of
from lthdask.strict_yaml import loaded

Schedule = Literal["one_shot", "iterative"]


class Place(NamedTuple):
    """Where an accuracy stands in a grid.

    `rewind_epoch` is that of the published protocol, and None where the arm has none.
    `remaining` is the share of the prunable weights that remains, in percent.
    """

    arm: str
    rewind_epoch: int | None
    remaining: float

    def __str__(self) -> str:
        """Return the place as it is shown."""
        return f"{column(self.arm, self.rewind_epoch)} at {self.remaining:g} %"


class Accuracy(NamedTuple):
    """Test accuracy in percent: the median of `runs` runs (dense: the mean)."""

    percent: float
    runs: int


class Steps(NamedTuple):
    """Steps until the lowest validation loss: the median of `runs` runs."""

    steps: float
    runs: int


class Difference(NamedTuple):
    """What the authors do otherwise, and the settings (key → value) that do so, too."""

    text: str
    settings: Mapping[str, Any]


@dataclass(frozen=True)
class Numbers:
    """The accuracies of a grid; those that are missing were not measured.

    Attributes
    ----------
    cells : mapping of Place to Accuracy
    dense : Accuracy or None
    speed : mapping of Place to Steps
        When validation loss was lowest.
    """

    cells: Mapping[Place, Accuracy]
    dense: Accuracy | None
    speed: Mapping[Place, Steps] = field(default_factory=dict)


@dataclass(frozen=True)
class Published:
    """A published grid.

    Attributes
    ----------
    study : str
        The shipped study that follows its protocol.
    source : str
    epochs : int
        T.
    schedule : {"one_shot", "iterative"}
        How the grid was pruned that a study is compared with.
    one_shot, iterative : Numbers
        All weights pruned at once, and in rounds.
    deviation, dense_deviation : float
        Standard deviations of one run of a cell and of one dense run, in points. That of a
        cell is pooled over the cells of the grid, which all have as many runs.
    steps_deviation : float
        Likewise of the natural logarithm of the steps of a cell; NaN where none were published.
    their_code : tuple of Difference
        In what the authors' code differs from ours, and their data from the study's.
    remaining : tuple of float
        The rows, in percent.
    columns : tuple of (str, int or None)
        Arm and rewind epoch.
    rules : str
        Which signatures it has: a name of `lthdask.report.signatures.TABLES`.
    signature : mapping
        The numbers of its signatures.
    """

    study: str
    source: str
    epochs: int
    schedule: Schedule
    one_shot: Numbers
    iterative: Numbers
    deviation: float
    dense_deviation: float
    steps_deviation: float
    their_code: tuple[Difference, ...]
    remaining: tuple[float, ...]
    columns: tuple[tuple[str, int | None], ...]
    rules: str
    signature: Mapping[str, Any]

    @property
    def grid(self) -> Numbers:
        """The accuracies that a study is compared with."""
        return self.one_shot if self.schedule == "one_shot" else self.iterative

    @property
    def arms(self) -> list[str]:
        """The arms of the grid."""
        return list(dict.fromkeys(arm for arm, _ in self.columns))

    @property
    def exact(self) -> dict[str, Any]:
        """The settings that take away every difference that can be."""
        return {key: value for of in self.their_code for key, value in of.settings.items()}

    def differing(self, settings: Mapping[str, Any]) -> list[str]:
        """Return in what the authors' code differs from a study with these `settings`, by key."""
        return [
            of.text
            for of in self.their_code
            if not of.settings or any(settings.get(k) != value for k, value in of.settings.items())
        ]

    def rewind_epochs(self, epochs: int) -> dict[int, int]:
        """Return each published rewind epoch → its equivalent in a study of `epochs` epochs.

        It is scaled in proportion and rounded. Those that coincide with others, or leave
        nothing to train, are left out.
        """
        published = sorted({k for _, k in self.columns if k is not None})
        scaled = {k: scale(k, epochs, self.epochs) for k in published}
        found = list(scaled.values())
        return {k: own for k, own in scaled.items() if found.count(own) == 1 and own < epochs}


def cards() -> list[str]:
    """Return the names of the published grids that are shipped."""
    folder = resources.files("lthdask") / "published"
    return sorted(f.name.removesuffix(".yaml") for f in folder.iterdir())


def published(name: str) -> Published:
    """Return a published grid by the name of its study.

    Raises
    ------
    InputError
        If there is none.
    """
    if name not in cards():
        raise one_of("card", name, cards())
    text = (resources.files("lthdask") / "published" / f"{name}.yaml").read_text(encoding="utf-8")
    values = loaded(text, name)
    dense = values["dense"]
    whole = Accuracy(dense["accuracy"], dense["runs"])
    one_shot, iterative = (values.get(name, []) for name in ("one_shot", "iterative"))
    grid = one_shot or iterative
    return Published(
        values["study"],
        values["source"],
        values["epochs"],
        "one_shot" if one_shot else "iterative",
        _numbers(one_shot, whole, values),
        _numbers(iterative, whole, values),
        _pooled(grid, "deviation"),
        dense["deviation"],
        _pooled(grid, "steps_deviation"),
        tuple(Difference(of["differs"], of.get("settings", {})) for of in values["their_code"]),
        tuple(values["remaining"]),
        tuple((column["arm"], column["rewind_epoch"]) for column in grid),
        values.get("rules", "late_rewinding"),
        values["signature"],
    )


def protocol(
    card: Published, fraction: float = 1.0, milestones: Sequence[int] = (), exact: bool = False
) -> dict[str, Any]:
    """Return what to change in the card's study to train its grid, or a fraction of it.

    Parameters
    ----------
    card : Published
    fraction : float
        Share of the epochs, in (0, 1]: T, the milestones and the rewind epochs are multiplied
        by it and rounded.
    milestones : sequence of int
        The milestones of the study.
    exact : bool
        Whether to take away the differences from the authors' code that settings can.

    Raises
    ------
    InputError
        If rewind epochs or milestones would coincide.
    """
    changes = {"grid.arms": ",".join(card.arms)} | (card.exact if exact else {})
    if fraction == 1:
        return changes | _of_arms(card, card.epochs)
    epochs = round(fraction * card.epochs) if 0 < fraction < 1 else 0
    if not _apart(card, epochs, milestones):
        least = next(t for t in range(card.epochs + 1) if _apart(card, t, milestones))
        raise InputError(
            f"`fraction` must be at most 1 and leave at least {least} of {card.epochs} epochs, "
            f"so that rewind epochs and milestones stay apart; got {fraction:g}"
        )
    rewinds = card.rewind_epochs(epochs).values()
    drops = (scale(epoch, epochs, card.epochs) for epoch in milestones)
    return (
        changes
        | _of_arms(card, epochs)
        | {
            "recipe.epochs": str(epochs),
            "recipe.schedule.milestones": ",".join(map(str, drops)),
            "grid.rewind_epochs": ",".join(map(str, rewinds)),
        }
    )


def scale(epoch: int, epochs: int, published: int) -> int:
    """Return where one of the `published` epochs lies in a study of `epochs`."""
    return round(epoch * epochs / published)


def column(arm: str, rewind_epoch: int | None) -> str:
    """Return the heading of a column."""
    return arm if rewind_epoch is None else f"{arm} k={rewind_epoch}"


def _numbers(
    columns: Sequence[Mapping[str, Any]], dense: Accuracy, values: Mapping[str, Any]
) -> Numbers:
    found: dict[str, dict[Place, float]] = {"accuracy": {}, "steps": {}}
    for column in columns:
        for name, cells in found.items():
            places = (Place(column["arm"], column["rewind_epoch"], r) for r in values["remaining"])
            known = zip(places, column.get(name, ()), strict=False)
            cells.update((place, value) for place, value in known if value is not None)
    runs = values["replicates"]
    return Numbers(
        {place: Accuracy(percent, runs) for place, percent in found["accuracy"].items()},
        dense,
        {place: Steps(steps, runs) for place, steps in found["steps"].items()},
    )


def _pooled(columns: Sequence[Mapping[str, Any]], name: str) -> float:
    variances = [deviation**2 for column in columns for deviation in column.get(name, ())]
    return math.sqrt(math.fsum(variances) / len(variances)) if variances else math.nan


def _of_arms(card: Published, epochs: int) -> dict[str, str]:
    """Return what gives each arm besides the tickets the rewind epochs that were published."""
    own = card.rewind_epochs(epochs)
    of = {arm: [own[k] for a, k in card.columns if a == arm and k in own] for arm in card.arms}
    of.pop("ticket", None)
    return {f"{REWIND_EPOCHS_OF}.{arm}": ",".join(map(str, ks)) for arm, ks in of.items() if ks}


def _apart(card: Published, epochs: int, milestones: Sequence[int]) -> bool:
    """Return whether rewind epochs and milestones stay apart in this many epochs."""
    drops = [0, *(scale(epoch, epochs, card.epochs) for epoch in milestones), epochs]
    rewinds = card.rewind_epochs(epochs)
    return len(rewinds) == len(card.rewind_epochs(card.epochs)) and len(set(drops)) == len(drops)
