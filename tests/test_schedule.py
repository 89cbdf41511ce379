"""What the schedule of a plan promises: how long the sweep takes on workers that never rest."""

from math import ceil

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.simulate import World, simulated, study_of
from lthdask import needs
from lthdask.driver.chains import Chains
from lthdask.driver.disk import checkpoint_sizes
from lthdask.driver.plan import plan
from lthdask.driver.remaining import Remaining, epochs_to_train, plain_epochs
from lthdask.driver.schedule import wall_epochs

SQUARE = {"recipe.epochs": "4", "grid.thresholds": "0.5,0.9", "grid.rewind_epochs": "0,2"}
ROUNDS = {"recipe.epochs": "4", "pruning.schedule": "iterative", "pruning.rounds": "2"}


def left_of(study, dense_runs):
    return Remaining(study.grid.cells(), list(range(study.grid.replicates)), set(dense_runs))


def wall(study, workers, dense_runs=(0,), most=1):
    left = left_of(study, dense_runs)
    return wall_epochs(Chains(study, left), left, workers, most)


# T = 4: a dense run takes 4 epochs, tickets rewound to 0 and 2 take 4 and 2.
@pytest.mark.parametrize(
    ("changes", "dense_runs", "most", "by_workers"),
    [
        # 4, then 4 4 2 2: two workers take 6 for these, four 4.
        ({}, [0], 1, {1: 16, 2: 10, 3: 8, 4: 8, 9: 8}),
        ({}, [], 1, {1: 12, 2: 6, 3: 4, 4: 4}),
        # Dense runs first; 24 epochs of cells, and the third worker has waited for them.
        ({"grid.replicates": "2"}, [0, 1], 1, {1: 32, 2: 16, 3: 12, 8: 8}),
        # One of two is left: the other's cells are trained meanwhile, 4 4 2 2 | 4, 4 4 2 2.
        ({"grid.replicates": "2"}, [1], 1, {1: 28, 2: 14, 8: 8}),
        # Rounds: 4, then 4 4 and 2 2, each pair one after the other.
        (ROUNDS | {"grid.rewind_epochs": "0,2"}, [0], 1, {1: 16, 2: 12, 9: 12}),
        # A child waits for its ticket.
        ({"grid.thresholds": "0.5", "grid.arms": "ticket,ticket_child"}, [0], 1, {1: 16, 2: 12}),
        # Side by side: 4, then 4 + 4 | 2 + 2. With a worker each, none is idle.
        ({}, [0], 2, {1: 16, 2: 12, 4: 8}),
    ],
)
def test_the_wall_time_is_that_of_the_example(changes, dense_runs, most, by_workers):
    study = study_of((changes if "pruning.rounds" in changes else SQUARE) | changes)
    assert {w: wall(study, w, dense_runs, most) for w in by_workers} == by_workers


@st.composite
def studies(draw):
    epochs = draw(st.integers(2, 6))
    ks = draw(st.sets(st.integers(0, epochs - 1), min_size=1, max_size=3))
    more = draw(st.sets(st.sampled_from(["reinit", "ticket_child", "dense_child"])))
    changes = {
        "recipe.epochs": str(epochs),
        "grid.rewind_epochs": ",".join(map(str, sorted(ks))),
        "grid.replicates": str(draw(st.integers(1, 3))),
        "grid.arms": ",".join(["ticket", *sorted(more)]),
    }
    rounds = str(draw(st.integers(1, 4)))
    if draw(st.booleans()):
        return study_of(changes | {"pruning.schedule": "iterative", "pruning.rounds": rounds})
    thresholds = ",".join(f"0.{i + 1}" for i in range(int(rounds)))
    return study_of(changes | {"grid.thresholds": thresholds})


@settings(max_examples=60)
@given(studies(), st.integers(1, 12), st.booleans(), st.integers(1, 3))
def test_the_schedule_is_that_of_the_real_sweep(study, workers, dense, most):
    end, _ = simulated(study, workers, World(), dense=dense, cohort=most)
    assert wall(study, workers, range(study.grid.replicates) if dense else (), most) == end


@settings(max_examples=60)
@given(studies(), st.integers(1, 12), st.booleans())
def test_no_worker_rests_while_there_is_something_to_train(study, workers, dense):
    """At least what the work and its longest chain take, and at most Graham's bound (1969)."""
    dense_runs = range(study.grid.replicates) if dense else ()
    left = left_of(study, dense_runs)
    work = epochs_to_train(study, left.cells, len(dense_runs))
    longest = Chains(study, left).length(left.cells) + dense * study.recipe.epochs
    taken = wall(study, workers, dense_runs)
    assert max(ceil(work / workers), longest) <= taken
    assert taken <= work / workers + (1 - 1 / workers) * longest + 1e-9
    assert wall(study, 1, dense_runs) == work
    assert wall(study, len(left.cells) + len(dense_runs), dense_runs) == longest


def test_cells_that_are_lost_take_no_time():
    study = study_of(ROUNDS | {"grid.rewind_epochs": "0,2"})
    first, other = study.grid.cells()[0], study.grid.cells()[1]
    assert needs.waits_for(study, other) == first
    left = Remaining(study.grid.cells()[1:], [0], set(), lost={other: first})
    assert wall_epochs(Chains(study, left), left, 1) == 2 + 2


def test_sharing_saves_the_epochs_that_tickets_are_rewound_over():
    study = study_of(SQUARE | {"grid.replicates": "3"})
    cells = study.grid.cells()
    assert plain_epochs(study, len(cells), 3) == 3 * (4 + 4 * 4)
    assert plain_epochs(study, len(cells), 3) - epochs_to_train(study, cells, 3) == 3 * 2 * 2


def test_a_plan_is_of_the_workers_asked_for_and_of_1_2_4_as_long_as_more_help(
    tmp_path,
):
    found = plan(study_of(SQUARE), tmp_path / "new", here=False)
    some = [(s.workers, s.wall_epochs, round(s.busy, 2)) for s in found.on_some(also=9)]
    assert some == [(1, 16, 1.0), (2, 10, 0.8), (4, 8, 0.5), (9, 8, 0.22)]
    assert (found.epochs, found.plain) == (16, 20)
    weights, state = checkpoint_sizes(found.study)  # which has one momentum for each weight
    assert state == 2 * weights
    assert [found.meanwhile(workers) / state for workers in (1, 2, 9)] == [3, 6, 15]  # of five runs
