"""What the grid promises: every cell once, longest first."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lthdask.grid import Cell, Grid

axes = st.builds(
    Grid,
    st.sets(st.integers(1, 99), min_size=1, max_size=5).map(
        lambda s: tuple(sorted(p / 100 for p in s))
    ),
    st.sets(st.integers(0, 9), min_size=1, max_size=4).map(lambda s: tuple(sorted(s))),
    replicates=st.integers(1, 3),
)


@given(axes)
def test_every_cell_is_there_once(grid):
    cells = grid.cells()
    assert len(set(cells)) == len(cells)
    assert len(cells) == len(grid.thresholds) * len(grid.rewind_epochs) * grid.replicates


@given(axes)
def test_the_longest_runs_come_first(grid):
    starts = [cell.rewind_epoch for cell in grid.cells()]
    assert starts == sorted(starts)


def test_a_cell_is_named_by_its_coordinates():
    assert str(Cell("ticket", 1, 0.97, 5)) == "ticket-r1-t0.97-k5"


@pytest.mark.parametrize(
    ("grid", "problem"),
    [
        ({"thresholds": (), "rewind_epochs": (0,)}, "thresholds must hold at least one value"),
        ({"thresholds": (0.5, 0.5), "rewind_epochs": (0,)}, "thresholds holds a value twice"),
        ({"thresholds": (0.9, 0.5), "rewind_epochs": (0,)}, "thresholds must increase"),
        ({"thresholds": (0.5,), "rewind_epochs": (1, 0)}, "rewind_epochs must increase"),
        ({"thresholds": (0.5,), "rewind_epochs": (-1,)}, "rewind_epochs must be 0 or more; got -1"),
        ({"thresholds": (0.5,), "rewind_epochs": (0,), "replicates": 0}, "replicates must be 1"),
        ({"thresholds": (0.5,), "rewind_epochs": (0,), "arms": ("magic",)}, "unknown arm 'magic'"),
    ],
)
def test_an_impossible_grid_is_refused(grid, problem):
    with pytest.raises(ValueError, match=problem):
        Grid(**grid)
