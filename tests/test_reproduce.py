"""What a reproduction promises: the published numbers, fairly compared, and rules that can fail."""

import hashlib
import io
import json
import math
import pickle
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
import yaml
from click.testing import CliRunner
from rich.console import Console
from scipy import stats
from torch import nn

from lthdask.commands.reproduce import command
from lthdask.driver.remaining import epochs_to_train
from lthdask.errors import InputError
from lthdask.networks.build import build
from lthdask.reading import flattened
from lthdask.report.contrasts import deviation_of_median
from lthdask.report.counterparts import medians
from lthdask.report.published import Accuracy, Numbers, Place, protocol, published
from lthdask.report.reproduction import outcome, print_reproduction, reproduction, verdict
from lthdask.report.signatures import RULES, signatures
from lthdask.storage.schema import Status
from lthdask.study import Study

ROOT = Path(__file__).parent.parent
SCRIPT = ROOT / "scripts" / "reproduce.py"
CARD = published("cifar10-resnet20")
STUDY = Study.read("cifar10-resnet20")
EXACT = {
    "network.first_projection": True,
    "network.batch_norm_momentum": 0.003,
    "network.initialisation": "variance_scaling",
    "data.normalisation": "image",
}
DONE, PENDING, NOT_APPLICABLE = Status.DONE, Status.PENDING, Status.NOT_APPLICABLE


def changed(numbers, cells):
    """The numbers with some accuracies replaced; None takes one away."""
    own = {place: numbers.cells[place]._replace(percent=p) for place, p in cells.items() if p}
    kept = {place: a for place, a in numbers.cells.items() if place not in cells}
    return Numbers(kept | own, numbers.dense)


def results(numbers=CARD.one_shot, replicates=3, offset=0.0, changes=None):
    """A study's results, as opened, whose medians (dense: means) are these accuracies.

    With all arms; reinit stands at the first rewind epoch.
    """
    study = STUDY.changed(changes or {})
    rewinds = CARD.rewind_epochs(study.recipe.epochs)
    coordinates = {
        "arm": CARD.arms,
        "replicate": range(replicates),
        "threshold": [1 - r / 100 for r in CARD.remaining],
        "rewind_epoch": list(rewinds.values()),
    }
    shape = tuple(len(values) for values in coordinates.values())
    status, accuracy = np.full(shape, PENDING), np.full(shape, np.nan)
    status[CARD.arms.index("reinit")] = NOT_APPLICABLE
    spread = np.array([-0.3, 0.0, 0.9]) if replicates > 1 else np.zeros(1)
    for place, (percent, _) in numbers.cells.items():
        k = 0 if place.rewind_epoch is None else list(rewinds).index(place.rewind_epoch)
        at = (CARD.arms.index(place.arm), slice(None), CARD.remaining.index(place.remaining), k)
        status[at], accuracy[at] = DONE, percent + offset + spread
    dense = CARD.one_shot.dense.percent + offset + spread - spread.mean()
    flags = {
        "flag_values": [int(s) for s in Status],
        "flag_meanings": " ".join(s.name.lower() for s in Status),
    }
    cells = tuple(coordinates)
    return xr.Dataset(
        {
            "status": (cells, status, flags),
            "test_accuracy": (cells, accuracy),
        },
        {**coordinates, "dense_test_accuracy": ("replicate", dense)},
        {"study": yaml.safe_dump(study.to_dict())},
    )


def printed(found, width=80):
    console = Console(width=width, file=io.StringIO())
    print_reproduction(console, found)
    return console.file.getvalue()


def test_the_card_is_the_grid_of_its_study():
    assert list(STUDY.grid.rewind_epochs) == list(CARD.rewind_epochs(STUDY.recipe.epochs))
    assert [round(100 * (1 - t), 1) for t in STUDY.grid.thresholds] == list(CARD.remaining)
    assert (STUDY.recipe.epochs, STUDY.grid.replicates) == (CARD.epochs, 3)
    assert len(CARD.one_shot.cells) == 6 * 11
    assert CARD.one_shot.cells[Place("reinit", None, 13.4)] == Accuracy(87.46, 3)
    assert CARD.one_shot.cells[Place("ticket", 172, 10.7)] == Accuracy(84.81, 3)
    assert CARD.iterative.cells[Place("ticket", 12, 13.4)] == Accuracy(91.41, 3)
    arms = {
        "grid.arms": "ticket,fine_tune,lr_rewind,reinit",
        "grid.rewind_epochs_of.fine_tune": "0",
        "grid.rewind_epochs_of.lr_rewind": "12",
    }
    assert protocol(CARD) == arms
    assert protocol(CARD, exact=True) == arms | EXACT


def test_the_cells_of_the_card_are_trained_and_no_other():
    study = STUDY.changed(protocol(CARD))
    cells = study.grid.cells()
    assert len(cells) == 3 * len(CARD.one_shot.cells)
    columns = {(c.arm, None if c.arm == "reinit" else c.rewind_epoch) for c in cells}
    assert columns == set(CARD.columns)
    assert epochs_to_train(study, cells, dense_runs=3) == 26_214
    every = STUDY.changed({"grid.arms": CARD.arms})
    assert epochs_to_train(every, every.grid.cells(), dense_runs=3) == 51_990


def test_the_noise_is_that_of_the_66_cells_of_the_card():
    """The card stated 0.34 once, which pooled an arm that is not in its grid."""
    card = yaml.safe_load((ROOT / "lthdask" / "published" / f"{STUDY.name}.yaml").read_text())
    deviations = np.array([column["deviation"] for column in card["one_shot"]])
    assert deviations.shape == (11, 6)
    assert CARD.deviation == pytest.approx(np.sqrt(np.mean(deviations**2)))
    assert f"{CARD.deviation:.3f}" == "0.277"


def test_the_pages_quote_the_noise_of_the_card_and_what_follows_from_it():
    cell, paired = CARD.deviation, math.hypot(CARD.deviation, CARD.dense_deviation)

    def shows_a_match(n):
        return stats.nct.sf(stats.t.isf(0.05, n - 1), n - 1, 0.2 / paired * n**0.5) >= 0.8

    replicates = next(filter(shows_a_match, range(2, 100)))
    method, page = (
        " ".join((ROOT / "docs" / f"{name}.md").read_text().split())
        for name in ("method", "reproduction")
    )
    assert f"one run of a cell is **{cell:.3f}** points" in page
    assert f"a cell of the map {cell:.3f} (" in method
    assert f"s would be {paired:.2f} points" in method
    assert f"that takes {replicates};" in method


def test_the_known_differences_are_true_of_our_code():
    layers = list(build(STUDY.network, (3, 32, 32), 10).modules())
    assert sum(getattr(layer, "kernel_size", 0) == (1, 1) for layer in layers) == 2
    assert {layer.momentum for layer in layers if isinstance(layer, nn.BatchNorm2d)} == {0.1}
    weight = [layer for layer in layers if isinstance(layer, nn.Conv2d)][-1].weight
    deviation = (2 / weight[0].numel()) ** 0.5
    assert weight.std().item() == pytest.approx(deviation, rel=0.05)
    assert weight.abs().max() > 3 * deviation  # not truncated at two deviations
    steps = (50_000 - STUDY.data.validation) // STUDY.recipe.batch_size
    shown = " ".join(printed(reproduction(results(), CARD), width=1000).split())
    for told in ("(ours there is the identity)", "(ours 0.9)", "2/fan-in", f"{steps} steps"):
        assert told in shown
    known = outcome(reproduction(results(), CARD))["known_differences"]
    assert known == [of.text for of in CARD.their_code]
    assert len(known) == 6


def test_an_exact_study_is_compared_and_what_it_took_over_differs_no_longer():
    exact = STUDY.changed(EXACT)
    layers = list(build(exact.network, (3, 32, 32), 10).modules())
    assert sum(getattr(layer, "kernel_size", 0) == (1, 1) for layer in layers) == 3
    assert {1 - of.momentum for of in layers if isinstance(of, nn.BatchNorm2d)} == {0.997}
    weight = [layer for layer in layers if isinstance(layer, nn.Conv2d)][-1].weight
    assert weight.std().item() == pytest.approx(weight[0].numel() ** -0.5, rel=0.05)
    found = reproduction(results(changes=EXACT), CARD)
    assert (found.differences, outcome(found)["comparable"]) == ([], True)
    assert [text.partition(",")[0] for text in found.known] == [
        "trained on all 50",
        "test accuracy is that of 8",
    ]
    some = {"network.first_projection": True, "network.batch_norm_momentum": 0.5}
    found = reproduction(results(changes=some), CARD)
    assert found.differences == ["network.batch_norm_momentum"]
    assert len(found.known) == 5


@pytest.mark.parametrize("iterative", [None, CARD.iterative])
def test_the_published_grid_keeps_all_signatures(iterative):
    found = signatures(CARD.one_shot, CARD, iterative)
    assert [(s.number, s.holds) for s in found] == [(number, True) for number in RULES]
    assert all(check.value is not None for s in found for check in s.checks)
    assert [s.number for s in found if s.note] == ([] if iterative else ["v"])


PLATEAU = CARD.signature["plateau"]
# What is planted → which signature it breaks.
PLANTED = {
    "reinit is as good as late rewinding": ("i", {Place("reinit", None, 21.0): 91.21}),
    "reinit is much worse than k=0": ("i", {Place("reinit", None, 80.0): 89.0}),
    "late rewinding gains nothing": (
        "ii",
        {Place("ticket", k, 13.4): 90.15 for k in (0,)} | {Place("reinit", None, 13.4): 90.1},
    ),
    "late rewinding gains too much": (
        "ii",
        {Place("ticket", 0, 10.7): 85.0, Place("reinit", None, 10.7): 85.0},
    ),
    "one epoch falls out of the plateau": ("iii", {Place("ticket", 52, 10.7): 86.9}),
    "no cliff": ("iv", {Place("ticket", 172, 21.0): 91.0}),
    "tickets match no longer at 51.2 %": ("v", {Place("ticket", k, 51.2): 90.9 for k in PLATEAU}),
    "tickets match at 21 %": ("v", {Place("ticket", k, 21.0): 91.6 for k in PLATEAU}),
    "k=0 is better than reinit at every density": (
        "i",
        {
            Place("reinit", None, r): CARD.one_shot.cells[Place("ticket", 0, r)].percent - 1.6
            for r in CARD.remaining
        },
    ),
}


@pytest.mark.parametrize("planted", PLANTED)
def test_a_planted_violation_is_caught_and_breaks_nothing_else(planted):
    number, cells = PLANTED[planted]
    found = signatures(changed(CARD.one_shot, cells), CARD, CARD.iterative)
    assert [s.number for s in found if not s.holds] == [number]
    (broken,) = (s for s in found if not s.holds)
    assert verdict(broken) == "does not hold"
    assert broken.deciding == broken.broken


@pytest.mark.parametrize("cell", [(21.0, 90.5), (10.7, 91.71)])
def test_the_iterative_half_is_judged_when_it_is_given(cell):
    remaining, percent = cell
    planted = changed(CARD.iterative, {Place("ticket", 12, remaining): percent})
    found = {s.number: s for s in signatures(CARD.one_shot, CARD, planted)}
    assert [n for n, s in found.items() if not s.holds] == ["v"]
    assert str(found["v"].deciding[0]).startswith(f"iterative k=12 − dense at {remaining:g} %: ")


def test_a_signature_names_the_cells_that_it_lacks_and_is_broken_by_those_it_has():
    lacking = {Place("reinit", None, share): None for share in CARD.remaining[1:]}
    first, *rest = signatures(changed(CARD.one_shot, lacking), CARD)
    assert (first.holds, verdict(first)) == (None, "cannot be judged")
    assert first.missing == [f"reinit at {share:g} %" for share in CARD.remaining[1:]]
    assert all(s.holds for s in rest)
    lacking[Place("reinit", None, 80.0)] = 85.0
    assert signatures(changed(CARD.one_shot, lacking), CARD)[0].holds is False
    found = signatures(replace(CARD.one_shot, dense=None), CARD)
    assert [s.number for s in found if s.holds is None] == ["v"]
    assert found[4].missing == ["dense"]
    assert [s.holds for s in signatures(Numbers({}, None), CARD)] == [None] * 5


def of_runs(numbers, runs):
    return replace(
        numbers, cells={place: a._replace(runs=runs) for place, a in numbers.cells.items()}
    )


def test_fewer_runs_are_noisier_so_it_takes_more_to_break_a_signature():
    planted = changed(CARD.one_shot, PLANTED["one epoch falls out of the plateau"][1])
    assert [signatures(of_runs(planted, n), CARD)[2].holds for n in (1, 3)] == [True, False]
    low = changed(CARD.one_shot, {Place("ticket", k, 51.2): 91.2 for k in PLATEAU})
    dense = [replace(low, dense=Accuracy(91.71, n)) for n in (1, 246)]
    assert [signatures(numbers, CARD)[4].holds for numbers in dense] == [True, False]


@pytest.mark.parametrize("runs", [1, 3, 30, 10_000])
def test_no_number_of_runs_of_the_published_medians_breaks_a_signature(runs):
    """Not to show a difference was taken for closeness once; (i) and (iii) fell at 30 runs."""
    found = signatures(of_runs(CARD.one_shot, runs), CARD, CARD.iterative)
    assert [s.number for s in found if not s.holds] == []


@pytest.mark.parametrize(("offset", "holds"), [(0.5, True), (0.9, None), (1.1, None), (1.6, False)])
def test_closeness_is_shown_or_refuted_or_left_open(offset, holds):
    cells = {
        Place("reinit", None, r): CARD.one_shot.cells[Place("ticket", 0, r)].percent - offset
        for r in CARD.remaining
    }
    found = signatures(changed(CARD.one_shot, cells), CARD)[0]
    assert found.holds is holds
    assert found.missing == []


@pytest.mark.parametrize("runs", [1, 3, 5, 101])
def test_the_noise_of_a_median_is_what_drawing_gives(runs):
    drawn = np.median(np.random.default_rng(0).normal(size=(40_000, runs)), axis=1).std()
    assert deviation_of_median(runs) == pytest.approx(drawn, rel=0.02)


def test_results_become_the_medians_that_were_published():
    found = medians(results(), CARD)
    assert found.cells.keys() == CARD.one_shot.cells.keys()
    for place, accuracy in CARD.one_shot.cells.items():
        assert found.cells[place] == (pytest.approx(accuracy.percent), 3)
    assert found.dense == (pytest.approx(91.71), 3)


def test_only_cells_that_are_done_count_and_reinit_is_found_wherever_it_stands():
    opened = results()
    place = {"arm": "ticket", "rewind_epoch": 12}
    at = opened.status.loc[place | {"threshold": opened.threshold[0]}]
    at[1:] = [Status.FAILED, Status.DIVERGED]
    opened.status.loc[place | {"threshold": opened.threshold[1]}] = PENDING
    for array in (opened.status, opened.test_accuracy):
        row = array.loc[{"arm": "reinit"}]
        row[:] = np.roll(row, 3, axis=-1)
    found = medians(opened, CARD).cells
    assert found[Place("ticket", 12, 80.0)] == (pytest.approx(91.59 - 0.3), 1)
    assert Place("ticket", 12, 51.2) not in found
    assert found[Place("reinit", None, 13.4)] == (pytest.approx(87.46), 3)


def test_arms_replicates_and_thresholds_that_were_not_trained_are_missing():
    part = results().sel(arm=["ticket"], replicate=[1]).isel(threshold=[0, 3])
    found = medians(part, CARD).cells
    assert {place.arm for place in found} == {"ticket"}
    assert {place.remaining for place in found} == {80.0, 21.0}
    assert {accuracy.runs for accuracy in found.values()} == {1}
    exact = part.assign_coords(threshold=[0.2, 1 - 0.8**7])
    assert medians(exact, CARD).cells.keys() == found.keys()


def test_a_difference_counts_from_two_standard_deviations_on():
    # 2 · 0.277 · √2 · 0.663 for two medians of three; 2 · 0.23 · √(1/3 + 1/246) dense.
    for offset, cells, dense in ((0.5, 0, 1), (-0.53, 66, 1), (0.25, 0, 0)):
        found = reproduction(results(offset=offset), CARD).comparisons
        assert found[0].noise == pytest.approx(0.519, abs=1e-3)
        assert found[-1].noise == pytest.approx(0.267, abs=1e-3)
        assert sum(not c.within for c in found[:-1]) == cells
        assert (not found[-1].within) == dense
    assert reproduction(results(replicates=1), CARD).comparisons[0].noise == pytest.approx(
        0.664, abs=1e-3
    )


def test_the_table_stands_beside_the_published_one_and_loses_no_digit():
    found = reproduction(results(offset=-0.65), CARD)
    rows = [line.split() for line in printed(found, width=20).splitlines()]
    at = next(i for i, row in enumerate(rows) if row[:2] == ["80", "%"])
    assert rows[at][2:5] == ["published", "91.14", "91.59"]
    assert rows[at + 1][:3] == ["ours", "90.49", "90.94"]
    assert rows[at + 2][:3] == ["difference", "-0.65*", "-0.65*"]
    assert len(rows[at]) == 2 + 1 + 11
    text = printed(found)
    assert (
        "* 67 of 67 differ from the published ones by more than the noise (± 0.52; dense ±" in text
    )
    assert CARD.source in text
    assert text.count(": holds") == 5
    assert "    k=0 − reinit on average: +0.26 (≥ -0.83, ≤ +0.83)" in text


@pytest.mark.parametrize("key", ["recipe.batch_size", "seed", "grid.replicates"])
def test_numbers_of_another_recipe_are_not_compared(key):
    found = reproduction(results(changes={key: "4"}), CARD)
    other = key == "recipe.batch_size"
    assert found.differences == [key] * other
    assert ("the numbers are not comparable" in printed(found)) == other
    assert any(line.split()[:1] == ["difference"] for line in printed(found).splitlines()) != other
    assert outcome(found)["comparable"] == (not other)


def test_a_fraction_scales_epochs_milestones_and_rewind_epochs_and_finds_them_again():
    tenth = {
        "grid.arms": "ticket,fine_tune,lr_rewind,reinit",
        "grid.rewind_epochs_of.fine_tune": "0",
        "grid.rewind_epochs_of.lr_rewind": "1",
        "recipe.epochs": "18",
        "recipe.schedule.milestones": "9,13",
        "grid.rewind_epochs": "0,1,3,5,7,9,13,17",
    }
    assert protocol(CARD, 0.1, STUDY.recipe.schedule.milestones) == tenth
    found = reproduction(results(changes=tenth | {"grid.arms": "ticket"}), CARD)
    assert all(c.ours for c in found.comparisons)
    assert found.holds
    assert (
        "the study has 18 epochs, and the protocol 182; of "
        "the published rewind epochs, 0 is 0, 12 is 1, 32 is 3," in printed(found)
    )
    for fraction in (0.02, 0.0, -1.0, 1.5, float("nan")):
        with pytest.raises(InputError, match="leave at least 10 of 182 epochs"):
            protocol(CARD, fraction, STUDY.recipe.schedule.milestones)


def test_results_of_something_else_are_refused():
    other = results()
    other.attrs["study"] = yaml.safe_dump(Study.read("digits").to_dict())
    with pytest.raises(InputError, match=r"for network.name resnet20, .* has mobilenet_v2"):
        medians(other, CARD)
    with pytest.raises(InputError, match="is one_shot, not iterative"):
        reproduction(results(), CARD, results())
    rounds = results(
        CARD.iterative, changes={"pruning.schedule": "iterative", "pruning.rounds": "11"}
    )
    found = reproduction(results(), CARD, rounds)
    assert found.holds
    assert not any(s.note for s in found.signatures)


# From here on, the command.


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["cifar"], "unknown card 'cifar'; did you mean 'cifar10-resnet20'?"),
        (
            ["cifar10-resnet20", "--fraction", "0.01"],
            "--fraction must be at most 1 and leave at least 10",
        ),
        (["cifar10-resnet20", "--iterative", "nowhere"], "there are no results at nowhere/"),
        (["cifar10-resnet20", "--set", "seed"], "--set takes KEY=VALUE; got 'seed'"),
        (["cifar10-resnet20", "--workers", "0"], "--workers must be 1 or more"),
        (["cifar10-resnet20", "--deploy", "slum"], "unknown deployment 'slum'"),
    ],
)
def test_bad_input_is_one_sentence_and_exit_code_2(tmp_path, arguments, problem):
    done = CliRunner().invoke(command, [*arguments, "--out", str(tmp_path / "run")])
    assert done.exit_code == 2
    assert done.stderr.startswith("error: ")
    assert problem in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert not (tmp_path / "run").exists()


def test_help_answers_without_importing_torch():
    code = (
        "import sys; sys.argv = ['reproduce.py', '--help']; import runpy\n"
        f"try: runpy.run_path({str(SCRIPT)!r}, run_name='__main__')\n"
        "except SystemExit: pass\n"
        "print(sorted({'torch', 'dask', 'zarr', 'xarray'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
    assert "CARD is one of: cifar10-resnet20, fashion-lenet." in done.stdout


def write_cifar10(folder, images=8):
    """CIFAR-10 as it is distributed, of a few images, and the cluster file to train on it.

    torchvision checks the digests of the true files; workers load those of these instead.
    """
    random, digests = np.random.default_rng(0), {}
    contents = {"batches.meta": {"label_names": [str(i) for i in range(10)]}}
    for number, file in enumerate([*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"]):
        labels = [(i + number) % 10 for i in range(images)]
        pixels = random.integers(0, 100, (images, 3, 32, 32), dtype=np.uint8)
        for image, label in zip(pixels, labels, strict=True):
            image[:, 3 * label : 3 * label + 4] += 100
        contents[file] = {"data": pixels.reshape(images, 3072), "labels": labels}
    place = folder / "cifar-10-batches-py"
    place.mkdir()
    for file, content in contents.items():
        (place / file).write_bytes(pickle.dumps(content))
        digests[file] = hashlib.md5((place / file).read_bytes()).hexdigest()
    (folder / "digests.py").write_text(
        f"from torchvision.datasets import CIFAR10\n"
        f"digests = {digests}\n"
        f"CIFAR10.train_list = [[file, digests[file]] for file, _ in CIFAR10.train_list]\n"
        f"CIFAR10.test_list = [[file, digests[file]] for file, _ in CIFAR10.test_list]\n"
        f"CIFAR10.meta = CIFAR10.meta | {{'md5': digests['batches.meta']}}\n"
    )
    (folder / "cluster.yaml").write_text(
        f"lthdask: {{deployment: local}}\n"
        f"distributed: {{worker: {{preload: [{folder / 'digests.py'}]}}}}\n"
    )


@pytest.mark.slow
def test_the_command_trains_a_fraction_of_the_protocol_and_compares_it(tmp_path):
    write_cifar10(tmp_path)
    out = tmp_path / "run"
    settings = (
        "grid.arms=ticket",
        "grid.thresholds=0.2",
        "grid.rewind_epochs=8,10",
        "data.validation=8",
        "recipe.batch_size=32",
    )
    options = f"--data {tmp_path} --cluster {tmp_path}/cluster.yaml --out {out} --workers 1"
    arguments = ["cifar10-resnet20", *options.split(), "--fraction", "0.06", "--replicates", "1"]
    arguments += ["--exact"]
    arguments += [part for setting in settings for part in ("--set", setting)]
    done = subprocess.run(
        [sys.executable, str(SCRIPT), *arguments], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (1, "")
    assert "2/2 cells" in done.stdout
    still = "still differs from their code: trained on all 50,000 images, 391 steps an epoch (ours"
    assert still in done.stdout
    trained = Study.parse((out / "study.yaml").read_text())
    assert all(flattened(trained.to_dict())[key] == value for key, value in EXACT.items())
    assert "the numbers are not comparable" in done.stdout
    assert "the study has 11 epochs, and the protocol 182" in done.stdout
    assert "(i) k=0 is close to reinit, within 1.0 points: cannot be judged" in done.stdout
    again = CliRunner().invoke(command, ["cifar10-resnet20", "--results", str(out), "--json"])
    values = json.loads(again.stdout)
    assert again.exit_code == 1
    assert values["folder"] == str(out)
    trained = {(c["rewind_epoch"], c["remaining"]): c for c in values["cells"] if c["runs"]}
    assert trained.keys() == {(132, 80.0), (172, 80.0)}
    assert all(0 <= cell["ours"] <= 100 for cell in trained.values())
    assert len(values["signatures"]) == 5
    quiet = CliRunner().invoke(command, ["cifar10-resnet20", "--results", str(out), "--quiet"])
    assert (quiet.exit_code, quiet.output) == (1, "")
