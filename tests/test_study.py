"""What a study promises: strict, complete, and clear about what is wrong."""

import dataclasses
import math

import numpy as np
import pytest
import xarray as xr
import yaml

from lthdask import growing, needs
from lthdask.arms import ARMS
from lthdask.errors import InputError
from lthdask.grid import Cell, Grid
from lthdask.reading import studies as names
from lthdask.study import Study

DIGITS = Study.read("digits")


@pytest.mark.parametrize("name", names())
def test_every_shipped_study_is_valid_and_survives_writing_and_reading(name):
    study = Study.read(name)
    assert study.name == name
    assert Study.parse(study.to_yaml()) == study


def test_the_shipped_studies_are_the_ones_that_are_promised():
    assert names() == [
        "cifar10-mobilenetv2",
        "cifar10-resnet20",
        "digits",
        "fashion-lenet",
        "fashion-mobilenetv2",
        "fashion-resnet20",
        "imagenet-mobilenetv2",
        "mnist-lenet",
    ]
    original = Study.read("imagenet-mobilenetv2")
    assert len(original.grid.thresholds) == 20
    assert (original.grid.thresholds[0], original.grid.thresholds[-1]) == (0.60, 0.99)
    assert original.grid.rewind_epochs == (5, 10, 15, 20, 25)
    assert original.recipe.epochs == 150
    assert original.changed({"data.image_size": "112"}).data.image_size == 112
    remaining = [1 - t for t in Study.read("cifar10-resnet20").grid.thresholds]
    assert remaining == pytest.approx([0.8, 0.512, 0.328, 0.21, 0.134, 0.107])


def test_a_study_is_a_frozen_value():
    with pytest.raises(dataclasses.FrozenInstanceError):
        DIGITS.seed = 1
    assert DIGITS == Study.read("digits")
    assert hash(DIGITS) == hash(Study.read("digits"))


def test_settings_change_by_dotted_key_with_lists_separated_by_commas():
    study = DIGITS.changed(
        {
            "grid.thresholds": "0.25,0.75",
            "pruning.spare": "stem,classifier",
            "recipe.optimizer.weight_decay": "1e-4",
            "recipe.epochs": "9",
        }
    )
    assert study.grid.thresholds == (0.25, 0.75)
    assert study.pruning.spare == ("stem", "classifier")
    assert study.recipe.optimizer.weight_decay == 1e-4
    assert (study.recipe.epochs, needs.kept_until(study)) == (9, 5)
    assert DIGITS.changed({"pruning.spare": "stem"}).pruning.spare == ("stem",)


def test_settings_take_values_of_python_numpy_and_xarray():
    text = DIGITS.changed(
        {"grid.thresholds": "0.7,0.8", "grid.rewind_epochs": "0,1,2", "seed": "3"}
    )
    for thresholds, ks, seed in (
        ([0.7, 0.8], range(3), 3),
        (np.arange(0.7, 0.85, 0.1), np.array([0.0, 1.0, 2.0]), np.int64(3)),  # 0.7999999999999999
        ((0.7, 0.8), xr.DataArray([0, 1, 2]), 3.0),
        (np.float32([0.7, 0.8]), [0, 1, 2], 3),
    ):
        changes = {"grid.thresholds": thresholds, "grid.rewind_epochs": ks, "seed": seed}
        assert DIGITS.changed(changes) == text
    assert DIGITS.changed({"grid.thresholds": 0.5, "fresh_buffers": True, "mask_epoch": 3}) == (
        DIGITS.changed({"grid.thresholds": "0.5", "fresh_buffers": "true", "mask_epoch": "3"})
    )
    with pytest.raises(
        InputError, match="made of numbers, texts, lists, mappings and functions; got <object"
    ):
        DIGITS.changed({"seed": object()})
    with pytest.raises(InputError, match="digits: seed should be a valid integer; got 1.5"):
        DIGITS.changed({"seed": 1.5})


@pytest.mark.parametrize("name", ["008", "1e3", "yes", "0x1F", "1_000", "12.30", "null", "true"])
def test_a_study_whose_name_reads_as_something_else_is_opened_as_earlier_versions_wrote_it(name):
    study = DIGITS.changed({"name": f"'{name}'"})
    by_pyyaml = yaml.safe_dump(study.to_dict(), sort_keys=False)
    assert Study.parse(by_pyyaml) == Study.parse(study.to_yaml()) == study


def test_a_study_grows_by_values_to_the_union_of_both_grids():
    grown = DIGITS.grown(
        thresholds=np.array([0.95, 0.9]), rewind_epochs=[3, 0], arms="reinit", replicates=3
    )
    assert grown.grid == Grid((0.5, 0.8, 0.9, 0.95, 0.98), (0, 1, 2, 3, 4), ("ticket", "reinit"), 3)
    assert growing.differences(DIGITS, grown) == []
    assert grown.grown(replicates=2) == grown
    assert DIGITS.grown() == DIGITS
    with pytest.raises(InputError, match="unknown arm 'magic'"):
        DIGITS.grown(arms=["magic"])
    for odd in ({"thresholds": [[0.9]]}, {"arms": [1]}, {"replicates": True}):
        with pytest.raises(InputError, match=next(iter(odd))):
            DIGITS.grown(**odd)
    rounds = DIGITS.changed({"pruning.schedule": "iterative", "pruning.rounds": 3})
    assert rounds.grown(replicates=2).grid.replicates == 2


def test_a_study_is_built_of_values_as_they_come_and_is_the_same():
    grid = Grid(np.array([0.5, 0.9]), range(2), "ticket", np.int64(2))
    data = dataclasses.replace(DIGITS.data, augmentation=["crop"])
    study = dataclasses.replace(DIGITS, grid=grid, data=data, seed=np.int32(1))
    changes = {"grid.thresholds": "0.5,0.9", "grid.rewind_epochs": "0,1", "grid.replicates": "2"}
    assert study == DIGITS.changed(changes | {"data.augmentation": "crop", "seed": "1"})
    assert Study.parse(study.to_yaml()) == study
    assert hash(study)
    with pytest.raises(InputError, match="`epochs` is a whole number; got 6.5"):
        dataclasses.replace(DIGITS, recipe=dataclasses.replace(DIGITS.recipe, epochs=6.5))
    for given, problem in (
        (
            {"thresholds": [0.5], "rewind_epochs": ["0.5"]},
            "rewind_epochs takes epochs, such as 2 or",
        ),
        ({"thresholds": None, "rewind_epochs": [0]}, "thresholds takes numbers; got None"),
    ):
        with pytest.raises(ValueError, match=problem):
            Grid(**given)


def test_a_study_shows_itself_in_a_few_lines():
    lines = repr(DIGITS.changed({"seed": 3})).splitlines()
    assert lines[0] == "digits: 16 cells"
    assert len(lines) == 9
    assert "  grid            thresholds 0.5 0.8 0.95 0.98, rewind_epochs 0 1 2 4" in lines
    assert "  seed            3" in lines
    assert max(map(len, lines)) < 200


WRONG = [
    ({"recipe.epoch": "3"}, "unknown key 'recipe.epoch'; did you mean 'recipe.epochs'?"),
    ({"bogus": "3"}, "unknown key 'bogus'"),
    ({"recipe.optimizer": "adam"}, "'recipe.optimizer' is a block; set one of recipe.optimizer."),
    ({"grid.rewind_epochs_of": "1"}, "is a block; set one of its keys, grid.rewind_epochs_of.NAME"),
    ({"data.subset": "263"}, "200 validation images and a batch of 64, 264 at least; got 263"),
    ({"data.subset": "true"}, "data.subset should be a valid integer; got true"),
    ({"recipe.epochs": "many"}, 'recipe.epochs should be a valid integer; got "many"'),
    ({"recipe.epochs": "3.5"}, "recipe.epochs should be a valid integer; got 3.5"),
    ({"recipe.optimizer.rate": "5e-2x"}, 'should be a valid number; got "5e-2x"'),
    (
        {"recipe.schedule.name": "stap"},
        "unknown schedule 'stap'; did you mean 'step'? known: constant, cosine, cosine_restarts,",
    ),
    ({"grid.thresholds": "0.5,1.2"}, "share to prune, between 0 and 1; got 1.2"),
    ({"grid.thresholds": "0,0.5"}, "share to prune, between 0 and 1; got 0"),
    ({"grid.thresholds": ".nan"}, "between 0 and 1; got nan"),
    ({"grid.thresholds": [0.5, math.nan]}, "between 0 and 1; got nan"),
    ({"grid.rewind_epochs": [True]}, "'grid.rewind_epochs' takes numbers; got True"),
    ({"grid.thresholds": [[0.9]]}, "thresholds"),
    ({5: 1}, "unknown key '5'"),
    ({"grid.thresholds": "0.9,0.5"}, "thresholds must increase; got 0.9, 0.5"),
    ({"grid.thresholds": ""}, "thresholds must hold at least one value"),
    ({"pruning.by": "cutoff", "grid.thresholds": "-1,0.5"}, "a number above 0; got -1"),
    ({"grid.rewind_epochs": "0,6"}, "rewind epoch 6 leaves nothing to train: the study has 6"),
    ({"recipe.epochs": "1000000000"}, "epochs must be 1 to 100,000; got 1000000000"),
    ({"grid.rewind_epochs": "-1"}, "rewind_epochs must be 0 or more; got -1"),
    ({"grid.rewind_epochs": "1,1"}, "rewind_epochs holds a value twice: 1, 1"),
    ({"grid.replicates": "0"}, "replicates must be 1 or more; got 0"),
    ({"grid.arms": "ticket,magic"}, "unknown arm 'magic'; known: ticket"),
    (
        {"network.name": "vgg"},
        "unknown network 'vgg'; did you mean 'vgg16'? known: conv2, conv4, conv6, lenet_300_100",
    ),
    ({"data.name": "imagenet22k"}, "unknown data set 'imagenet22k'; known: cifar10"),
    ({"pruning.spare": "dephtwise"}, "spare names 'dephtwise', which this network does not have"),
    ({"keep_until": "-1"}, "keep_until must be 0 or more; got -1"),
    ({"keep_until": "null"}, "keep_until should be a valid integer; got none"),
    ({"seed": "-1"}, "seed must be 0 or more; got -1"),
    ({"matching_margin": "2"}, "matching_margin must be in"),
    ({"name": "../elsewhere"}, "name must be letters"),
]


@pytest.mark.parametrize(("changes", "problem"), WRONG, ids=[str(w[0]) for w in WRONG])
def test_what_is_wrong_is_said_in_one_sentence(changes, problem):
    with pytest.raises(InputError) as error:
        DIGITS.changed(changes)
    assert problem in str(error.value)
    assert "\n" not in str(error.value)


FILES = [
    ("grid: [", "my.yaml, line 1: "),
    ("name: a\nname: b", "my.yaml, line 2: the key 'name' is given twice"),
    ("- a", "a study must be a mapping"),
    (DIGITS.to_yaml() + "extra: 1", "unknown key 'extra'"),
    (DIGITS.to_yaml().replace("epochs: 6", "epoch: 7"), "did you mean 'recipe.epochs'?"),
    (DIGITS.to_yaml().replace("batch_size: 64", "batch_size: '64'"), 'got "64"'),
    (DIGITS.to_yaml().replace("seed: 0", "seed: true"), "seed should be a valid integer"),
    (
        DIGITS.to_yaml().replace("seed: 0", "seed: !!timestamp 2020-01-01"),
        ": could not determine a constructor",
    ),
    (
        DIGITS.changed({"mask_epoch": 3}).to_yaml().replace("mask_epoch: 3", "mask_epoch: [1]"),
        "mask_epoch takes epochs, such as 2 or 0.5, or iterations, such as 500it; got [1]",
    ),
    (DIGITS.to_yaml().replace(" threads: 1", " threads: 1025"), "threads must be 1,024 or fewer"),
    ("name: digits", "the key 'data' is missing"),
    ("? [a, b]\n: 1", "found unhashable key"),
    ("name: &a [*a]", "my.yaml"),
    (DIGITS.to_yaml().replace("seed: 0", "seed: " + "9" * 5000), "my.yaml"),
]


@pytest.mark.parametrize(("text", "problem"), FILES, ids=[f[1] for f in FILES])
def test_a_file_is_read_strictly(text, problem):
    with pytest.raises(InputError, match="my.yaml") as error:
        Study.parse(text, "my.yaml")
    assert problem in str(error.value)


def test_an_exponent_without_a_point_is_a_number():
    text = DIGITS.to_yaml().replace("weight_decay: 0.0005", "weight_decay: 5e-4")
    assert Study.parse(text) == DIGITS


@pytest.mark.parametrize(
    ("which", "problem"),
    [
        ("digit", "unknown study 'digit'; did you mean 'digits'?"),
        ("nowhere.yaml", "cannot read the study file nowhere.yaml: No such file"),
    ],
)
def test_an_unknown_study_is_refused(which, problem):
    with pytest.raises(InputError, match=problem):
        Study.read(which)


def test_a_study_may_grow_along_its_axes_and_nowhere_else():
    grown = DIGITS.changed(
        {
            "grid.thresholds": "0.25," + ",".join(map(str, DIGITS.grid.thresholds)),
            "grid.replicates": "2",
            "engine.threads": "2",
        }
    )
    assert growing.differences(DIGITS, grown) == []
    other = DIGITS.changed({"grid.thresholds": "0.5", "seed": "1", "recipe.batch_size": "32"})
    assert (
        growing.differences(DIGITS, other)
        == growing.differences(grown, other)
        == [
            "recipe.batch_size: 64 in the folder, 32 given",
            "seed: 0 in the folder, 1 given",
        ]
    )
    assert growing.differences(grown, DIGITS) == []


def test_two_studies_together_have_the_values_of_both():
    one = DIGITS.changed({"grid.thresholds": "0.5,0.9", "grid.arms": "ticket,reinit"})
    other = DIGITS.changed({"grid.rewind_epochs": "0,5", "grid.replicates": "2"})
    both = growing.joined(one, other.changed({"grid.thresholds": "0.8", "engine.threads": "2"}))
    assert both.grid == Grid((0.5, 0.8, 0.9), (0, 1, 2, 4, 5), ("ticket", "reinit"), 2)
    assert both.engine.threads == 2
    rounds = {"pruning.schedule": "iterative", "pruning.rounds": "5"}
    five, two = (DIGITS.changed(rounds | {"pruning.rounds": n}) for n in "52")
    assert growing.joined(two, five) == growing.joined(five, two) == five


@pytest.mark.parametrize(
    ("one", "other", "both"),
    [
        ({}, {}, {}),
        ({"lr_rewind": [0]}, {"lr_rewind": [4]}, {"lr_rewind": [0, 4]}),
        ({"lr_rewind": [0, 1]}, {"lr_rewind": [2, 4]}, {}),  # which are all
        ({"lr_rewind": [0]}, {}, {}),
        ({"lr_rewind": [0]}, None, {"lr_rewind": [0]}),  # without the arm
    ],
)
def test_two_studies_together_have_the_rewind_epochs_of_both_for_each_arm(one, other, both):
    study = DIGITS.changed({"grid.arms": "ticket,lr_rewind"})
    mine = study.changed({"grid.rewind_epochs_of": one})
    theirs = DIGITS if other is None else study.changed({"grid.rewind_epochs_of": other})
    for joined in (growing.joined(mine, theirs), growing.joined(theirs, mine)):
        assert joined.grid.rewind_epochs_of == {arm: tuple(ks) for arm, ks in both.items()}
        assert {*joined.grid.cells()} >= {*mine.grid.cells(), *theirs.grid.cells()}


def test_the_rewind_epochs_of_an_arm_are_set_by_a_key_of_its_own():
    study = DIGITS.changed({"grid.arms": "ticket,lr_rewind"})
    some = study.changed({"grid.rewind_epochs_of.lr_rewind": "1,2"})
    assert some.grid.rewind_epochs_of == {"lr_rewind": (1, 2)}
    assert Study.parse(some.to_yaml()) == some
    assert some.changed({"grid.rewind_epochs_of.lr_rewind": [4]}).grid.along(
        "rewind_epoch", "lr_rewind"
    ) == [4]
    assert some.changed({"grid.rewind_epochs_of": {}}) == study
    with pytest.raises(InputError, match="takes some of 0, 1, 2, 4; got 3"):
        study.changed({"grid.rewind_epochs_of.lr_rewind": "3"})
    with pytest.raises(InputError, match="only some arms can do with fewer: random_mask.* 'mgic'"):
        study.changed({"grid.rewind_epochs_of.mgic": "1"})


def test_the_thresholds_of_an_arm_are_those_that_are_still_there():
    rounds = {"pruning.schedule": "iterative", "pruning.rounds": "3", "grid.arms": "ticket,reinit"}
    some = DIGITS.changed(rounds | {"grid.thresholds_of.reinit": "0.2,0.488"})
    assert some.grid.thresholds_of == {"reinit": (0.2, 0.488)}
    assert Study.parse(some.to_yaml()) == some
    assert some.changed({"pruning.rounds": "2"}).grid.thresholds_of == {"reinit": (0.2,)}
    assert some.changed({"pruning.rounds": "4"}).grid.thresholds_of == {"reinit": (0.2, 0.488)}
    assert some.changed({"grid.arms": "ticket"}).grid.thresholds_of == {}
    with pytest.raises(InputError, match=r"thresholds_of.reinit takes some of 0.5; got 0.2, 0.488"):
        some.changed({"pruning.rate": "0.5", "pruning.rounds": "1"})
    with pytest.raises(InputError, match=r"thresholds_of.reinit takes some of .*; got 0.3"):
        some.changed({"grid.thresholds_of.reinit": "0.3,0.488"})


def test_two_studies_together_have_the_thresholds_of_both_for_each_arm():
    study = DIGITS.changed({"grid.arms": "ticket,reinit"})
    low, high = (study.changed({"grid.thresholds_of.reinit": t}) for t in ("0.5,0.8", "0.95,0.98"))
    assert growing.joined(low, high).grid.thresholds_of == {}
    middle = study.changed({"grid.thresholds_of.reinit": "0.8"})
    for one, other in ((low, middle), (middle, low)):
        assert growing.joined(one, other).grid.thresholds_of == {"reinit": (0.5, 0.8)}
    for one, other in ((middle, DIGITS), (DIGITS, middle)):
        assert growing.joined(one, other).grid.thresholds_of == {"reinit": (0.8,)}
    assert growing.joined(study, middle).grid.thresholds_of == {}
    assert growing.differences(middle, study) == []


def test_iterative_thresholds_follow_from_rate_and_rounds():
    rounds = Study.read("digits").changed({"pruning.schedule": "iterative", "pruning.rounds": "3"})
    assert rounds.grid.thresholds == (0.2, 0.36, 0.488)
    assert Study.parse(rounds.to_yaml()) == rounds
    more = rounds.changed({"pruning.rounds": "4"})
    assert more.grid.thresholds == (0.2, 0.36, 0.488, 0.5904)
    with pytest.raises(InputError, match=r"follow from the rate .* \(0.2, 0.36, 0.488\); leave"):
        rounds.changed({"grid.thresholds": "0.5,0.9"})


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"grid.arms": "reinit,reinit"}, "holds a value twice"),
        ({"grid.arms": "magic"}, "unknown arm 'magic'; known: ticket, random_mask"),
        ({"grid.arms": "ticket_child"}, "is compared with the arm ticket; add that arm"),
        ({"grid.arms": "ticket,fine_tune", "recipe.fine_tune_rate": "null"}, "linear falls to 0"),
        ({"mask_epoch": "7"}, "mask_epoch must lie between 0 and 6 epochs; got 7"),
        ({"pruning.schedule": "iterative"}, "rounds must be 1 to 1000; got 0"),
        ({"pruning.rounds": "3"}, "rounds belong to the iterative schedule"),
        ({"recipe.measure_every": "-1"}, "measure_every must be 0 or more"),
    ],
)
def test_settings_of_the_science_that_do_not_fit_are_refused(changes, problem):
    with pytest.raises(InputError, match=problem):
        Study.read("digits").changed(changes)


def test_a_rate_of_a_layer_is_part_of_the_study_s_identity():
    text = Study.read("mnist-lenet").to_yaml().replace("{classifier: 0.1}", "{}")
    half = Study.read("mnist-lenet")
    assert growing.differences(half, Study.parse(text)) != []
    assert growing.differences(Study.parse(text), half) != []
    with pytest.raises(InputError, match="layer_rates names 'nowhere', which this network"):
        Study.parse(text.replace("layer_rates: {}", "layer_rates: {nowhere: 0.1}"))


def test_a_cell_needs_the_checkpoints_that_its_arm_starts_from_and_no_other():
    study = Study.read("digits").changed({"mask_epoch": "3"})
    needed = {arm: needs.checkpoints_for(study, Cell(arm, 0, 0.5, 2), 8) for arm in ARMS}
    needed = {arm: places for arm, places in needed.items() if not ARMS[arm].of_source}
    assert needed == {
        "ticket": [2, 3],
        "random_mask": [2, 3],
        "reinit": [3],
        "constant_signs": [0, 3],
        "equal_epochs": [2, 3],
        "lr_rewind": [3, 6],
        "fine_tune": [3, 6],
        "lr_rewind_iterated": [3, 6],
        "fine_tune_iterated": [3, 6],
        "ticket_child": [2],
        "dense_child": [2, 6],
    }
    initial = study.changed({"pruning.score": "movement"})
    assert needs.checkpoints_for(initial, Cell("reinit", 0, 0.5, 0), 8) == [0, 3]


def test_an_iterated_arm_waits_for_its_own_round_before_and_no_other():
    rounds = {"pruning.schedule": "iterative", "pruning.rate": "0.5", "pruning.rounds": "3"}
    arms = "ticket,reinit,lr_rewind_iterated"
    study = Study.read("digits").changed(rounds | {"grid.arms": arms, "grid.rewind_epochs": "0,2"})
    second = {arm: Cell(arm, 0, 0.75, 2) for arm in study.grid.arms}
    waits = {arm: needs.waits_for(study, cell) for arm, cell in second.items()}
    assert waits == {
        "ticket": Cell("ticket", 0, 0.5, 2),
        "reinit": Cell("ticket", 0, 0.5, 2),
        "lr_rewind_iterated": Cell("lr_rewind_iterated", 0, 0.5, 2),
    }
    iterated = [Cell("lr_rewind_iterated", 0, t, 2) for t in study.grid.thresholds]
    assert [needs.awaited(study, cell) for cell in iterated] == [True, True, False]
    assert [needs.checkpoints_for(study, cell, 8) for cell in iterated] == [[6], [], []]
    assert [needs.state_for(study, cell, 8) for cell in iterated] == [6, None, None]
