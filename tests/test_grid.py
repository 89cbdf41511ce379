"""What the grid promises: every cell once, longest first."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lthdask.arms import ARMS, SCRATCH, Arm, controls_of
from lthdask.errors import InputError
from lthdask.grid import Cell, Grid, cohorts
from lthdask.study import Study

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


def test_thresholds_that_differ_by_rounding_alone_are_one():
    grid = Grid((0.1, 0.2, 0.1 + 0.2, 1 - 0.8**14), (0,))
    assert grid.thresholds == (0.1, 0.2, 0.3, 0.956019534889)


def test_a_cell_is_named_by_its_coordinates():
    assert str(Cell("ticket", 1, 0.97, 5)) == "ticket-r1-t0.97-k5"


SOME = {"thresholds": (0.5,), "rewind_epochs": (0, 2)}


@pytest.mark.parametrize(
    ("grid", "problem"),
    [
        ({"thresholds": (), "rewind_epochs": (0,)}, "thresholds must hold at least one value"),
        ({"thresholds": (0.5, 0.5), "rewind_epochs": (0,)}, "thresholds holds a value twice"),
        ({"thresholds": (0.3, 0.1 + 0.2), "rewind_epochs": (0,)}, "thresholds holds a value twice"),
        ({"thresholds": (0.9, 0.5), "rewind_epochs": (0,)}, "thresholds must increase"),
        ({"thresholds": (0.5,), "rewind_epochs": (1, 0)}, "rewind_epochs must increase"),
        ({"thresholds": (0.5,), "rewind_epochs": (-1,)}, "rewind_epochs must be 0 or more; got -1"),
        ({"thresholds": (0.5,), "rewind_epochs": (0,), "replicates": 0}, "replicates must be 1"),
        ({"thresholds": (0.5,), "rewind_epochs": (0,), "arms": ("magic",)}, "unknown arm 'magic'"),
        ({**SOME, "rewind_epochs_of": {"magic": [0]}}, "only some arms .*; got 'magic'"),
        ({**SOME, "rewind_epochs_of": {"ticket": [0]}}, "only some arms .*; got 'ticket'"),
        ({**SOME, "rewind_epochs_of": {"reinit": [0]}}, "only some arms .*; got 'reinit'"),
        ({**SOME, "rewind_epochs_of": {"lr_rewind": [0, 3]}}, "lr_rewind takes some of 0, 2; .* 3"),
        ({**SOME, "rewind_epochs_of": {"lr_rewind": []}}, "takes some of 0, 2; it has none"),
        ({**SOME, "thresholds_of": {"ticket": [0.5]}}, "only some arms .*; got 'ticket'"),
        ({**SOME, "thresholds_of": {"dense_child": [0.5]}}, "only some .*; got 'dense_child'"),
        ({**SOME, "thresholds_of": {"lr_rewind_iterated": [0.5]}}, "some arms .*_iterated'"),
        ({**SOME, "thresholds_of": {"reinit": [0.7]}}, "reinit takes some of .*; got 0.7"),
        ({**SOME, "rewind_epochs_of": {"lr_rewind": [0.5]}}, "takes some of 0, 2; got 0.5"),
    ],
)
def test_an_impossible_grid_is_refused(grid, problem):
    with pytest.raises(ValueError, match=problem):
        Grid(**grid)


def test_a_cohort_shares_replicate_first_epoch_rates_and_data():
    cells = [
        Cell("ticket", 0, 0.5, 0),
        Cell("random_mask", 0, 0.9, 0),
        Cell("reinit", 0, 0.5, 0),
        Cell("constant_signs", 0, 0.5, 0),
        Cell("equal_epochs", 0, 0.5, 1),  # which also begins at the first epoch
        Cell("lr_rewind", 0, 0.5, 0),
        Cell("fine_tune", 0, 0.5, 0),
        Cell("lr_rewind_iterated", 0, 0.5, 0),  # whose Adam has done more steps
        Cell("fine_tune_iterated", 0, 0.5, 0),
        Cell("ticket_child", 0, 0.5, 0),
        Cell("dense_child", 0, 0.5, 0),
        Cell("ticket", 0, 0.5, 1),
        Cell("ticket", 1, 0.5, 0),
    ]
    assert cohorts(cells, 9) == [cells[:5], *([cell] for cell in cells[5:])]


@given(st.integers(1, 40), st.integers(1, 12))
def test_cohorts_hold_every_cell_once_and_differ_in_size_by_one(count, most):
    cells = [Cell("ticket", 0, i / 50, 0) for i in range(1, count + 1)]
    sizes = [len(cohort) for cohort in cohorts(cells, most)]
    assert [cell for cohort in cohorts(cells, most) for cell in cohort] == cells
    assert max(sizes) <= most
    assert max(sizes) - min(sizes) <= 1
    assert len(sizes) == -(-count // most)


def test_the_table_says_what_each_arm_is_compared_with_and_what_it_takes_away():
    assert controls_of(ARMS) == (
        "random_mask",
        "reinit",
        "constant_signs",
        "equal_epochs",
        "lr_rewind",
        "fine_tune",
        "lr_rewind_iterated",
        "fine_tune_iterated",
        "trained_ticket",
        "dense_pretrained",
    )
    assert SCRATCH == ("random_mask", "reinit", "constant_signs")
    children = {name for name, arm in ARMS.items() if arm.reordered}
    assert children == {"ticket_child", "dense_child"}
    assert {arm.parent for arm in ARMS.values()} == {None, "ticket"}


def test_an_arm_without_a_k_or_a_threshold_is_trained_once_along_that_axis(monkeypatch):
    monkeypatch.setitem(ARMS, "constant", Arm("a row", start="new", has_k=False))
    monkeypatch.setitem(ARMS, "unpruned", Arm("a row", mask="none", has_threshold=False))
    grid = Grid((0.5, 0.9), (1, 3), ("constant", "unpruned"))
    assert grid.cells() == [
        Cell("constant", 0, 0.5, 1),
        Cell("constant", 0, 0.9, 1),
        Cell("unpruned", 0, 0.5, 1),
        Cell("unpruned", 0, 0.5, 3),
    ]
    assert [cell.first_epoch for cell in grid.cells()] == [0, 0, 1, 3]


def test_an_arm_can_have_some_of_the_rewind_epochs():
    grid = Grid((0.5, 0.9), (0, 2, 4), ("ticket", "lr_rewind"), 1, {"lr_rewind": [4, 2]})
    cells = grid.cells()
    assert [c.rewind_epoch for c in cells if c.arm == "ticket"] == [0, 0, 2, 2, 4, 4]
    assert [c.rewind_epoch for c in cells if c.arm == "lr_rewind"] == [2, 2, 4, 4]
    assert grid.along("rewind_epoch", "lr_rewind") == [2, 4]


def test_an_arm_can_have_some_of_the_thresholds():
    arms = ("ticket", "ticket_child", "dense_child")
    grid = Grid((0.5, 0.8, 0.9), (0, 2), arms, thresholds_of={"ticket_child": [0.9, 0.5]})
    cells = grid.cells()
    assert len([c for c in cells if c.arm == "ticket"]) == 6
    at = [(c.rewind_epoch, c.threshold) for c in cells if c.arm == "ticket_child"]
    assert at == [(0, 0.5), (0, 0.9), (2, 0.5), (2, 0.9)]
    assert grid.along("threshold", "ticket_child") == (0.5, 0.9)
    assert [(c.rewind_epoch, c.threshold) for c in cells if c.arm == "dense_child"] == [
        (0, 0.5),
        (2, 0.5),
    ]


def test_rewind_epochs_of_an_arm_that_is_not_asked_for_bind_nothing():
    narrow = {"grid.arms": "ticket,lr_rewind", "grid.rewind_epochs_of.lr_rewind": [0]}
    study = Study.read("digits").changed(narrow)
    less = study.changed({"grid.arms": "ticket", "grid.rewind_epochs": "1,2"})
    assert less.grid.rewind_epochs_of == {}
    with pytest.raises(InputError, match="takes some of 1, 2; got 0"):
        study.changed({"grid.rewind_epochs": "1,2"})
