"""Thresholds that follow from the rest of a study: from given masks, or from rounds."""

from collections.abc import Mapping
from typing import Any

from lthdask import given
from lthdask.errors import InputError, listed
from lthdask.pruning.rule import Pruning


def with_masks(values: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the study with the thresholds that are the shares which given masks prune."""
    pruning, grid = values.get("pruning"), values.get("grid")
    if not (isinstance(pruning, dict) and isinstance(grid, dict) and pruning.get("masks")):
        return values
    masks = pruning["masks"]
    masks = [masks] if isinstance(masks, str) else masks
    if not isinstance(masks, list) or not all(isinstance(mask, str) for mask in masks):
        return values  # which pydantic then explains
    known = given.by_share(masks)
    if known is None and "thresholds" not in grid:
        raise InputError(f"of the masks {listed(masks)}, not all were read here; give their files")
    if known:
        grid, masks = {"thresholds": list(known), **grid}, list(known.values())
    return {**values, "pruning": {**pruning, "masks": masks}, "grid": grid}


def with_rounds(values: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the study with the thresholds that the rounds of iterative pruning give."""
    pruning, grid = values.get("pruning"), values.get("grid")
    if not isinstance(pruning, dict) or pruning.get("schedule") != "iterative":
        return values
    if pruning.get("masks"):
        return values  # which `Pruning` refuses
    if not isinstance(grid, dict):
        return values
    given = {k: pruning[k] for k in ("schedule", "rate", "rounds") if k in pruning}
    right = type(given.get("rounds", 0)) is int and type(given.get("rate", 0.2)) in (int, float)
    if not right:
        return values  # which pydantic then explains
    rounds = list(Pruning(**given).thresholds())
    grid = {"thresholds": rounds, **grid}
    if grid["thresholds"] != rounds:
        raise InputError(
            f"thresholds follow from the rate and the rounds of iterative pruning "
            f"({listed(rounds)}); leave them out"
        )
    return {**values, "grid": grid}


def with_fewer(values: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the study whose arms have those of their thresholds that are still there.

    An arm that would have none is left as it is, and is refused.
    """
    grid: Any = values.get("grid")
    try:
        of, there = grid["thresholds_of"], {*map(float, grid["thresholds"])}
        still = {arm: [t for t in some if t in there] or some for arm, some in of.items()}
    except (AttributeError, KeyError, TypeError, ValueError):
        return values  # which pydantic then explains
    return {**values, "grid": {**grid, "thresholds_of": still}}
