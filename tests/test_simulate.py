"""What the order of a grid promises: no worker waits while there is something to train.

In simulated time, with the real sweep and the real window.
"""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.simulate import GRIDS, World, bound, makespan, study_of
from lthdask.cluster.window import Window

SQUARE = study_of(GRIDS["16x16, T=16"])
SMALL = study_of({"grid.thresholds": "0.5,0.8", "grid.rewind_epochs": "0,4,8"})
ROUNDS = {"pruning.schedule": "iterative", "pruning.rounds": "16"}


@pytest.mark.parametrize("workers", [2, 16, 32, 64, 128, 256, 512, 1024])
def test_longest_first_takes_the_least_time_possible_on_the_square_grid(workers):
    assert makespan(SQUARE, workers, World(), dense=False) == 1
    assert makespan(SQUARE, workers, World(), dense=True) == 1


@pytest.mark.parametrize(("workers", "expected"), [(32, 1.103), (64, 1.265), (128, 1.588)])
def test_nested_loops_take_longer_as_computed_by_hand(workers, expected):
    """The figures are those of a list scheduler without a sweep, a window or a queue."""
    taken = makespan(SQUARE, workers, World(), dense=False, in_order=True)
    assert taken == pytest.approx(expected, abs=5e-4)


@pytest.mark.parametrize("workers", [2, 3, 6, 8, 10, 12])
def test_rounds_are_ordered_by_what_is_left_of_their_chain(workers):
    """By the length of a cell alone, 12 workers took 1.27 times the least possible."""
    changes = {"recipe.epochs": "64", "grid.rewind_epochs": "0,1,2,3,4,5,6,8,10,12,16,20,24,32,40"}
    assert makespan(study_of(ROUNDS | changes), workers, World(), dense=False) < 1.03


def test_one_replicates_cells_fill_the_workers_under_anothers_dense_run():
    """Two workers, three replicates: the third dense run has one worker, cells the other."""
    study = study_of({"grid.rewind_epochs": "0,4,8,12", "grid.replicates": "3"})
    assert makespan(study, 2, World(), dense=True) < 1.001


@settings(max_examples=25)
@given(st.integers(2, 40), st.integers(0, 9))
def test_chance_never_beats_the_bound(workers, seed):
    world = World(noise=0.3, failures=8, absence=2, wait=10, seed=seed)
    assert makespan(SMALL, workers, world, dense=True) >= 1 - 1e-9


def test_a_failure_costs_what_was_not_saved():
    taken = [
        makespan(SMALL, 4, World(failures=4, interval=interval, absence=0), dense=True)
        for interval in (1e-4, 1, 4)
    ]
    calm = makespan(SMALL, 4, World(), dense=True)
    assert calm == pytest.approx(taken[0], rel=1e-3)
    assert calm * 1.05 < taken[1] < taken[2]


@pytest.mark.parametrize(
    ("cells", "chains", "arrivals", "dense", "least"),
    [
        ([4, 4, 4], [4, 4, 4], [0, 0], [], 8),  # two of three share a worker
        ([4, 1, 1], [4, 1, 1], [0, 0], [], 4),  # the longest
        ([2, 2, 2, 2], [2, 2, 2, 2], [0, 2], [], 5),  # the second worker comes late
        ([2, 2], [2, 4], [0, 0], [], 4),  # one waits for the other
        ([2, 2], [5, 5], [0, 0], [3], 5),  # both wait for the dense run
    ],
)
def test_the_least_time_is_that_of_the_example(cells, chains, arrivals, dense, least):
    assert bound(cells, chains, arrivals, dense) == least


@given(st.lists(st.integers(0, 5), max_size=80), st.integers(0, 30), st.integers(0, 20))
def test_a_window_gives_the_longest_first_and_never_more_than_four_for_a_worker(
    lengths, in_flight, workers
):
    window = Window[int]()
    for number, length in enumerate(lengths):
        window.add(number, length)
    taken = window.take(in_flight, workers)
    by_length = sorted(range(len(lengths)), key=lambda number: -lengths[number])
    assert taken == by_length[: len(taken)]
    assert len(taken) + len(window) == len(lengths)
    assert in_flight + len(taken) <= max(in_flight, 4 * max(8, workers))
    if in_flight <= 2 * workers:
        assert len(taken) == min(len(lengths), 4 * max(8, workers) - in_flight)
