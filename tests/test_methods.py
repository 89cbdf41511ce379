"""What the words on methods promise: they are true of one study, and leave no setting out."""

import inspect
import re
import subprocess
import sys
import tarfile
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner

from lthdask.arms import ARMS, controls_of
from lthdask.commands.main import main
from lthdask.data.readers import READERS, DataSource
from lthdask.errors import InputError
from lthdask.networks.build import NETWORKS, Network
from lthdask.pruning.scores import SCORES
from lthdask.reading import flattened
from lthdask.report.methods import evidence, tickets, training
from lthdask.report.methods.facts import Facts
from lthdask.report.methods.references import REFERENCES
from lthdask.report.methods.text import PARAGRAPHS, UNSAID, in_words, methods
from lthdask.report.paired import COLLAPSE
from lthdask.report.verdict import frontier, verdicts
from lthdask.storage.schema import Status
from lthdask.study import Study

FORMATS = Path(__file__).parent / "formats"
BASE = "mnist-lenet"
SENTENCES = {say: keys.split() for sentences in PARAGRAPHS for say, keys in sentences.items()}
LITERAL = """\
Lottery tickets (Frankle & Carbin 2019) were looked for in a grid of 2 pruning thresholds by 2 \
rewind epochs, in 1 replicate. The data were scikit-learn's handwritten digits (Alpaydin & Kaynak \
1998) at 8×8 pixels: 1,097 images for training, 200 for validation and 500 for the test, in 10 \
classes (digest: sha256 b275ed81b6efd081). They were normalised by a mean and a standard deviation \
for each channel, taken from the training images. The 200 validation images had been set aside \
from the training images, the same for all replicates; nothing was chosen on the test images. \
Training images were not augmented. The network was LeNet-300-100 (LeCun et al. 1998). A dense \
network was trained for T = 2 epochs of 8 steps, on batches of 128, by stochastic gradient descent \
(momentum 0.9, weight decay 0.0005) of the cross-entropy; an incomplete last batch was left out. \
The learning rate began at 0.05 and fell to 0 along a straight line.

The weights of convolutions and linear layers were ranked, in the dense network after 2 epochs, by \
the layer-adaptive score LAMP (Lee et al. 2021), over the whole network; biases and batch norm \
were never pruned. At once, the threshold's share with the lowest scores was pruned. Thresholds \
were 0.5 (50 %) and 0.9 (10 %); in brackets stands the share of the weights of convolutions and \
linear layers that was left in the tickets, counted after training (median). A ticket is \
checkpoint k, the dense network's complete state after k epochs (Renda et al. 2020; Frankle et al. \
2019), under its mask. It was trained for epochs k + 1 to T = 2, at their learning rates and on \
their batches, while pruned weights stayed at zero; k was 0 and 1. Controls of the same densities \
were random_mask (checkpoint k under a random mask with the ticket's count in each layer; Frankle \
et al. 2021) and reinit (a new initialisation under the mask, trained for all T epochs; Frankle & \
Carbin 2019). Stability (Frankle et al. 2020) was measured by ticket_child (the ticket with \
another order of the data): a barrier is the highest test error at 30 points on the line between \
the final weights of two siblings, less the mean of its ends, with batch-norm statistics computed \
anew at each point. For learning speed (Frankle & Carbin 2019), losses and accuracies were \
measured every 7 steps and after each epoch; a run stops early where its validation loss is \
lowest, in steps from its own start.

There was one replicate, drawn from the seed 0: each accuracy is a single draw, without an \
interval, and nothing was tested. A ticket is within the margin if it is at most 1 percentage \
point below the dense network. The sparsest ticket within the margin was chosen on the validation \
images; so was, for each threshold, the rewind epoch at which arms are compared.

Training ran on CPUs in float32, with 1 CPU thread for a cell and 1 for a dense run; on such an \
engine, the same study gives the same results bit for bit. The software was lthdask 0.1.0 (the \
lthdask developers 2026), PyTorch 2.15.0 (Paszke et al. 2019), NumPy 2.4.6, Dask 2026.8.0, Zarr \
3.1.6, Pillow 13.0.0, Python 3.11.7, torchvision 0.29.2 and distributed 2026.8.0. 14 of 14 cells \
were trained to the end.

References

Alpaydin, E., Kaynak, C. (1998). Optical Recognition of Handwritten Digits. UCI Machine Learning \
Repository.
Frankle, J., Carbin, M. (2019). The Lottery Ticket Hypothesis: Finding Sparse, Trainable Neural \
Networks. ICLR. arXiv:1803.03635.
"""


def packed(form, folder):
    """Return the folder of a study as a format wrote it."""
    with tarfile.open(FORMATS / f"format-{form}.tar.xz") as packed:
        packed.extractall(folder, filter="data")
    return folder / "small"


def facts(changes=None, **others):
    """Facts of a study that differs from a shipped one in some settings, all of it done."""
    changes = {"engine.device": "cpu", "engine.precision": "float32"} | (changes or {})
    study = Study.read(changes.pop("study", BASE)).changed(changes)
    axes, count = study.grid.axes(), len(study.grid.cells())
    left = [1 - threshold for threshold in axes["threshold"]]
    return replace(Facts(flattened(study.to_dict()), axes, {Status.DONE: count}, left), **others)


def words(changes=None, **others):
    return in_words(facts(changes, **others))


def test_the_words_on_a_small_study(tmp_path):
    folder, file = packed(3, tmp_path), tmp_path / "methods.txt"
    said = CliRunner().invoke(main, ["report", str(folder), "--methods"])
    assert (said.exit_code, said.stdout[: len(LITERAL)]) == (0, LITERAL)
    arguments = ["report", str(folder), "--methods", "-o", str(file)]
    assert CliRunner().invoke(main, arguments).output == f"methods: {file}\n"
    assert file.read_text() == said.stdout
    assert not (folder / "report.html").exists()


@pytest.mark.parametrize("form", [1, 2])
def test_a_study_of_an_earlier_format_has_words_for_what_it_recorded(form, tmp_path):
    later = ": 1,097 images for training, 200 for validation and 500 for the test, in 10 classes"
    later += r" \(digest: sha256 b275ed81b6efd081\)| of 8 steps| Pillow 13.0.0,"
    assert methods(packed(form, tmp_path)).startswith(re.sub(later, "", LITERAL))


def test_a_study_of_which_the_cube_lacks_settings_is_refused_in_one_sentence(tmp_path):
    folder = packed(3, tmp_path)
    file = folder / "results.zarr" / "zarr.json"
    file.write_text(file.read_text().replace('"rate"', '"x"'))
    with pytest.raises(InputError, match="cannot be read: .*; `lthdask check"):
        methods(folder)


def test_they_need_neither_torch_nor_xarray_nor_scipy(tmp_path):
    heavy = ("torch", "xarray", "pandas", "scipy", "dask", "distributed", "bokeh")
    code = f"import sys; sys.modules.update(dict.fromkeys({heavy!r})); "
    code += "from lthdask.commands.main import main; main()"
    arguments = [sys.executable, "-c", code, "report", str(packed(3, tmp_path)), "--methods"]
    done = subprocess.run(arguments, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("more", [["--csv", "cells.csv"], ["other"]])
def test_methods_are_of_one_study_and_not_a_table(more):
    said = CliRunner().invoke(main, ["report", "study", "--methods", *more])
    assert said.exit_code == 2
    assert "--methods takes the folder of one study, and no --csv" in said.output


STEP = {"recipe.schedule.milestones": "20,30", "recipe.schedule.name": "step"}
SGD = {"recipe.optimizer.name": "sgd"}
ROUNDS = {"pruning.schedule": "iterative", "pruning.rounds": "5"}
MOBILE = {"study": "digits"}
FOLDER = {"study": "imagenet-mobilenetv2"}
TUNED = {"grid.arms": "ticket,fine_tune"}
GPU = {"engine.device": "cuda"}
GLOBAL = {"study": "cifar10-resnet20"}
GIVEN = {"grid.thresholds": "0.9"}
ONE = GLOBAL | {"grid.arms": "ticket,reinit", "grid.rewind_epochs": "0", "grid.thresholds": "0.9"}
OTHER = {
    "study": "first",
    "data": "svhn",
    "input": [3, 32, 32],
    "classes": 10,
    "rewind_epoch": 4,
    "files": {"ticket-t0.9": "0123456789abcdef", "rewound-t0.9": "fedcba9876543210"},
}
MOVED = GLOBAL | {"pruning.score": "movement"}
CHANGES = {
    "data.name": ({}, "svhn", "SVHN (Netzer et al. 2011)"),
    "data.image_size": ({}, "20", "20×20 pixels"),
    "data.validation": ({}, "123", "123 validation images"),
    "data.subset": ({}, "12000", "pixels, of the training images the first 12,000"),
    "data.augmentation": ({}, "flip,crop", "mirrored left to right with probability 1/2 and moved"),
    "data.normalisation": ({}, "image", "were standardised one by one after augmentation, each by"),
    "data.decoding": (FOLDER, "scaled", "JPEGs were decoded at a half, a quarter or an eighth"),
    "data.shorter_side": (FOLDER, "300", "were first brought to 300 pixels on their shorter side"),
    "network.name": ({}, "resnet20", "ResNet-20 (He et al. 2016)"),
    "network.form": (MOBILE, "small", "with stride 1 in the stem"),
    "network.width": (MOBILE, "0.25", "at width 0.25"),
    "network.first_projection": (GLOBAL, "true", "a projection shortcut in its first block"),
    "network.initialisation": (GLOBAL, "variance_scaling", "truncated at two deviations"),
    "network.batch_norm_momentum": (GLOBAL, "0.003", "of batch norm took 0.003 of each batch"),
    "recipe.epochs": ({}, "44", "T = 44 epochs"),
    "recipe.batch_size": ({}, "33", "batches of 33"),
    "recipe.optimizer.name": ({}, "sgd", "stochastic gradient descent"),
    "recipe.optimizer.rate": ({}, "0.03", "began at 0.03"),
    "recipe.optimizer.momentum": (SGD, "0.8", "momentum 0.8"),
    "recipe.optimizer.nesterov": (
        SGD | {"recipe.optimizer.momentum": "0.9"},
        "true",
        "(Nesterov momentum 0.9 (Sutskever et al. 2013), weight",
    ),
    "recipe.optimizer.decay_norm_and_bias": ({}, "false", "except on batch norm and biases"),
    "recipe.optimizer.weight_decay": ({}, "0.0007", "weight decay 0.0007"),
    "recipe.schedule.name": ({}, "cosine", "fell to 0 along half a cosine"),
    "recipe.schedule.warmup_epochs": (
        {},
        "3",
        "rose step by step to 0.0012 over the first 3 epoch",
    ),
    "recipe.schedule.milestones": (STEP, "22,33", "after each of the epochs 22 and 33"),
    "recipe.schedule.factor": (STEP, "0.3", "multiplied by 0.3"),
    "recipe.label_smoothing": ({}, "0.1", "smoothed by 0.1"),
    "recipe.fine_tune_rate": (TUNED, "0.00012", "fine-tuning of 0.00012; Renda et al. 2020"),
    "recipe.measure_every": ({}, "77", "every 77 steps"),
    "grid.thresholds": ({}, "0.7,0.85", "0.7 (30 %) and 0.85 (15 %)"),
    "grid.rewind_epochs": ({}, "0,3", "k was 0 and 3"),
    "grid.arms": ({}, "ticket,reinit,lr_rewind", "at the rates of epochs k + 1..T; Renda"),
    "grid.replicates": ({}, "7", "7 replicates"),
    "grid.rewind_epochs_of.random_mask": (
        {"grid.arms": "ticket,random_mask", "grid.rewind_epochs": "0,3"},
        "3",
        "Of the rewind epochs, random_mask had k = 3 alone.",
    ),
    "grid.rewind_epochs_of.lr_rewind": (
        {"grid.arms": "ticket,lr_rewind", "grid.rewind_epochs": "0,5it"},
        "5it",
        "Of the rewind epochs, lr_rewind had k = 5 alone.",
    ),
    "grid.thresholds_of.reinit": (
        {"grid.arms": "ticket,reinit", "grid.thresholds": "0.5,0.8"},
        "0.8",
        "Of the thresholds, reinit had 0.8 alone.",
    ),
    "pruning.score": (GLOBAL, "movement", "how far they had moved"),
    "pruning.allocation": (MOVED, "erk", "in proportion to the sum of their dimensions (Erdős"),
    "pruning.masks": (GIVEN, "mine@0123456789abcdef", "given: mine (sha256 0123456789abcdef), the"),
    "pruning.by": (GLOBAL, "cutoff", "score below a cutoff"),
    "pruning.schedule": (ROUNDS | {"pruning.rounds": "0", "pruning.schedule": "one_shot"}, "", ""),
    "pruning.spare": ({}, "classifier", "(all but classifier)"),
    "pruning.rate": (ROUNDS, "0.3", "pruned 30 % of the weights"),
    "pruning.rounds": (ROUNDS, "4", "each of 4 rounds"),
    "pruning.layer_rates.classifier": ({}, "0.15", "15 % of classifier"),
    "source": (ONE, OTHER, "2019) from the study first of the same network on SVHN (Netzer et al."),
    "seed": ({}, "5", "the seed 5"),
    "matching_margin": ({}, "0.005", "margin of 0.5 percentage points"),
    "fresh_buffers": ({}, "true", "Optimizers started afresh."),
    "mask_epoch": ({}, "17", "dense network after 17 epochs"),
    "engine.device": ({}, "cuda", "on GPUs"),
    "engine.precision": ({}, "bfloat16", "in bfloat16 (activations"),
    "engine.threads": ({}, "3", "3 CPU threads for a cell"),
    "engine.dense_threads": ({}, "4", "4 for a dense run"),
    "engine.cohort": (GPU, "16", "at most 16 cells side by side"),
    "engine.graphs": (GPU, "false", "without CUDA graphs"),
    "engine.kernels": (GPU, "false", "without kernels of its own"),
    "engine.matmul": ({}, "onednn", "matrix products by oneDNN"),
    "engine.evaluation": ({}, "folded", "batch norm folded into convolutions in evaluation"),
}
"""Setting → what the study is otherwise, another value, and what is then said."""


def block_of(key):
    """A key of a mapping whose keys are free is that of the mapping."""
    return re.sub(r"(layer_rates|\w+_of)\..*", r"\1", key)


def test_each_setting_has_its_place():
    """A new one is named by a sentence, in `PARAGRAPHS`, or changes no result (`UNSAID`)."""
    some = {"grid.arms": "ticket,random_mask", "grid.rewind_epochs_of.random_mask": "0"}
    some["grid.thresholds_of.random_mask"] = "0.79"
    study = flattened(Study.read(BASE).changed(some).to_dict())
    named = {key for keys in SENTENCES.values() for key in keys}
    known = {block_of(key) for key in study}
    assert known == named | set(UNSAID)
    assert {block_of(key) for key in CHANGES} == named


@pytest.mark.parametrize("key", CHANGES)
def test_a_setting_is_named_by_its_sentence(key):
    base, value, wanted = CHANGES[key]
    more = ROUNDS if key == "pruning.schedule" else {key: value}
    one, other = facts(dict(base)), facts({**base, **more})
    name = block_of(key)
    says = [say for say, keys in SENTENCES.items() if name in keys]
    assert all(say(one) != say(other) for say in says if say is not tickets.stability)
    text = in_words(other)
    assert (wanted or "Pruning was iterative") in text
    assert wanted not in in_words(one) or not wanted
    assert cited(text) == listed(text)


def cited(text):
    """Return what a text cites."""
    names = r"(?:[A-Z]\w+(?: & [A-Z]\w+| et al\.)?|the lthdask developers)"
    return set(re.findall(rf"{names} (?:19|20)\d\d(?![.\d])", text.partition("\nReferences")[0]))


def listed(text):
    """Return what its list of references has."""
    lines = text.partition("\nReferences\n\n")[2].splitlines()
    return {name for name, whole in REFERENCES.items() if whole in lines}


def test_every_score_network_data_set_and_control_has_words_and_every_reference_a_use():
    assert set(training.DATA) == set(READERS)
    assert set(training.NETWORKS) == set(NETWORKS)
    assert set(tickets.SCORES) == set(SCORES)
    assert set(tickets.SOURCES) == set(controls_of(ARMS))
    used = "".join(inspect.getsource(part) for part in (training, tickets, evidence))
    used = re.sub(r'"\s+f?"', "", used)
    assert [name for name in REFERENCES if name not in used] == []
    kinds = DataSource.__annotations__["augmentation"]
    assert all(f"'{name}'" in str(kinds) for name in training.AUGMENTATIONS)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        (
            {"recipe.optimizer.name": "adamw", "recipe.optimizer.weight_decay": "0.01"},
            "by AdamW (Loshchilov & Hutter 2019; β = 0.9 and 0.999, decoupled weight decay 0.01)",
        ),
        (
            {"recipe.schedule.name": "one_cycle", "recipe.schedule.warmup_epochs": "3"},
            "rose in a line from 0.00012 to 0.0012 over the first 3 epochs, fell back in the same",
        ),
        (
            {"recipe.schedule.name": "cosine_restarts", "recipe.schedule.milestones": "10,20"},
            "with warm restarts (Loshchilov & Hutter 2017) after the epochs 10 and 20.",
        ),
    ],
)
def test_each_optimizer_and_schedule_has_its_words_and_its_source(changes, told):
    said = words(changes)
    assert told in said
    assert cited(said) == listed(said)


def test_the_rules_that_are_told_are_those_that_are_used():
    for question in (verdicts, frontier):
        assert inspect.signature(question).parameters["level"].default == evidence.LEVEL
    assert evidence.COLLAPSE == COLLAPSE
    assert Network("resnet20").batch_norm_momentum == training.BATCH_NORM_MOMENTUM


@pytest.mark.parametrize("name", NETWORKS)
def test_each_network_has_its_words_and_its_source(name):
    said = words(GLOBAL | {"network.name": name})
    assert f"The network was {training.NETWORKS[name]}" in said
    assert cited(said) == listed(said)


def test_the_form_of_resnet18_is_said():
    small = words(GLOBAL | {"network.name": "resnet18", "network.form": "small"})
    assert "ResNet-18 (He et al. 2016), with a 3×3 stem at stride 1, and without its max" in small
    assert "ResNet-18 (He et al. 2016), with its strides for" in words(
        GLOBAL | {"network.name": "resnet18"}
    )


def test_what_was_tested_depends_on_replicates_and_controls():
    one = words({"grid.replicates": "1"})
    assert "single draw" in one
    assert "t-test" not in one
    assert "Benjamini" not in one
    assert "judged there, too" not in one
    none = words({"grid.replicates": "2"})
    assert "judged there, too" in none
    assert "There was no control" in none
    assert "wins" not in none
    assert "diverged never matches" in none  # a collapse takes three
    few = words({"grid.replicates": "3", "grid.arms": "ticket,reinit"})
    assert "more than the margin above reinit (intersection-union" in few
    assert "less than the margin above it." in few
    assert "at most 5 % of the verdicts of each kind are expected to be wrong" in few
    assert (
        "diverged or fell more than 7 standard deviations below the median of its cell never" in few
    )
    both = words({"grid.replicates": "3", "grid.arms": "ticket,reinit,random_mask"})
    assert "above each of reinit and random_mask (inter" in both
    assert "above one of them (Bonferroni)." in both
    kept = words({"grid.replicates": "3", "grid.arms": "ticket,lr_rewind"})
    assert "wins" not in kept
    assert "the rewind epoch at which arms are compared" in kept


def test_of_a_study_without_tickets_nothing_is_said_of_tickets():
    three = {"grid.replicates": "3", "recipe.fine_tune_rate": "0.001"}
    said = words(three | {"grid.arms": "reinit"}).partition("\nReferences")[0]
    assert "No tickets were trained. Pruned weights stayed at zero in training. Contr" in said
    assert re.search(r"Thresholds were [\d., ]+ and [\d.]+\. No", said)
    for untrue in ("tickets were judged", "A ticket", "t-test", "verdict", "sparsest", "; k was"):
        assert untrue not in said
    rewound = words(three | {"grid.arms": "random_mask", "grid.rewind_epochs": "0,3"})
    assert (
        "complete state after k epochs (Renda et al. 2020; Frankle et al. 2019); k was" in rewound
    )
    children = words(three | {"grid.arms": "dense_child"})
    for untrue in ("Thresholds were", "ranked", "pruned", "There was no control", "stayed at zero"):
        assert untrue not in children
    assert "No tickets were trained. Checkpoint k is" in children


def test_bits_are_only_claimed_where_all_cells_are_known_to_have_been_trained_one_by_one(tmp_path):
    folder = packed(3, tmp_path)
    claimed = "on such an engine, the same study gives the same results bit for bit"
    assert claimed in methods(folder)
    last = "1 for a dense run. The study's last run was set to train one cell at a time."
    (attempt,) = folder.glob("cells/ticket-r0-t0.9-k1/attempt-1.json")
    attempt.write_text(attempt.read_text().replace('"beside": 1', '"beside": 4'))
    assert (claimed in methods(folder), last in methods(folder)) == (False, True)
    attempt.unlink()
    assert (claimed in methods(folder), last in methods(folder)) == (False, True)
    several = words(GPU | {"engine.cohort": "auto", "engine.graphs": "false"})
    assert "set to train as many cells side by side as fit into memory, without CUDA" in several


def test_ones_own_code_is_told_as_what_it_is():
    known = facts()
    own = {"pruning.score": "mine:kept", "recipe.schedule.name": "mine:half", "data.image_size": 0}
    settings = {**known.settings, **own, "data.name": "mine:bytes"}
    about = {"data": {"shape": (3, 8, 8)}}
    said = in_words(replace(known, settings=settings, about=about))
    assert (
        "were those of mine:bytes (code of the authors' own). Inputs of bytes (uint8) were norm"
        in said
    )
    assert "ranked, over the whole network, by mine:kept (code of the authors' own, whi" in said
    assert "rate was 0.0012 times the schedule mine:half (code of the authors' own)." in said
    warm = settings | {"recipe.schedule.warmup_epochs": 2, "data.augmentation": ["flip"]}
    said = in_words(replace(known, settings=warm, about=about))
    assert "over the first 2 epochs, and then was 0.0012 times the schedule mine:half" in said
    assert "own). They were normalised by a mean" in said
    flat = {"data": {"shape": (5,)}}
    assert "They were used as they were." in in_words(replace(known, settings=settings, about=flat))


def test_what_layers_keep_is_told():
    increase = GLOBAL | {"pruning.score": "magnitude_increase"}
    assert "over the whole network (Zhou et al. 2019 rank within each layer);" in words(increase)
    uniform = words(increase | {"pruning.allocation": "uniform"})
    assert "magnitude had increased, within each layer (Zhou et al. 2019); biases" in uniform
    assert "lowest scores was pruned in each layer." in uniform
    balanced = words(GLOBAL | {"pruning.score": "random", "pruning.allocation": "balanced"})
    assert "before training, by random numbers, drawn anew for each replicate, within" in balanced
    assert "Layers kept equal numbers (Gadhikar et al. 2023), at most all that" in balanced


def test_a_random_mask_never_wins():
    control = GLOBAL | {"grid.replicates": "3", "grid.arms": "ticket,random_mask,reinit"}
    assert "It wins if" in words(control)
    said = words(control | {"pruning.score": "random"})
    assert "It wins if" not in said
    assert "Tickets have random masks, so none is said to win" in said


def test_what_is_not_done_is_said():
    assert "4 of 4 cells were trained to the end." in words(cells={Status.DONE: 4})
    some = {Status.DONE: 1, Status.FAILED: 2, Status.NOT_APPLICABLE: 9, Status.PENDING: 3}
    said = words(cells=some)
    assert "1 of 6 cells was trained to the end (2 failed and 3 not trained yet)." in said
    assert "The study is not complete" in said
    assert "The study is not complete" in words(untrained=1)
    skipped = words(cells={Status.DONE: 5, Status.SKIPPED: 7, Status.DIVERGED: 1})
    assert "5 of 13 cells were trained to the end (1 diverged and 7 skipped)." in skipped
    assert (
        "by a bisection of the thresholds at each rewind epoch, which goes by the verdicts"
        in skipped
    )
    assert "not complete" not in skipped
    unknown = words({"grid.thresholds": "0.5,0.9"}, densities=[0.5, float("nan")])
    assert "0.5 (50 %) and 0.9 (not known yet);" in unknown


def test_an_earlier_part_of_other_versions_and_rewind_points_inside_epochs_are_told():
    about = {"versions": {"torch": "2.9", "numpy": "2.4"}}
    about |= {"earlier_versions": [{"torch": "2.8", "numpy": "2.4"}]}
    said = words(about=about)
    assert "The software was PyTorch 2.9 (Paszke et al. 2019) and NumPy 2.4." in said
    assert "Before, a part was computed with PyTorch 2.8 (Paszke et al. 2019)." in said
    inside = facts()
    axes = {**inside.axes, "rewind_epoch": [0.0, 0.5, 2.0]}
    assert "k was 0, 0.5 and 2." in in_words(replace(inside, axes=axes))


def test_masks_that_were_compared_and_settings_that_an_older_study_lacks():
    assert "masks of every two epochs" in words(masks_compared=True)
    old = facts()
    lacking = {k: v for k, v in old.settings.items() if k not in ("fresh_buffers", "mask_epoch")}
    assert in_words(replace(old, settings=lacking)) == in_words(old)
