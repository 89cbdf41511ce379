"""What a selection promises: no other network than was asked for, and the same answers to it."""

import numpy as np
import pytest
import xarray as xr
import yaml

import lthdask
from lthdask import InputError, select
from lthdask.results import Questions
from lthdask.storage.results import study_of
from lthdask.storage.schema import CELL, Status
from tests.test_verdict import minus, results

TICKET = [
    [minus(0, 0.1, -0.1), minus(0.2, 0.1, 0.3)],
    [minus(-5, -6, -5.5), minus(-1, 0, 1)],
]
QUESTIONS = {
    name: getattr(lthdask, name)
    for name in ("verdicts", "frontier", "controls", "early_stop", "difference_to_dense")
}


def made_up(ticket=TICKET, **more):
    """Two thresholds, 0.5 and 0.6, by two rewind epochs; three replicates and two arms."""
    return results({"ticket": ticket, "random_mask": np.array(ticket) - 0.03}, **more)


@pytest.mark.parametrize(
    ("asked", "given"),
    [
        (0.4, 0.4),
        (0.4 * 1.019, 0.4),
        (0.4 / 1.019, 0.4),
        (1 - 0.5, 0.5),
        ([0.5, 0.405], [0.5, 0.4]),
    ],
)
def test_a_density_is_found_within_two_percent_of_it(asked, given):
    assert select(made_up(), density=asked).density.values == pytest.approx(given)


@pytest.mark.parametrize("asked", [0.45, 0.4 * 1.021, 0.4 / 1.021, 0.0, 40, "half"])
def test_another_density_is_never_taken_for_the_one_that_was_asked_for(asked):
    with pytest.raises(InputError, match=f"^there is no density {asked}; known: 0.5, 0.4$"):
        select(made_up(), density=asked)


def test_a_threshold_may_be_what_a_computation_gives():
    assert 1 - 0.4 + 1e-9 != 0.6
    assert select(made_up(), threshold=1 - 0.4 + 1e-9).threshold.item() == 0.6
    assert select(made_up(), rewind_epoch=1).rewind_epoch.item() == 1
    with pytest.raises(InputError, match=r"there is no threshold 0.601; known: 0.5, 0.6"):
        select(made_up(), threshold=0.601)


def test_a_value_takes_its_axis_away_and_a_list_keeps_it():
    found = select(made_up(), arm="ticket", threshold=[0.6, 0.5], replicate=2, rewind_epoch=[1])
    assert found.test_accuracy.dims == ("threshold", "rewind_epoch")
    expected = made_up().sel(arm="ticket", threshold=[0.6, 0.5], replicate=2, rewind_epoch=[1])
    xr.testing.assert_identical(found, expected)


@pytest.mark.parametrize(
    ("asked", "problem"),
    [
        ({"arm": "tickets"}, "there is no arm tickets; known: ticket, random_mask"),
        ({"replicate": [0, 3]}, "there is no replicate 3; known: 0, 1, 2"),
        ({"rewind_epoch": slice(0, 1)}, r"there is no rewind_epoch slice.*; known: 0, 1"),
        ({"k": 1}, "there is no axis 'k' to select from; known: arm, replicate, threshold,"),
        ({"threshold": 0.5, "density": 0.5}, "there is no axis 'threshold' to select from"),
    ],
)
def test_what_cannot_be_selected_is_one_sentence_with_what_there_is(asked, problem):
    with pytest.raises(InputError, match=problem):
        select(made_up(), **asked)


def test_a_density_that_is_not_known_yet_is_passed_over():
    found = made_up()
    found["density"] = "threshold", [np.nan, 0.4]
    assert select(found, density=0.4).threshold.item() == 0.6
    with pytest.raises(InputError, match=r"there is no density 0.5; known: 0.4$"):
        select(found, density=0.5)
    found["density"] = "threshold", [np.nan, np.nan]
    with pytest.raises(InputError, match=r"known: none$"):
        select(found, density=0.5)


@pytest.mark.parametrize("question", QUESTIONS)
@pytest.mark.parametrize(
    "chosen",
    [
        {"arm": "ticket"},
        {"rewind_epoch": 0},
        {"replicate": 0},
        {"threshold": 0.5},
        {"arm": "ticket", "replicate": 0, "threshold": 0.5, "rewind_epoch": 1},
    ],
    ids=str,
)
def test_one_value_is_answered_as_a_list_of_it(question, chosen):
    ask, found = QUESTIONS[question], made_up()
    lists = found.sel({axis: [value] for axis, value in chosen.items()})
    xr.testing.assert_identical(ask(found.sel(chosen)), ask(lists))


@pytest.mark.parametrize("question", QUESTIONS)
def test_without_an_axis_a_question_says_what_it_needs(question):
    for gone in CELL:
        found = made_up().isel({gone: 0}, drop=True)
        with pytest.raises(InputError, match=f"these results have no {gone} any more; give those"):
            QUESTIONS[question](found)
    with pytest.raises(InputError, match="these results have no replicate any more; give those"):
        QUESTIONS[question](made_up().mean("replicate"))


def two_studies():
    """A study, and one of 100 test images, at other accuracies and with another margin."""
    one, other = made_up(), made_up(np.round(np.array(TICKET) - 0.007, 2), dense=[0.95, 0.95, 0.96])
    other["dense_early_stop_test_accuracy"][:] = 94
    study = study_of(other) | {"name": "other", "matching_margin": 0.02}
    return one, other.assign_attrs(study=yaml.safe_dump(study))


def test_the_margin_is_that_of_the_study_in_points():
    for study, margin in zip(two_studies(), (0.2, 2), strict=True):
        xr.testing.assert_identical(lthdask.verdicts(study), lthdask.verdicts(study, margin))
        xr.testing.assert_identical(lthdask.frontier(study), lthdask.frontier(study, margin))


@pytest.mark.parametrize("question", ["verdicts", "frontier"])
def test_studies_side_by_side_need_a_margin_and_are_judged_each_by_itself(question):
    both, ask = (
        xr.concat(two_studies(), "study", combine_attrs="drop_conflicts"),
        QUESTIONS[question],
    )
    with pytest.raises(InputError, match=r"a further axis, study, .* give `margin`, in points"):
        ask(both)
    found = ask(both, 1)
    for i, study in enumerate(two_studies()):
        xr.testing.assert_allclose(found.isel(study=i), ask(study, 1))


def test_the_difference_to_dense_is_in_points_and_of_cells_that_are_done():
    found = made_up(status={("ticket", 1, 0, 0): Status.FAILED})
    difference = lthdask.difference_to_dense(found)
    assert difference.dims == CELL
    assert difference.attrs["units"] == "points"
    assert difference[0, :, 0, 0].values == pytest.approx([0, np.nan, -0.1], nan_ok=True)
    assert difference[1, :, 1, 0].values == pytest.approx([-8, -9, -8.5])
    there = lthdask.difference_to_dense(found, "early_stop_test_accuracy")
    assert there[0, :, 0, 0].values == pytest.approx([0.1, np.nan, 0], nan_ok=True)


@pytest.mark.parametrize("question", QUESTIONS)
def test_the_accessor_asks_the_same_functions(question):
    found = made_up()
    xr.testing.assert_identical(getattr(found.lth, question)(), QUESTIONS[question](found))
    assert {name for name in vars(Questions) if name[0] != "_"} == {*QUESTIONS, "select"}
    alone = found.lth.select(arm=["ticket"], density=0.4)
    xr.testing.assert_identical(alone, select(found, arm=["ticket"], density=0.4))
    if question in ("verdicts", "frontier"):
        asked = getattr(found.lth, question)(5, level=0.2)
        xr.testing.assert_identical(asked, QUESTIONS[question](found, 5, level=0.2))


def with_reinit():
    return results({"ticket": TICKET, "reinit": np.array(TICKET) - 0.03})


@pytest.mark.parametrize("question", ["verdicts", "controls", "early_stop"])
def test_an_arm_without_a_rewind_epoch_is_never_lost_in_silence(question):
    """It is stored at the first one, and compared at every other."""
    whole = QUESTIONS["verdicts"](with_reinit(), 1)
    assert (whole.minus_control.sel(control="reinit").count("rewind_epoch") == 2).all()
    for selected in (with_reinit().sel(rewind_epoch=[1]), select(with_reinit(), rewind_epoch=1)):
        with pytest.raises(InputError, match="reinit has no rewind epoch, .* ask of the whole"):
            QUESTIONS[question](selected)


def test_studies_side_by_side_lend_each_other_no_margin():
    both = xr.concat(
        [made_up(), made_up().assign_attrs(study="{name: other, matching_margin: 0.2}")],
        xr.DataArray(np.array(["one", "other"], object), dims="study", name="study"),
        combine_attrs="drop_conflicts",
    )
    one = both.sel(study="other")
    with pytest.raises(InputError, match="do not say of which study they are; give `margin`"):
        lthdask.verdicts(one)
    with pytest.raises(InputError, match="further axis, study"):
        lthdask.controls(both)


def test_a_density_of_several_studies_is_selected_in_one_of_them():
    other = made_up().assign_coords(density=("threshold", [0.5, 0.3]))
    both = xr.concat([made_up(), other], "study", combine_attrs="drop_conflicts")
    with pytest.raises(InputError, match="each study has a density of its own here"):
        select(both, density=0.3)
    assert select(both.isel(study=1), density=0.3).threshold.item() == 0.6


@pytest.mark.parametrize(
    ("asked", "problem"),
    [
        (lambda r: select(r, threshold=np.inf), "there is no threshold inf"),
        (lambda r: lthdask.verdicts(r, accuracy="loss"), "unknown accuracy 'loss'; known: early_"),
        (lambda r: lthdask.difference_to_dense(r, "test_loss"), "unknown accuracy 'test_loss'"),
        (lambda r: lthdask.verdicts(r.test_accuracy), "give the dataset that .*open_results"),
        (lambda r: lthdask.frontier(r.sel(arm=["random_mask"])), "have random_mask alone"),
        (lambda r: lthdask.verdicts(r, level=2), "`level` is between 0 and 1.*got 2"),
        (lambda r: lthdask.verdicts(r, margin=-1), "`margin` is a difference in points.*got -1"),
    ],
)
def test_what_cannot_be_asked_is_refused_in_a_sentence(asked, problem):
    with pytest.raises(InputError, match=problem):
        asked(made_up())


def test_answers_can_be_saved_and_put_together(tmp_path):
    for name, question in QUESTIONS.items():
        answer = question(made_up())
        answer.to_zarr(tmp_path / name, consolidated=False)
        answer.to_netcdf(tmp_path / f"{name}.nc")
        parts = [answer.isel(rewind_epoch=[i]) for i in range(answer.sizes.get("rewind_epoch", 0))]
        if parts:
            xr.testing.assert_equal(xr.concat(parts, "rewind_epoch", join="outer"), answer)
