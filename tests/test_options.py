"""What the options of a run promise: impossible ones are refused where they are made."""

import dataclasses

import pytest

from lthdask.driver.plan import plan
from lthdask.errors import InputError
from lthdask.options import Options
from tests.test_flow import TINY


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        ({"max_attempts": 0}, "`max_attempts` must be 1 or more; got 0"),
        ({"checkpoint_interval": -1.0}, "`checkpoint_interval` must be 0 seconds or more; got -1"),
        ({"checkpoint_interval": float("nan")}, "`checkpoint_interval` must be 0 seconds or more"),
        ({"adaptive": 0.0}, "`adaptive` is a share of the grid's epochs, .* got 0"),
        ({"adaptive": 1.5}, "`adaptive` is a share of the grid's epochs, .* got 1.5"),
    ],
)
def test_an_impossible_option_is_refused(given, problem):
    with pytest.raises(InputError, match=problem):
        Options(**given)


def test_options_are_a_frozen_value():
    with pytest.raises(dataclasses.FrozenInstanceError):
        Options().max_attempts = 5


def test_a_plan_is_of_the_run_with_the_same_options(tmp_path):
    whole, masks, search = (
        plan(TINY, tmp_path / "new", options=options, here=False)
        for options in (Options(), Options(masks_only=True), Options(adaptive=0.5))
    )
    dense = TINY.recipe.epochs * TINY.grid.replicates
    assert (len(masks.cells), masks.done, masks.epochs) == (0, 0, dense)
    assert search.epochs == dense + (whole.epochs - dense) // 2
