"""A study: one experiment as a YAML file, validated once into a frozen value.

Every block of the file is the frozen dataclass of the module that uses it, so a study
checks itself the same way whether it is read from a file or built in Python.
"""

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, get_type_hints

from torch import nn

from lthdask import changing, given
from lthdask.arguments import checked
from lthdask.arms import ARMS
from lthdask.changing import plain
from lthdask.data.readers import DataSource
from lthdask.errors import InputError, listed
from lthdask.grid import KS, Grid
from lthdask.networks.build import Network, is_known, on_meta
from lthdask.own import allow, is_own, require_code
from lthdask.pruning.rule import Pruning, prunable_weights, rates_by_layer, spared_weights
from lthdask.reading import clipped, flattened, in_lines, strictly, study_text, yaml_mapping
from lthdask.rewinding import (
    Iterations,
    Rewind,
    as_given,
    rewind,
)
from lthdask.source import Source
from lthdask.strict_yaml import dumped
from lthdask.thresholds import with_fewer, with_masks, with_rounds
from lthdask.training.engine import Engine
from lthdask.training.recipe import Optimizer, Recipe, Schedule

LONGEST_NAME = 200
_block: Any
for _block in (DataSource, Network, Optimizer, Schedule, Recipe, Pruning, Grid, Engine, Source):
    _block.__pydantic_config__ = {"extra": "forbid"}


@dataclass(frozen=True, repr=False)
class Study:
    """One experiment: network, data, recipe, grid.

    Values of NumPy, lists and mappings are taken for what they hold, and refused as in a file.

    Parameters
    ----------
    name : str
        Letters, digits, ``.``, ``_`` and ``-``; names the study's folder.
    data : DataSource
    network : Network
    recipe : Recipe
    grid : Grid
    pruning : Pruning
    seed : int
        What every random draw derives from, at least 0.
    matching_margin : float
        The smallest difference between accuracies that matters, in [0, 1]: how far below the
        dense accuracy a ticket still matches it, and how far above its controls it must be to win.
    keep_until : int
        The last epoch of the dense run whose complete state is kept, so that the grid can
        grow to it without training that again; or the last rewind epoch, if that is later.
    fresh_buffers : bool
        Whether a ticket's optimizer starts afresh, rather than with its state at the rewind
        epoch.
    mask_epoch : int, float or str, optional
        When the weights of the dense run give the masks, as a rewind epoch says it: after so many
        epochs, or iterations, such as ``500it``; T by default.
    engine : Engine
        How the numbers are computed.
    source : Source, optional
        Where tickets come from another study, as :func:`lthdask.transfer` gives them.

    Examples
    --------
    >>> study = Study.read("digits")
    >>> study.grid.thresholds
    (0.5, 0.8, 0.95, 0.98)
    >>> study.changed({"grid.replicates": "3"}).grid.replicates
    3
    """

    __pydantic_config__ = {"extra": "forbid"}  # noqa: RUF012 - read by pydantic, not a field

    name: str
    data: DataSource
    network: Network
    recipe: Recipe
    grid: Grid
    pruning: Pruning = Pruning()
    seed: int = 0
    matching_margin: float = 0.01
    keep_until: int = 0
    fresh_buffers: bool = False
    mask_epoch: Any = None
    engine: Engine = Engine()
    source: Source | None = None

    def __post_init__(self) -> None:
        for name, kind in get_type_hints(type(self)).items():
            object.__setattr__(self, name, strictly(kind, plain(getattr(self, name)), name))
        self._require_values()
        self._require_arms()
        self._require_source()
        self.pruning.check(self.grid.thresholds)
        if self.pruning.masks:
            self._require_masks()
        if not is_known(self.network):
            return  # a worker looks at its layers, before anything is trained
        weights = prunable_weights(self.outline())
        for mask in self.pruning.masks:
            given.require_fit(mask, weights, ends=False)
        spared_weights(weights, self.pruning.spare)
        rates_by_layer(weights, self.pruning)

    def _require_values(self) -> None:
        """Refuse values that are out of range, or contradict those of another block."""
        epochs, last = self.recipe.epochs, self.grid.ks[-1]
        if not re.fullmatch(r"[\w][\w.-]*", self.name, re.ASCII):
            raise ValueError(
                f"name must be letters, digits, '.', '_' and '-', because it names a folder; "
                f"got {clipped(self.name)!r}"
            )
        if len(self.name) > LONGEST_NAME:
            raise ValueError(
                f"name must have at most {LONGEST_NAME} characters, because it names a folder; "
                f"got {len(self.name):,}"
            )
        least = self.data.validation + self.recipe.batch_size
        if self.data.subset is not None and self.data.subset < least:
            raise ValueError(
                f"data.subset must have {self.data.validation} validation images and a batch of "
                f"{self.recipe.batch_size}, {least} at least; got {self.data.subset}"
            )
        if not isinstance(last, Iterations) and last >= epochs:
            raise ValueError(
                f"rewind epoch {last:.12g} leaves nothing to train: the study has {epochs} epochs, "
                f"so the last possible one is {epochs - 1}"
            )
        if self.keep_until < 0:
            raise ValueError(f"keep_until must be 0 or more; got {self.keep_until}")
        if self.seed < 0:
            raise ValueError(f"seed must be 0 or more; got {self.seed}")
        if not 0 <= self.matching_margin <= 1:
            raise ValueError(f"matching_margin must be in [0, 1]; got {self.matching_margin}")
        if self.mask_epoch is not None:
            object.__setattr__(self, "mask_epoch", _mask_epoch(self.mask_epoch, epochs))

    def _require_arms(self) -> None:
        """Refuse arms that the rest of the study leaves nothing to start from."""
        for name in self.grid.arms:
            if ARMS[name].start == "before" and not self.iterative:
                raise ValueError(
                    f"the arm {name} goes on from the round before, and one-shot pruning has no "
                    f"rounds; choose {name.removesuffix('_iterated')}, or iterative pruning"
                )
            if ARMS[name].fine_tuned:
                self.recipe.fine_tuning()
            if (parent := ARMS[name].parent) and parent not in self.grid.arms:
                raise ValueError(
                    f"the arm {name} is compared with the arm {parent}; add that arm, too"
                )
        if self.iterative and "ticket" not in self.grid.arms:
            raise ValueError(
                "iterative pruning prunes the arm ticket from round to round; add that arm"
            )

    def _require_source(self) -> None:
        """Leave what the grid needs of another study; refuse what contradicts its tickets."""
        if not self.source:
            if odd := [name for name in self.grid.arms if ARMS[name].of_source]:
                raise ValueError(
                    f"the arm {odd[0]} starts from tickets of another study; give them as `ticket`"
                )
            return
        if self.pruning != Pruning(by=self.pruning.by) or self.mask_epoch is not None:
            raise ValueError(
                "tickets come from another study, with their masks, so nothing of pruning means "
                "anything; leave it out, and mask_epoch"
            )
        object.__setattr__(self, "source", self.source.for_grid(self.grid.axes()))

    def _require_masks(self) -> None:
        """Name the masks that are given by their digests; refuse thresholds that are not theirs."""
        if self.mask_epoch is not None:
            raise ValueError("masks are given, so mask_epoch gives none; leave one of them out")
        known = given.by_share(self.pruning.masks)
        if known:
            object.__setattr__(self, "pruning", replace(self.pruning, masks=tuple(known.values())))
        shares = tuple(known or self.grid.thresholds)
        if shares != self.grid.thresholds or len(shares) != len(self.pruning.masks):
            raise ValueError(
                f"thresholds are the shares that the masks prune ({listed(known or ())}); leave "
                f"them out"
            )

    def outline(self) -> nn.Module:
        """Return the network without storage: the names and, except at its ends, the shapes.

        The data decide on input channels and classes, and one's own on all of the shape. Three,
        ten and 32 pixels stand for them here, because no name depends on them.
        """
        size = self.data.image_size or 32
        return on_meta(self.network, (3, size, size), 10)

    @property
    def own(self) -> list[str]:
        """The functions of one's own that the study uses."""
        recipe = self.recipe
        blocks = (self.network, self.data, recipe.optimizer, recipe.schedule)
        names = [*(block.name for block in blocks), self.pruning.score, *self.grid.arms]
        return [name for name in names if is_own(name)]

    @property
    def iterative(self) -> bool:
        """Whether a threshold's mask comes from the ticket of the threshold before."""
        return self.pruning.schedule == "iterative"

    @property
    def mask_at(self) -> Rewind:
        """When the weights of the dense run give the masks."""
        return self.recipe.epochs if self.mask_epoch is None else rewind(self.mask_epoch)

    @classmethod
    @checked
    def read(cls, which: str | Path, code: Iterable[str | Path] = ()) -> "Study":
        """Read a named study, or a file.

        Parameters
        ----------
        which : str or Path
            The name of a shipped study, or the path of a YAML file.
        code : iterable of path
            Files whose functions the study may name, as in ``mine:build``, and run.

        Raises
        ------
        InputError
            If there is no such study, or something in it is wrong.
        """
        for file in code:
            allow(file)
        return cls.parse(study_text(which), str(which))

    @classmethod
    @checked
    def parse(cls, text: str, source: str = "study") -> "Study":
        """Read a study from YAML text; `source` names it in errors."""
        return cls.from_dict(yaml_mapping(text, source), source)

    @classmethod
    @checked
    def from_dict(cls, values: Mapping[str, Any], source: str = "study") -> "Study":
        """Return the study of nested mappings, strictly validated.

        A function in place of a name, such as a network's, stands for code of one's own.
        """
        return cls._resolved(values, source)

    @classmethod
    def _resolved(
        cls, values: Mapping[str, Any], source: str, fewer_thresholds: bool = False
    ) -> "Study":
        """Return the study of nested mappings, of which arms may name thresholds that are gone."""
        try:
            values = plain(values)
            require_code(flattened(values).values())
            values = with_rounds(with_masks(values))
            return strictly(cls, with_fewer(values) if fewer_thresholds else values)
        except (TypeError, ValueError, RecursionError) as error:
            raise InputError(f"{source}: {error}") from None

    def to_dict(self) -> dict[str, Any]:
        """Return the study as nested dictionaries and lists, every default resolved."""
        plain: dict[str, Any] = json.loads(json.dumps(asdict(self)))
        return plain

    def to_yaml(self) -> str:
        """Return the study as YAML text, from which :meth:`parse` makes an equal one."""
        return dumped(self.to_dict())

    def __repr__(self) -> str:
        """Return the study in a few lines, without what is as by default."""
        return in_lines(self)

    @checked
    def changed(self, changes: Mapping[str, Any]) -> "Study":
        """Return the study with some keys changed.

        Parameters
        ----------
        changes : mapping of str to object
            Dotted key, such as ``recipe.batch_size`` → value: a number, a list, a range, an array,
            or a function, which is code of one's own; or a text as on the command line, where a
            list is comma-separated.
        """
        values = changing.settled(changing.changed(self.to_dict(), changes), changes)
        named = any(key.startswith(changing.THRESHOLDS_OF) for key in changes)
        return Study._resolved(values, self.name, fewer_thresholds=not named)

    def grown(
        self,
        *,
        thresholds: Any = (),
        rewind_epochs: Any = (),
        arms: Any = (),
        replicates: int = 1,
    ) -> "Study":
        """Return the study with a larger grid, of which a run trains what is new.

        Parameters
        ----------
        thresholds, rewind_epochs, arms : list, range, array or text, optional
            What the grid is to have besides what it has.
        replicates : int, optional
            How many there are to be in all, at least.

        Examples
        --------
        >>> study = Study.read("digits").grown(thresholds=[0.9], arms="random_mask", replicates=3)
        >>> study.grid.thresholds, study.grid.arms, study.grid.replicates
        ((0.5, 0.8, 0.9, 0.95, 0.98), ('ticket', 'random_mask'), 3)
        """
        more = {"thresholds": thresholds, "rewind_epochs": rewind_epochs, "arms": arms}
        more["replicates"] = replicates
        return self.changed(changing.grown(self.to_dict()["grid"], more))


def _mask_epoch(given: Any, epochs: int) -> int | float | str:
    """Return it as a study has it."""
    try:
        k = rewind(given)
    except (TypeError, ValueError, OverflowError):
        raise ValueError(f"mask_epoch takes {KS}; got {given!r}") from None
    if k == 0 or not (isinstance(k, Iterations) or 0 < k <= epochs):
        raise ValueError(f"mask_epoch must lie between 0 and {epochs} epochs; got {given}")
    return as_given(k)
