"""What verdicts promise: what the replicates show is said, and nothing that they do not."""

import numpy as np
import pytest
import xarray as xr
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from lthdask.arms import ARMS
from lthdask.report.controls import (
    chosen_rewind_epochs,
    controls,
    replicates_to_settle,
    settling_interval,
)
from lthdask.report.paired import collapsed
from lthdask.report.verdict import VERDICTS, frontier, verdicts
from lthdask.storage.creation import create_cube
from lthdask.storage.results import open_results
from lthdask.storage.schema import Extent, Status
from lthdask.study import Study

EPOCHS = {"recipe.epochs": "2", "grid.rewind_epochs": "0,1"}
STUDY = Study.read("mnist-lenet").changed({"recipe.measure_every": "0"}).changed(EPOCHS).to_dict()
LAYERS = ["1.weight", "3.weight", "5.weight"]
CELL = ("arm", "replicate", "threshold", "rewind_epoch")
DENSE = [0.950, 0.952, 0.951]


def results(arms, dense=DENSE, validation=None, status=None, speed=None):
    """Results as they are opened; per arm test accuracies as shares, (threshold, k, replicate).

    Thresholds 0.5, 0.6 and so on. Reinit is stored at the first k. `status` marks cells:
    (arm, replicate, i, j) → status. All stop early at the step 40, where they are as accurate
    as at their end, and reach the dense accuracy there, unless `speed` says otherwise: name →
    values, (threshold, k, replicate). The dense runs learn one image of 1,000 from there on, so
    that a step is known.
    """
    arms = {arm: arms[arm] for arm in ARMS if arm in arms}
    accuracy = np.stack([np.moveaxis(np.asarray(a, float), -1, 0) for a in arms.values()])
    codes = np.full(accuracy.shape, Status.DONE, "u1")
    for place, arm in enumerate(arms):
        if not ARMS[arm].has_k:
            codes[place, :, :, 1:] = Status.NOT_APPLICABLE
    for (arm, *index), what in (status or {}).items():
        codes[(list(arms).index(arm), *index)] = what
    thresholds = np.round(0.5 + np.arange(accuracy.shape[2]) / 10, 3)
    known = percent(np.where(codes == Status.NOT_APPLICABLE, np.nan, accuracy))
    of_cells = {
        "test_accuracy": known,
        "validation_accuracy": known if validation is None else percent(validation),
        "counted_density": np.broadcast_to(1 - thresholds[:, None], known.shape).copy(),
        "epochs_trained": np.broadcast_to(2.0 - np.arange(known.shape[3]), known.shape).copy(),
        "early_stop_iteration": np.full(known.shape, 40.0),
        "early_stop_test_accuracy": known.copy(),
        "iterations_to_dense": np.full(known.shape, 40.0),
    }
    for name, values in (speed or {}).items():
        of_cells[name][:] = np.moveaxis(np.asarray(values, float), -1, 0)
    left = {"layer_density": 0.5, "layer_dead_channels": 0.0}
    of_layers = {name: np.full((*known.shape, len(LAYERS)), value) for name, value in left.items()}
    last = percent(dense)
    of_dense = {
        "test_accuracy": last,
        "validation_accuracy": last.copy(),
        "early_stop_iteration": np.full(len(last), 40.0),
        "early_stop_test_accuracy": percent(np.asarray(dense) - 0.001),
        "iterations_to_dense": np.full(len(last), 80.0),
    }
    about = {"flag_values": [int(s) for s in Status]}
    about["flag_meanings"] = " ".join(s.name.lower() for s in Status)
    return xr.Dataset(
        {
            "status": (CELL, codes, about),
            **{name: (CELL, values) for name, values in of_cells.items()},
            **{name: ((*CELL, "layer"), values) for name, values in of_layers.items()},
        },
        {
            "arm": np.array(list(arms), object),
            "replicate": range(len(last)),
            "threshold": thresholds,
            "rewind_epoch": np.arange(float(known.shape[3])),
            "layer": np.array(LAYERS, object),
            "density": ("threshold", 1 - thresholds),
            **{f"dense_{name}": ("replicate", values) for name, values in of_dense.items()},
        },
        {"study": yaml.safe_dump(STUDY, sort_keys=False, default_flow_style=None)},
    )


def percent(shares):
    """Shares as they are opened."""
    return (100 * np.asarray(shares, float)).round(10)


def minus(*points, dense=DENSE):
    """Accuracies that lie so many points from the dense ones, per replicate."""
    return [d + p / 100 for d, p in zip(dense, points, strict=True)]


def verdict(arms, margin=1, **more):
    """The verdict of the only cell of a map, from one list of accuracies per arm."""
    judged = verdicts(results({arm: [[of]] for arm, of in arms.items()}, **more), margin)
    return str(judged.verdict.item())


# One-sided p of Student's t with two degrees of freedom, by hand: (1 − t / √(2 + t²)) / 2.
def p_of_three(t):
    return (1 - t / np.sqrt(2 + t**2)) / 2


def test_made_up_results_are_laid_out_as_real_ones(tmp_path):
    made = results({"ticket": np.full((2, 2, 3), 0.9)})
    axes = {name: made[name].values.tolist() for name in CELL}
    create_cube(tmp_path / "results.zarr", Extent(axes, 2, LAYERS), {"study": STUDY})
    real = open_results(tmp_path, "layers")
    layouts = (
        {n: (of[n].dims, of[n].dtype.kind, n in of.coords) for n in map(str, made.variables)}
        for of in (made, real)
    )
    assert next(layouts) == next(layouts)
    assert made.attrs["study"] == real.attrs["study"]
    about = [dict(of.status.attrs) for of in (made, real)]
    assert all(about[0][name] == list(about[1][name]) for name in ["flag_values"])
    assert about[0]["flag_meanings"] == about[1]["flag_meanings"]


def test_three_replicates_are_judged_as_by_hand():
    judged = verdicts(results({"ticket": [[minus(-0.2, 0, 0.2)]]}), 1).isel(
        threshold=0, rewind_epoch=0
    )
    # Mean 0, standard deviation 0.2 points, so a standard error of 0.2 / √3 = 0.1155 points.
    assert int(judged.replicates) == 3
    assert float(judged.minus_dense) == pytest.approx(0, abs=1e-12)
    half = 4.302653 * 0.2 / np.sqrt(3)
    assert judged.minus_dense_interval.values == pytest.approx([-half, half])
    assert float(judged.p_matching) == pytest.approx(p_of_three(1 / 0.1154701))
    assert float(judged.p_matching) == pytest.approx(0.00654, abs=1e-5)
    assert float(judged.p_worse) == pytest.approx(1 - 0.00654, abs=1e-5)
    # Accuracies 94.8, 95.2, 95.3: mean 95.1, standard deviation 0.2646.
    half = 4.302653 * 0.264575 / np.sqrt(3)
    assert float(judged.test_accuracy) == pytest.approx(95.1)
    assert judged.test_accuracy_interval.values == pytest.approx([95.1 - half, 95.1 + half])
    assert judged.verdict == "matching"


@pytest.mark.parametrize(("score", "wins"), [("lamp", True), ("random", False)])
def test_a_ticket_with_a_random_mask_does_not_win(score, wins):
    made = results({"ticket": [[minus(3, 3.1, 3.2)]], "reinit": [[minus(-2, -2.1, -2)]]})
    study = yaml.safe_load(made.attrs["study"])
    study["pruning"]["score"] = score
    judged = verdicts(made.assign_attrs(study=yaml.safe_dump(study)), 1)
    assert judged.verdict.item() == ("winning ticket" if wins else "matching")
    assert judged.p_no_better.isnull().all() == (not wins)
    assert judged.minus_control.sel(control="reinit").item() == pytest.approx(5.13, abs=0.01)


@pytest.mark.parametrize("seed", range(3))
def test_every_question_is_a_paired_t_test(seed):
    random = np.random.default_rng(seed)
    dense, ticket, mask, reinit = (random.integers(900, 960, (4, 5)) / 1000).tolist()
    arms = {"ticket": [[ticket]], "random_mask": [[mask]], "reinit": [[reinit]]}
    judged = verdicts(results(arms, dense), 1)
    lower, controls = np.array(dense) - 0.01, np.array([mask, reinit])

    def p(other, alternative):
        return stats.ttest_rel(ticket, other, alternative=alternative).pvalue

    matching = p(lower, "greater")
    assert judged.p_matching.item() == pytest.approx(matching)
    assert judged.p_worse.item() == pytest.approx(p(lower, "less"))
    each = [p(c + 0.01, "greater") for c in controls]
    assert judged.p_winning.item() == pytest.approx(max(matching, *each))
    some = min(1, 2 * min(p(c + 0.01, "less") for c in controls))
    assert judged.p_no_better.item() == pytest.approx(max(matching, some))
    for i, control in enumerate(controls):
        interval = 100 * np.array(stats.ttest_rel(ticket, control).confidence_interval(0.95))
        assert judged.minus_control_interval[i].values.ravel() == pytest.approx(interval)


def test_p_values_are_adjusted_for_the_cells_of_the_map():
    cells = [[minus(0.1, 0, -0.1)], [minus(-0.5, 0.5, 0)], [minus(0.5, -0.8, 0.4)]]
    alone = [verdicts(results({"ticket": [c]}), 1).p_matching.item() for c in cells]
    assert alone == sorted(alone)
    together = verdicts(results({"ticket": cells}), 1).p_matching.values.ravel()
    # Benjamini and Hochberg 1995, by hand: p · 3 / rank, and never above that of a later rank.
    a, b, c = alone[0] * 3, alone[1] * 3 / 2, alone[2]
    assert together == pytest.approx([min(a, b, c), min(b, c), c])


@pytest.mark.parametrize(
    ("ticket", "mask", "reinit", "said"),
    [
        ((0, 0.1, -0.1), None, None, "matching"),
        ((3, 3.1, 2.9), None, None, "matching"),
        ((-5, -5.1, -4.9), None, None, "worse"),
        ((-1, -1.1, -0.9), None, None, "undecided"),
        ((0, 3, -3), None, None, "undecided"),
        ((0, 0.1, -0.1), (-3, -3.1, -3), (-4, -4.1, -4), "winning ticket"),
        ((0, 0.1, -0.1), (-1.5, -1.4, -1.6), (-4, -4.1, -4), "winning ticket"),
        ((0, 0.1, -0.1), (-1, -0.9, -1.1), (-4, -4.1, -4), "matching"),
        ((0, 0.1, -0.1), (-0.5, -0.4, -0.6), (-4, -4.1, -4), "no better than control"),
        ((0, 0.1, -0.1), (0, -0.1, 0.1), (-4, -4.1, -4), "no better than control"),
        ((0, 0.1, -0.1), (-4, -4.1, -4), (1, 1.1, 1), "no better than control"),
        ((0, 0.1, -0.1), (-1, 1, -3), None, "matching"),
        ((-5, -5.1, -4.9), (-5, -5.1, -4.9), None, "worse"),
    ],
)
def test_the_verdict_is(ticket, mask, reinit, said):
    arms = {"ticket": ticket, "random_mask": mask, "reinit": reinit}
    assert verdict({arm: minus(*points) for arm, points in arms.items() if points}) == said


KEEPING = ["equal_epochs", "lr_rewind", "fine_tune", "lr_rewind_iterated", "ticket_child"]


@pytest.mark.parametrize("arm", KEEPING)
def test_only_a_scratch_control_can_take_a_win_away(arm):
    arms = {"ticket": minus(0, 0.1, -0.1), "random_mask": minus(-3, -3.1, -3)}
    assert verdict(arms | {arm: minus(1, 1.1, 1)}) == "winning ticket"


def test_signs_alone_that_do_as_well_take_the_win_away():
    arms = {"ticket": minus(0, 0.1, -0.1), "random_mask": minus(-3, -3.1, -3)}
    assert verdict(arms | {"constant_signs": minus(-3, -3.1, -3)}) == "winning ticket"
    assert verdict(arms | {"constant_signs": minus(0, 0.1, -0.1)}) == "no better than control"


def test_a_control_is_never_compared_at_another_k():
    """Random masks have k = 0 alone: what they are there says nothing of a ticket at k = 1."""
    ticket, worse = minus(0, 0.1, -0.1), minus(-3, -3.1, -3)
    arms = {"ticket": [[ticket, ticket]], "random_mask": [[worse, worse]]}
    hole = {("random_mask", r, 0, 1): Status.NOT_APPLICABLE for r in range(3)}
    judged = verdicts(results(arms, status=hole), 1)
    assert judged.verdict.values.tolist() == [["winning ticket", "matching"]]
    assert np.isnan(judged.minus_control.sel(rewind_epoch=1)).all()
    assert np.isnan(judged.p_winning.sel(rewind_epoch=1)).all()
    better = {"ticket": [[ticket, ticket]], "random_mask": [[ticket, ticket]]}
    judged = verdicts(results(better, status=hole), 1)
    assert judged.verdict.values.tolist() == [["no better than control", "matching"]]


def test_one_replicate_shows_nothing():
    found = results({"ticket": [[[0.95]]], "random_mask": [[[0.1]]]}, dense=[0.95])
    judged = verdicts(found, 1)
    assert judged.verdict.item() == "undecided"
    assert judged.test_accuracy.item() == 95
    assert np.isnan(judged.minus_dense_interval).all()
    limits = frontier(found, 1)
    assert limits.density.item() == 0.5
    assert np.isnan(limits.density_interval).all()
    assert np.isnan(controls(found).replicates_to_settle).all()


def test_equal_replicates_are_as_uncertain_as_one_image():
    judged = verdicts(results({"ticket": [[minus(0, 0, 0), minus(-5, -5, -5)]]}), 1)
    assert judged.verdict.values.tolist() == [["matching", "worse"]]
    half = 4.302653 * 0.1 / np.sqrt(3)  # one image of 1,000
    assert judged.minus_dense_interval[0, 0].values == pytest.approx([-half, half])
    # By a margin of one image it is not shown: t = √3, p = 0.113.
    assert verdict({"ticket": minus(0, 0, 0)}, margin=0.1) == "undecided"


def test_where_no_step_is_seen_nothing_is_shown():
    found = results({"ticket": [[[0.9] * 3]]}, dense=[0.9] * 3)
    found["dense_early_stop_test_accuracy"][:] = 90
    judged = verdicts(found, 1)
    assert judged.verdict.item() == "undecided"
    assert judged.minus_dense.item() == 0


def test_arms_are_paired_by_replicate():
    dense = [0.90, 0.95, 0.99]
    paired = minus(0, 0.1, -0.1, dense=dense)
    assert verdict({"ticket": paired}, dense=dense) == "matching"
    assert verdict({"ticket": paired[1:] + paired[:1]}, dense=dense) == "undecided"
    mask = minus(-1.5, -1.4, -1.6, dense=dense)
    arms = {"ticket": paired, "random_mask": mask}
    assert verdict(arms, dense=dense) == "winning ticket"
    assert verdict(arms | {"random_mask": mask[1:] + mask[:1]}, dense=dense) == "matching"


def test_reinit_has_no_k_and_counts_at_every_one():
    ticket = [[minus(0, 0.1, -0.1), minus(0.2, 0.1, 0), minus(-1, 0, 1)]]
    reinit = [[minus(-3, -3.1, -3), minus(50, 50, 50), minus(50, 50, 50)]]
    judged = verdicts(results({"ticket": ticket, "reinit": reinit}), 1)
    assert judged.minus_control.sel(control="reinit").values[0] == pytest.approx(
        [9.1 / 3, 9.4 / 3, 9.1 / 3]
    )
    assert judged.verdict.values[0, :2].tolist() == ["winning ticket"] * 2
    moved = results({"ticket": ticket, "reinit": [[reinit[0][1], reinit[0][0], reinit[0][2]]]})
    codes = [[Status.NOT_APPLICABLE, Status.DONE, Status.NOT_APPLICABLE]] * 3
    moved.status.loc[{"arm": "reinit"}] = np.array(codes)[:, None]
    moved["test_accuracy"].loc[{"arm": "reinit", "rewind_epoch": 1}] = percent(np.c_[reinit[0][0]])
    xr.testing.assert_allclose(verdicts(moved, 1), judged)


@pytest.mark.parametrize("status", [s for s in Status if s != Status.DONE])
def test_the_status_decides_what_counts_and_not_what_is_written(status):
    cells = [[minus(0, 0.1, -90), minus(0, 0.1, -0.1)]]
    judged = verdicts(results({"ticket": cells}, status={("ticket", 2, 0, 0): status}), 1)
    assert judged.replicates.values.tolist() == [[2, 3]]
    assert judged.minus_dense.values[0] == pytest.approx([0.05, 0])
    none = {("ticket", replicate, 0, 0): status for replicate in range(3)}
    judged = verdicts(results({"ticket": cells}, status=none), 1)
    assert judged.replicates.values.tolist() == [[0, 3]]
    assert np.isnan(judged.test_accuracy[0, 0])
    assert judged.verdict.values.tolist() == [["undecided", "matching"]]


def test_a_value_that_is_done_and_not_a_number_is_not_passed_over():
    assert verdict({"ticket": minus(0, 0.1, np.nan)}) == "undecided"


def test_a_control_that_is_not_done_cannot_be_beaten_and_loses_only_its_replicates():
    arms = {"ticket": minus(0, 0.1, -0.1), "random_mask": minus(-5, -5.1, -5)}
    assert verdict(arms, status={("random_mask", 0, 0, 0): Status.FAILED}) == "winning ticket"
    two = {("random_mask", replicate, 0, 0): Status.FAILED for replicate in (0, 1)}
    assert verdict(arms, status=two) == "matching"
    # Nor does one control that is beaten make up for one that could not be compared.
    assert verdict(arms | {"reinit": minus(-5, -5.1, -5)}, status=two) == "matching"


def test_a_replicate_without_dense_run_is_left_out():
    found = results({"ticket": [[minus(0, 0.1, -90)]]})
    found["dense_test_accuracy"][2] = np.nan
    judged = verdicts(found, 1)
    assert judged.replicates.item() == 2
    assert judged.minus_dense.item() == pytest.approx(0.05)


def test_hardly_any_cell_is_said_to_match_where_none_does():
    random = np.random.default_rng(0)
    dense = 0.9 + random.normal(0, 0.003, 3)
    ticket = dense - 0.01 + random.normal(0, 0.003, (300, 2, 3))
    judged = verdicts(results({"ticket": ticket}, dense), 1)
    assert set(np.unique(judged.verdict)) == {"undecided"}


FEW = settings(max_examples=10)
seeds = st.integers(0, 2**32 - 1)


def images(seed):
    """Images of 1,000 classified right: per arm 6 by 2 cells of 3 replicates; and dense.

    Cells far above, near and far below what they are compared with, of little and much noise.
    """
    random = np.random.default_rng(seed)
    dense = random.integers(850, 950, 3)
    offset = random.choice([-60, -14, -10, -3, 0, 5, 20], (3, 6, 2, 1))
    noise = np.rint(random.choice([0, 1, 5], (3, 6, 2, 1)) * random.normal(size=(3, 6, 2, 3)))
    arms = dict(zip(("ticket", "random_mask", "reinit"), dense + offset + noise, strict=True))
    return arms, dense


def judge(arms, dense):
    return verdicts(results({a: of / 1000 for a, of in arms.items()}, dense / 1000), 1)


def test_the_laws_below_are_of_all_verdicts():
    assert {v for seed in range(5) for v in judge(*images(seed)).verdict.values.flat} == {*VERDICTS}


@FEW
@given(seeds, st.permutations(range(3)))
def test_the_order_of_replicates_changes_nothing(seed, order):
    arms, dense = images(seed)
    moved = judge({arm: of[..., order] for arm, of in arms.items()}, dense[order])
    xr.testing.assert_allclose(moved, judge(arms, dense))


@FEW
@given(seeds, st.lists(st.integers(-50, 30), min_size=3, max_size=3))
def test_what_the_arms_of_a_replicate_share_cancels(seed, shared):
    arms, dense = images(seed)
    moved = judge({arm: of + shared for arm, of in arms.items()}, dense + shared)
    of_arms = ["test_accuracy", "test_accuracy_interval"]
    xr.testing.assert_allclose(moved.drop_vars(of_arms), judge(arms, dense).drop_vars(of_arms))


@FEW
@given(seeds, st.lists(st.integers(0, 30), min_size=12, max_size=12))
def test_tickets_that_get_less_accurate_are_never_judged_better(seed, falls):
    arms, dense = images(seed)
    fallen = arms | {"ticket": arms["ticket"] - np.reshape(falls, (6, 2, 1))}
    before, after = (judge(of, dense).verdict.values.ravel() for of in (arms, fallen))
    ranks = [[VERDICTS.index(verdict) for verdict in of] for of in (before, after)]
    assert all(a >= b for b, a in zip(*ranks, strict=True))


def test_the_frontier_is_the_lowest_density_that_matches_within_what_is_shown():
    ticket = [
        [minus(0, 0.1, -0.1), minus(-5, -5, -5.1)],  # density 0.5
        [minus(-2, 0.5, 0), minus(-5, -5, -5.1)],  # 0.4
        [minus(-3, 0.1, -0.5), minus(-5, -5, -5.1)],  # 0.3
        [minus(-5, -5, -5.1), minus(-5, -5, -5.1)],  # 0.2
    ]
    found = frontier(results({"ticket": ticket}), 1)
    assert found.density.values == pytest.approx([0.4, np.nan], nan_ok=True)
    assert found.density_interval[0].values == pytest.approx([0.3, 0.5])
    # All are shown to be worse: it is not below the densest, and may be the dense network's.
    assert found.density_interval[1].values == pytest.approx([0.5, 1.0])
    assert not found.at_edge.any()


def test_the_frontier_may_pass_a_ticket_that_falls_short():
    ticket = [[minus(-2, -1.9, -2.1)], [minus(0, 0.1, -0.1)]]
    found = frontier(results({"ticket": ticket}), 1)
    assert found.density.item() == pytest.approx(0.4)
    assert found.density_interval.values.ravel() == pytest.approx([0.0, 0.4])


def test_a_frontier_at_the_edge_of_the_grid_is_open_there():
    match, unknown, worse = minus(0, 0.1, -0.1), minus(0, 3, -3), minus(-5, -5, -5.1)
    columns = [[match, match], [match, worse], [unknown, unknown], [match, unknown]]
    ticket = np.moveaxis(np.array(columns), 1, 0)  # densities 0.5 and 0.4, a column for each k
    found = frontier(results({"ticket": ticket}), 1)
    assert found.density.values == pytest.approx([0.4, 0.5, 0.4, 0.4])
    assert found.at_edge.values.tolist() == [True, False, True, True]
    expected = [[0.0, 0.4], [0.5, 0.5], [0.0, 1.0], [0.0, 0.5]]
    assert found.density_interval.values == pytest.approx(np.array(expected))
    pending = {("ticket", r, 1, k): Status.PENDING for r in range(3) for k in range(4)}
    assert frontier(results({"ticket": ticket}, status=pending), 1).at_edge.all()


def test_one_collapsed_replicate_is_not_averaged_away():
    """Forty replicates, one of which fell by 10 points: on average it lies 0.3 points below."""
    steady = [0.1 * (-1) ** r for r in range(40)]
    dense = [0.95] * 40
    fallen = [-10.0, *steady[1:]]
    cells = [[minus(*steady, dense=dense), minus(*fallen, dense=dense)]]
    control = {"random_mask": np.array(cells) - 0.2}
    judged = verdicts(results({"ticket": cells, **control}, dense), 1)
    assert judged.verdict.values.tolist() == [["winning ticket", "undecided"]]
    assert judged.stable.values.tolist() == [[True, False]]
    assert judged.minus_dense.values[0, 1] > -0.5
    found = frontier(results({"ticket": cells}, dense), 1)
    assert found.density.values == pytest.approx([0.5, np.nan], nan_ok=True)


def test_a_cell_of_which_a_replicate_diverged_does_not_match():
    cells = [[minus(0, 0.1, -0.1), minus(-5, -5.1, -5)]]
    status = {("ticket", 2, 0, k): Status.DIVERGED for k in range(2)}
    judged = verdicts(results({"ticket": cells}, status=status), 1)
    assert judged.verdict.values.tolist() == [["undecided", "worse"]]
    for other in (Status.FAILED, Status.SKIPPED):
        found = results({"ticket": cells}, status=dict.fromkeys(status, other))
        assert verdicts(found, 1).stable.all()


@pytest.mark.parametrize(
    ("points", "fell"),
    [
        ((0, 0.1, -0.1, 0), False),
        ((0, 0.1, -0.1, -10), True),
        ((0, 0.1, -0.1, 10), False),  # one that is better is no collapse
        ((0, 0.1, -10, -10), False),  # half of them: it is not clear which are usual
        ((0, 5, -5, -10), False),  # they differ as much
    ],
)
def test_a_replicate_far_below_those_that_agree_has_collapsed(points, fell):
    usual = minus(0, 0.1, -0.1, 0.1, dense=[0.9] * 4)
    cells = [[usual, usual, minus(*points, dense=[0.9] * 4)]]
    found = collapsed(results({"ticket": cells}, [0.9] * 4), "test_accuracy")
    assert found.sum() == fell
    assert found[0, 3, 0, 2] == fell


def test_replicates_that_agree_by_chance_make_no_collapse_where_others_differ_more():
    dense = [0.9] * 4
    usual, by_chance = minus(0, 2, -2, 1, dense=dense), minus(0, 0, 0, -3, dense=dense)
    found = collapsed(results({"ticket": [[usual, usual, by_chance]]}, dense), "test_accuracy")
    assert not found.any()


def test_a_collapsed_reinit_is_found_once_where_it_is_stored():
    usual = [[minus(0, 0.1, -0.1)] * 2] * 2
    reinit = np.array(usual)
    reinit[1, 0, 2] -= 0.5
    found = collapsed(results({"ticket": usual, "reinit": reinit}), "test_accuracy")
    assert np.argwhere(found.values).tolist() == [[1, 2, 1, 0]]


def test_a_claim_that_says_more_is_never_easier_to_make():
    """One cell has a control: alone, its question would need no adjusting."""
    ticket = [[minus(0, 0.5, -0.5)], [minus(0, 3, -3)], [minus(0, 3, -3)]]
    arms = {"ticket": ticket, "random_mask": np.array(ticket) - 0.05}
    status = {("random_mask", r, i, 0): Status.FAILED for r in range(3) for i in (1, 2)}
    judged = verdicts(results(arms, status=status), 1)
    assert judged.p_matching.values[0, 0] > 0.05
    assert judged.p_winning.values[0, 0] >= judged.p_matching.values[0, 0]
    assert np.isnan(judged.p_winning.values[1:]).all()
    assert set(judged.verdict.values.flat) == {"undecided"}


def test_a_mean_difference_exactly_at_the_margin_is_within_it():
    assert frontier(results({"ticket": [[minus(-1, -1, -1)]]}), 1).density.item() == 0.5


# Cohen 1988, and G*Power, for a two-sided paired t-test at 0.05 with a power of 0.8.
@pytest.mark.parametrize(
    ("size", "replicates"), [(0.2, 199), (0.5, 34), (0.8, 15), (1.0, 10), (2.0, 5)]
)
def test_so_many_replicates_settle_an_effect_of_this_size(size, replicates):
    differences = size + np.array([-1, 1]) / np.sqrt(2)  # of standard deviation 1
    assert replicates_to_settle(differences) == replicates
    assert replicates_to_settle(-differences / 100) == replicates


@pytest.mark.parametrize("differences", [[], [0.1], [0.1, -0.1], [0.1, 0.1], [0.5, -0.5001]])
def test_nothing_is_promised_where_no_number_of_replicates_is_known_to_settle(differences):
    assert replicates_to_settle(differences) is None


def test_equal_differences_are_taken_to_spread_by_one_image():
    assert replicates_to_settle([0.002] * 3, least=0.001) == replicates_to_settle(
        0.002 + np.array([-1, 0, 1]) / 1000
    )


def spread_by_one(effect, count):
    """Return differences whose mean is `effect` times their standard deviation."""
    values = np.arange(count, dtype=float)
    return effect + (values - values.mean()) / values.std(ddof=1)


# The replicates that each true effect needs are those of the table above.
@pytest.mark.parametrize("count", [3, 5, 10])
@pytest.mark.parametrize(("size", "replicates"), [(0.5, 34), (0.8, 15), (1.0, 10), (2.0, 5)])
def test_an_effect_at_either_tail_of_a_true_one_has_the_truth_at_the_end_of_its_interval(
    size, replicates, count
):
    tails = stats.nct.ppf([0.1, 0.9], count - 1, size * np.sqrt(count)) / np.sqrt(count)
    weak, strong = (settling_interval(spread_by_one(of, count)) for of in tails)
    assert strong[1] == replicates
    if tails[0] > 0:  # else its direction is wrong
        assert weak[0] == replicates


@pytest.mark.parametrize("scale", [1, -0.01])
def test_to_settle_has_a_range_which_is_open_where_the_direction_is_not_known(scale):
    assert settling_interval(scale * np.array([2.2, 2.0, 2.4])) == (2, 3)
    assert settling_interval(scale * np.array([1.0, 0.2, 0.4])) == (4, 800)
    assert settling_interval(scale * np.array([0.5, -0.4])) == (11, np.inf)
    assert np.isnan(settling_interval([0.1])).all()


def test_controls_are_compared_at_the_k_that_the_validation_images_choose():
    arms = {
        "ticket": [[minus(0, 0.1, -0.1), minus(5, 5, 5)]],
        "random_mask": [[minus(-2, -2, -2), minus(-9, -9, -9)]],
        "reinit": [[minus(-3, -3, -3), minus(0, 0, 0)]],
    }
    validation = np.zeros((3, 3, 1, 2))
    validation[0, :, 0, 0], validation[1, :, 0, 1] = 0.9, 1.0  # of ticket at k=0, of mask at k=1
    found = controls(results(arms, validation=validation))
    assert found.rewind_epoch.values.tolist() == [0]
    assert found.control.values.tolist() == ["random_mask", "reinit"]
    assert found.minus_control.values[0] == pytest.approx([2, 3])
    assert found.replicates.values.tolist() == [[3, 3]]
    half = 4.302653 * 0.1 / np.sqrt(3)
    assert found.minus_control_interval[0, 0].values == pytest.approx([2 - half, 2 + half])
    assert found.replicates_to_settle.values.tolist() == [[2.0, 2.0]]
    assert found.replicates_to_settle_interval.values.tolist() == [[[2, 3], [2, 3]]]


def test_a_k_of_which_replicates_are_missing_is_not_chosen():
    ticket = [[minus(0, 0, 0), minus(5, 5, 5)], [minus(0, 0, 0), minus(0, 0, 0)]]
    status = {("ticket", 0, 0, 1): Status.DIVERGED}
    status |= {("ticket", r, 1, k): Status.PENDING for r in range(3) for k in range(2)}
    chosen = chosen_rewind_epochs(results({"ticket": ticket}, status=status))
    assert chosen.threshold.values.tolist() == [0.5]
    assert chosen.values.tolist() == [0]
