"""What figures promise: the numbers that were measured, in every state a study can be in."""

import logging
from functools import partial

import numpy as np
import pytest
import xarray as xr
from bokeh.document import Document
from bokeh.plotting import figure

from lthdask import arms
from lthdask.report.cost import cost
from lthdask.report.figures.curves import curve_columns, learning_curves
from lthdask.report.figures.density import accuracy_over_density, early_stop_over_density
from lthdask.report.figures.layers import dead_channels_by_layer, density_by_layer
from lthdask.report.figures.map import describe, difference_map, map_columns
from lthdask.report.figures.masks import mask_distances
from lthdask.report.figures.rewinding import barrier_over_k, frontier_over_k
from lthdask.report.figures.style import LOOKS, look_of
from lthdask.report.figures.timeline import timeline
from lthdask.storage.results import open_results
from lthdask.storage.schema import GROUPS, Status
from tests.studies import made_study

FIGURES = {
    "map": difference_map,
    "curves": partial(learning_curves, arm="ticket", threshold=0.9, rewind_epoch=0.0),
    "accuracy": accuracy_over_density,
    "early stop": early_stop_over_density,
    "frontier": frontier_over_k,
    "barrier": barrier_over_k,
    "density by layer": density_by_layer,
    "dead channels": dead_channels_by_layer,
    "masks": mask_distances,
    "timeline": timeline,
}
ARMS = ("ticket", "reinit", "ticket_child", "dense_child")


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A study with several arms and three replicates, all of it done."""
    return open_results(
        made_study(
            tmp_path_factory.mktemp("whole"),
            ARMS,
            replicates=3,
            accuracy=lambda cell: 0.96 - 0.02 * cell.threshold - 0.001 * cell.replicate,
        ),
        *GROUPS,
    )


def with_status(results, code, where=slice(None)):
    """The same results with another status of some cells."""
    status = results.status.copy()
    at = {"threshold": where}
    status[at] = np.where(status[at] == Status.NOT_APPLICABLE, status[at], int(code))
    return results.assign(status=status)


def without_dense(results):
    names = [name for name in results.coords if str(name).startswith("dense_")]
    return results.assign_coords({name: results[name] * np.nan for name in names})


STATES = {
    "whole": lambda r: r,
    "nothing done": lambda r: without_dense(with_status(r, Status.PENDING)),
    "half done": lambda r: with_status(r, Status.PENDING, slice(1, None)),
    "all diverged": lambda r: with_status(r, Status.DIVERGED),
    "one replicate": lambda r: r.sel(replicate=[0]),
    "one ticket": lambda r: r.sel(threshold=[0.9], rewind_epoch=[0.0], arm=["ticket"]).drop_vars(
        "barrier"
    ),
}


@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("which", FIGURES)
def test_every_figure_is_drawn_in_every_state_without_a_warning(whole, which, state, caplog):
    with caplog.at_level(logging.WARNING):
        plot = FIGURES[which](STATES[state](whole))
        Document().add_root(plot)
        plot.document.validate()  # as Bokeh does when it is written
    assert not caplog.records
    said = plot.html_attributes["aria-label"]
    assert said
    assert "nan" not in said
    if state == "whole" and which != "masks":  # which a study of cells does not compare
        assert plot.xaxis[0].visible, f"is missing: {said}"
    if plot.xaxis[0].visible:
        assert all(axis.axis_label for axis in plot.axis)


def test_a_figure_says_which_group_was_not_opened(whole):
    results = whole.drop_vars([n for n in whole.variables if str(n).endswith("_curve")])
    plot = learning_curves(results, "ticket", 0.9, 0.0)
    assert 'open_results(path, "curves")' in plot.html_attributes["aria-label"]


def test_the_map_has_a_row_for_each_cell_with_its_difference_and_state(tmp_path):
    """Dense has 95 %; the four cells of the map are done, failed, diverged and pending."""
    became = dict(zip([(0.5, 0), (0.5, 2), (0.9, 0), (0.9, 2)], [1, 2, 3, 0], strict=True))
    study = made_study(
        tmp_path / "study",
        accuracy=lambda cell: 0.962,
        status=lambda cell: Status(became[cell.threshold, cell.rewind_epoch]),
    )
    found = map_columns(open_results(study))
    names = ("threshold", "k", "text", "state", "accuracy", "density", "mark_size", "row", "cell")
    assert list(zip(*(found[name] for name in names), strict=True)) == [
        (0.5, "0", "+1.2", "done", "96.2 %", "50 %", 0, 0, "ticket-r0-t0.5-k0"),
        (0.5, "2", "", "failed", "", "", 9, 0, "ticket-r0-t0.5-k2"),
        (0.9, "0", "", "diverged", "", "", 9, 1, "ticket-r0-t0.9-k0"),
        (0.9, "2", "", "pending", "", "", 16, 1, "ticket-r0-t0.9-k2"),
    ]
    assert found["difference"][0] == pytest.approx(1.2)
    assert found["row_density"] == ["50 %", "", "10 %", ""]  # counted, in the one that diverged
    marks = list(zip(found["mark"], found["mark_size"], strict=True))
    assert len(set(marks)) == 4  # they differ by more than their colour


def test_a_mean_has_a_mark_of_its_verdict_or_of_what_is_not_done(whole):
    """Tickets lie 0.1 or 0.9 points below dense, by 0.1 more in each replicate; 0.2 is allowed."""
    found = map_columns(whole)
    assert found["text"] == ["−0.1", "−0.1", "−0.9", "−0.9"]
    assert found["verdict"] == ["undecided"] * 2 + ["worse"] * 2
    assert found["side_mark"][2:] == ["inverted_triangle"] * 2
    assert found["side_size"] == [0, 0, 6, 6]
    status = whole.status.copy()
    status[0, 1, 1, 0] = int(Status.FAILED)
    cell = {name: values[2] for name, values in map_columns(whole.assign(status=status)).items()}
    assert (cell["state"], cell["outcome"]) == ("done", "2 done, 1 failed")
    assert (cell["side_mark"], cell["verdict"], cell["text"]) == ("x", "", "−0.9")


def test_the_text_of_a_map_follows_what_it_shows(whole):
    plot = difference_map(with_status(whole, Status.PENDING))
    assert "4 cells: 4 pending; not known yet" in plot.html_attributes["aria-label"]
    describe(plot, map_columns(whole))
    assert "4 cells: 4 done; −0.9 to −0.1" in plot.html_attributes["aria-label"]


def legend_of(plot):
    return {item.label.value for legend in plot.legend for item in legend.items}


def test_only_where_there_are_controls_can_a_ticket_win(whole):
    among = {"winning ticket", "matching", "no better than control", "worse"}
    assert legend_of(difference_map(whole)) & among == among
    alone = whole.sel(arm=["ticket"])
    assert legend_of(difference_map(alone)) & among == {"matching", "worse"}


def test_no_cell_of_a_map_has_a_hatch_of_its_own(whole):
    """A browser makes a picture of each: two seconds for 1,600 cells."""
    glyphs = [of.glyph for of in difference_map(whole).renderers]
    hatches = [glyph.hatch_pattern for glyph in glyphs if hasattr(glyph, "hatch_pattern")]
    assert "/" in hatches
    assert all(isinstance(hatch, str | None) for hatch in hatches)
    assert not set(hatches) & set(map_columns(whole))


@pytest.mark.parametrize(
    ("difference", "colour"),
    [(-10, "#b35806"), (-30, "#b35806"), (0, "#f7f7f7"), (10, "#542788"), (25, "#542788")],
)
def test_colours_are_symmetric_and_end_at_ten_points(whole, difference, colour):
    accuracy = whole.dense_test_accuracy + xr.zeros_like(whole.test_accuracy) + difference
    found = map_columns(whole.assign(test_accuracy=accuracy), replicate=0)
    assert set(found["colour"]) == {colour}


def test_curves_are_those_of_the_cell_and_of_its_dense_run(whole):
    """Curves rise by 10 points an epoch; a ticket at k=2 has only the third."""
    found = curve_columns(whole, "ticket", 0.9, 2.0, replicate=1)
    assert found["run"] == ["dense", "ticket"]
    assert found["epoch"] == [[1, 2, 3], [3]]
    assert (found["end"], np.round(found["last"], 6).tolist()) == ([3, 3], [95, 94.1])
    assert [np.round(values, 6).tolist() for values in found["value"]] == [[75, 85, 95], [94.1]]
    every = curve_columns(whole, "ticket", 0.9, 0.0)
    assert every["run"][:2] == ["dense, replicate 0", "dense, replicate 1"]


def test_accuracy_is_the_mean_at_the_k_of_the_validation_images_with_its_interval(whole):
    """Three replicates that lie 0.1 points apart: 0.1 · t(0.975, 2) / √3 = ±0.2484."""
    plot = accuracy_over_density(whole)
    sources = [r.data_source.data for r in plot.renderers if "interval" in r.data_source.data]
    ticket = next(data for data in sources if data["arm"][0] == "ticket")
    assert np.round(ticket["mean"], 6).tolist() == [94.9, 94.1]
    assert ticket["density"] == pytest.approx([0.5, 0.1])
    half = np.subtract(ticket["high"], ticket["low"]) / 2
    assert half == pytest.approx([0.24841, 0.24841], abs=1e-4)
    assert plot.xaxis[0].major_label_overrides[ticket["density"][1]] == "10 %\n0.9"


def test_densities_too_close_for_their_labels_keep_their_ticks(whole):
    close = whole.assign_coords(density=("threshold", [0.101, 0.1]))
    axis = accuracy_over_density(close).xaxis[0]
    assert sorted(axis.ticker.ticks) == [0.1, 0.101]
    assert sorted(axis.major_label_overrides.values()) == ["", "10 %\n0.9"]


def test_the_cost_is_counted_from_the_records(whole):
    """The 4 tickets of each replicate took 10 s each, one after the other, on 3 workers."""
    alone = cost(whole.sel(arm=["ticket"]))
    assert (alone.worker_seconds, alone.busy_seconds, alone.cells) == (120, 40, 12)
    assert alone.workers == 3
    assert (alone.speed_up, alone.efficiency) == (3, 1)
    assert "3 times faster than one worker" in str(alone)
    paused = whole.sel(arm=["ticket"], replicate=[0], rewind_epoch=[0.0])
    assert cost(paused).busy_seconds == 20  # the pause in between is not in it
    cohort = whole.sel(arm=["ticket"]).assign(seconds=whole.sel(arm=["ticket"]).seconds / 3)
    assert cost(cohort).workers == 1  # three cells side by side on a third of a worker each
    assert cost(whole.assign(seconds=whole.seconds * np.nan)) is None


def test_arms_differ_in_colour_dash_and_marker_and_an_unknown_one_keeps_its_own():
    assert LOOKS.keys() == {*arms.ARMS, "dense"}
    for which in ("colour", "dash", "marker"):
        alone = [look for arm, look in LOOKS.items() if arm not in arms.CHILDREN]
        assert len({getattr(look, which) for look in alone}) == len(alone)
    assert len({look.colour for look in LOOKS.values()}) == len(LOOKS)
    assert look_of("mine:arm@0123456789abcdef") == look_of("mine:arm@0123456789abcdef")
    figure().line([0], [0], line_dash=look_of("mine:arm@0123456789abcdef").dash)


def test_of_many_cells_the_timeline_joins_those_that_no_pixel_parts(whole, monkeypatch):
    """The 4 tickets of each replicate follow each other at once, 10 s each, on its own worker."""
    tickets = whole.sel(arm=["ticket"])
    assert [*timeline(tickets).renderers[0].data_source.data["took"]] == [10.0] * 12
    monkeypatch.setattr("lthdask.report.figures.timeline.MOST", 11)
    plot = timeline(tickets)
    bars = plot.renderers[0].data_source.data
    assert (sorted(bars["row"]), [*bars["took"]]) == ([0, 1, 2], [40.0] * 3)
    assert set(bars["cell"]) == {"4 cells"}
    assert "; cells without a gap to be seen are one bar" in plot.title.text
    parted = tickets.assign_coords(
        {name: tickets[name].where(tickets.threshold < 0.9, tickets[name] + np.timedelta64(1, "h"))
         for name in ("started", "ended")}
    )  # fmt: skip
    assert {*timeline(parted).renderers[0].data_source.data["cell"]} == {"2 cells"}
