"""What an adaptive search promises: it goes by the verdicts, and says nothing else than they."""

import re

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from lthdask.driver.adaptive import Answer, Exploration, answers
from lthdask.grid import Cell
from lthdask.report.verdict import verdicts
from lthdask.storage.schema import CELL, Status
from lthdask.study import Study
from tests.test_verdict import EPOCHS, minus, results

BASE = Study.read("mnist-lenet").changed(EPOCHS | {"matching_margin": "0.01"})
MATCHES, WORSE = (0, 0.1, -0.1), (-5, -5.1, -4.9)
WITHIN, BEYOND = (-3, 0, 2), (-4, 0, 0)  # undecided, on either side of a margin of 1 point


def a_map(*columns, **more):
    """Results of tickets at a margin of 1 point: per k the differences to dense, by threshold."""
    tickets = [[minus(*cell) for cell in row] for row in zip(*columns, strict=True)]
    return at_the_margin(results({"ticket": tickets}, **more))


def at_the_margin(found):
    """Thresholds 0.1, 0.2 and so on."""
    found.attrs["study"] = BASE.to_yaml()
    return found.assign_coords(threshold=(found.threshold - 0.4).round(3))


class Played:
    """A search of cells whose results are known, and are shown once it has asked for them."""

    def __init__(self, whole, share=1.0, cohort=1, order=list):
        axes = {axis: whole[axis].values.tolist() for axis in CELL}
        self.study = BASE.changed(
            {
                "grid.arms": axes["arm"],
                "grid.replicates": len(axes["replicate"]),
                "grid.thresholds": axes["threshold"],
                "grid.rewind_epochs": axes["rewind_epoch"],
            }
        )
        cells = self.study.grid.cells()
        self.seen = whole.copy(deep=True)
        for cell in cells:
            self.seen.status.loc[place(cell)] = Status.PENDING
        self.search = Exploration(self.study, lambda: self.seen, cells, cells, share, cohort)
        self.rounds = []
        while asked := self.search.next():
            self.rounds.append(asked)
            for cell in order(asked):
                assert not self.search.next(), "a round was judged before all of it had ended"
                self.seen.status.loc[place(cell)] = whole.status.loc[place(cell)]
                self.search.ended(cell)

    def points(self):
        """The points of each round."""
        return [sorted({(c.threshold, c.rewind_epoch) for c in asked}) for asked in self.rounds]

    def reason(self, threshold, k=0):
        return self.search.reasons()[Cell("ticket", 0, threshold, k)]


def place(cell):
    return {axis: getattr(cell, axis) for axis in CELL}


def test_an_answer_is_the_verdict_and_the_side_of_the_margin_where_that_is_undecided():
    tickets = [MATCHES, WITHIN, BEYOND, WORSE, MATCHES, MATCHES]
    status = {("ticket", 0, 4, 0): Status.DIVERGED}
    status |= {("ticket", r, 5, 0): Status.FAILED for r in range(3)}
    found = a_map(tickets, status=status)
    assert {t: str(answer) for (t, _), answer in answers(verdicts(found), 1).items()} == {
        0.1: "matching",
        0.2: "undecided, within the margin on average",
        0.3: "undecided, not within the margin on average",
        0.4: "worse",
        0.5: "undecided, not within the margin on average",  # of which one replicate diverged
    }
    beside = {"ticket": [[minus(*MATCHES)]], "reinit": [[minus(-9, -9, -9)]]}
    won = answers(verdicts(at_the_margin(results(beside))), 1)
    assert won == {(0.1, 0): Answer("winning ticket", 3)}


def test_each_k_is_bisected_where_neighbours_differ():
    found = a_map([MATCHES, MATCHES, MATCHES, WITHIN, WITHIN, WORSE, WORSE], [WORSE] * 7)
    played = Played(found)
    assert played.points() == [
        [(0.4, 0), (0.4, 1)],
        [(0.2, 0), (0.2, 1), (0.6, 0)],
        [(0.1, 1), (0.3, 0), (0.5, 0)],
    ]
    assert played.reason(0.1) == "denser than threshold 0.2 (matching) at k=0"
    assert played.reason(0.7) == "sparser than threshold 0.6 (worse) at k=0"
    assert played.reason(0.3, 1) == "between threshold 0.2 (worse) and threshold 0.4 (worse) at k=1"


def test_a_search_says_what_the_verdict_says_and_not_what_the_validation_images_say():
    """By the rule before this one, 0.3 was within the margin at k=0."""
    fine = np.full((1, 3, 5, 1), 0.99)
    played = Played(a_map([MATCHES, MATCHES, WORSE, WORSE, WORSE], validation=fine))
    assert played.reason(0.4) == "sparser than threshold 0.3 (worse) at k=0"


def test_a_point_whose_tickets_all_failed_is_passed_by():
    status = {("ticket", r, 2, 0): Status.FAILED for r in range(3)}
    played = Played(a_map([MATCHES, MATCHES, MATCHES, WORSE, WORSE], status=status))
    assert played.points() == [[(0.3, 0)], [(0.2, 0)], [(0.4, 0)]]
    assert played.reason(0.5) == "sparser than threshold 0.4 (worse) at k=0"


def test_a_search_never_spends_more_than_its_budget_and_says_so():
    found = a_map([MATCHES] * 5, [MATCHES] * 5)
    played = Played(found, share=0.5)  # of 15 cells of two epochs, and 15 of one
    assert played.points() == [[(0.3, 0), (0.3, 1)], [(0.4, 0), (0.4, 1)], [(0.5, 1)]]
    assert played.search.search.spent == 21
    assert played.reason(0.5) == "the budget of 22.5 epochs was spent before k=0 was settled"


def test_what_is_asked_does_not_depend_on_which_cell_ends_first():
    found = a_map([MATCHES, WITHIN, BEYOND, WORSE], [WITHIN, WITHIN, WORSE, WORSE])
    assert Played(found).rounds == Played(found, order=reversed).rounds


def test_cohorts_are_filled_with_the_points_that_may_be_asked_next_and_no_more():
    found = a_map([MATCHES] * 5 + [WORSE] * 2)
    assert Played(found).points() == [[(0.4, 0)], [(0.6, 0)], [(0.5, 0)]]
    together = Played(found, cohort=3)  # a cohort is of one replicate
    assert together.points() == [[(0.2, 0), (0.4, 0), (0.6, 0)], [(0.5, 0)]]
    some = Played(found, cohort=2)
    assert some.points() == [[(0.2, 0), (0.4, 0)], [(0.5, 0), (0.6, 0)]]


@settings(max_examples=10)
@given(
    seed=st.integers(0, 2**32 - 1),
    shape=st.tuples(st.integers(1, 4), st.integers(1, 8), st.integers(1, 2)),
    cohort=st.integers(1, 8),
    share=st.sampled_from([0.3, 0.6, 1.0]),
)
def test_every_reason_is_the_verdict_of_the_cells_that_it_names(seed, shape, cohort, share):
    random = np.random.default_rng(seed)
    replicates, thresholds, ks = shape
    fall = -np.cumsum(random.exponential(0.6, (thresholds, ks, 1)), axis=0)
    fall = fall + random.choice([0.1, 0.6]) * random.standard_normal((thresholds, ks, replicates))
    dense = np.full(replicates, 0.95) + np.arange(replicates) / 1000
    arms = {"ticket": dense + fall / 100, "random_mask": dense + (fall - 2) / 100}
    whole = at_the_margin(results(arms, dense=dense))
    fates = (Status.DONE, Status.FAILED, Status.DIVERGED)
    status = random.choice(fates, whole.status.shape, p=[0.9, 0.05, 0.05])
    whole["status"] = whole.status.copy(data=status)
    played = Played(whole, share, cohort)
    verdict = verdicts(played.seen).verdict
    assert played.search.search.spent <= played.search.search.budget
    skipped = played.search.reasons()
    done = {cell for asked in played.rounds for cell in asked}
    assert skipped.keys() == set(played.study.grid.cells()) - done
    for cell, why in skipped.items():
        named = re.findall(r"threshold (\S+) \(([^,)]+)", why)
        assert named or why.startswith("the budget of ")
        for threshold, word in named:
            at = {"threshold": float(threshold), "rewind_epoch": cell.rewind_epoch}
            assert verdict.sel(at).item() == word
