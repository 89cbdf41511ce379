"""The paragraphs: which sentences come in which order, and the settings that each names."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from lthdask.report.methods import evidence, tickets, training
from lthdask.report.methods.facts import Facts
from lthdask.report.methods.references import REFERENCES
from lthdask.storage.arrays import Arrays
from lthdask.storage.readable import readable

Sentence = Callable[[Facts], str]
PARAGRAPHS: Sequence[Mapping[Sentence, str]] = (
    {
        training.question: "",
        training.data: "data.name data.image_size data.validation data.normalisation data.subset "
        "data.decoding data.shorter_side",
        training.augmentation: "data.augmentation",
        training.network: "network.name network.form network.width network.first_projection "
        "network.initialisation network.batch_norm_momentum",
        training.training: "recipe.epochs recipe.batch_size recipe.optimizer.name "
        "recipe.optimizer.momentum recipe.optimizer.nesterov recipe.optimizer.weight_decay "
        "recipe.optimizer.decay_norm_and_bias recipe.label_smoothing",
        training.schedule: "recipe.optimizer.rate recipe.schedule.name "
        "recipe.schedule.warmup_epochs recipe.schedule.milestones recipe.schedule.factor",
    },
    {
        tickets.transferred: "source",
        tickets.ranked: "pruning.score pruning.spare pruning.masks mask_epoch",
        tickets.pruned: "pruning.by pruning.schedule pruning.rate pruning.rounds "
        "pruning.layer_rates pruning.allocation",
        tickets.thresholds: "grid.thresholds",
        tickets.rewound: "grid.rewind_epochs fresh_buffers",
        tickets.controls: "grid.arms recipe.fine_tune_rate",
        tickets.stability: "grid.arms",
        tickets.rewound_in_part: "grid.rewind_epochs_of",
        tickets.pruned_in_part: "grid.thresholds_of",
        tickets.masks: "",
        tickets.learning_speed: "recipe.measure_every",
    },
    {
        evidence.replicates: "grid.replicates seed",
        evidence.tests: "matching_margin",
        evidence.wins: "grid.arms",
        evidence.many: "",
        evidence.choices: "",
    },
    {
        evidence.engine: "engine.device engine.precision engine.threads engine.dense_threads "
        "engine.cohort engine.graphs engine.kernels engine.matmul engine.evaluation",
        evidence.versions: "",
        evidence.cells: "",
    },
)
"""Sentence → the settings that it names. `tests/test_methods.py` asks this of every setting."""
UNSAID = ("name", "keep_until")
"""Settings that change no result."""


def methods(of: Path | Arrays) -> str:
    """Return what a paper says of a study's methods, with the references.

    Each paragraph is one line, so that it can be pasted anywhere.

    Parameters
    ----------
    of : Path or Arrays
        The study's folder, or its results.

    Raises
    ------
    InputError
        If there are no results in the folder, or they are damaged.
    """
    arrays = of if isinstance(of, Arrays) else Arrays(of)
    with readable(arrays.path):
        return in_words(Facts.of(arrays))


def in_words(facts: Facts) -> str:
    """Return the same of facts that are known."""
    said = [" ".join(filter(None, (say(facts) for say in sentences))) for sentences in PARAGRAPHS]
    cited = [whole for name, whole in REFERENCES.items() if any(name in line for line in said)]
    return "\n\n".join([*said, "References", "\n".join(cited)]) + "\n"
