"""Sentences on how tickets were drawn, rewound and controlled."""

from lthdask.arms import ARMS, CHILDREN, POINTS_ON_LINE, controls_of
from lthdask.own import is_own, plain
from lthdask.report.methods.facts import Facts, counted, enumerated
from lthdask.report.methods.training import DATA
from lthdask.rewinding import Iterations, Rewind, number, rewind
from lthdask.source import is_one, meaning
from lthdask.training.recipe import Optimizer, Recipe, Schedule

SCORES = {
    "global": "their magnitude",
    "layerwise": "their magnitude",
    "lamp": "the layer-adaptive score LAMP (Lee et al. 2021)",
    "magnitude_increase": "how much their magnitude had increased",
    "movement": "how far they had moved",
    "snip": "SNIP (Lee et al. 2019) on the first batch",
    "synflow": "SynFlow (Tanaka et al. 2020) in 100 rounds",
    "grasp": "GraSP (Wang et al. 2020) on the first batch",
    "random": "random numbers, drawn anew for each replicate",
}
BEFORE_TRAINING = ("snip", "synflow", "grasp", "random")
OF_ZHOU = ("magnitude_increase", "movement")
LAYERS_KEEP = {
    "uniform": "",
    "erk": "numbers in proportion to the sum of their dimensions (Erdős–Rényi-Kernel, ERK; Evci et "
    "al. 2020)",
    "balanced": "equal numbers (Gadhikar et al. 2023)",
}
"""What layers keep by an allocation."""
SOURCES = {
    "random_mask": "Frankle et al. 2021",
    "reinit": "Frankle & Carbin 2019",
    "constant_signs": "Zhou et al. 2019",
    "equal_epochs": "as many epochs as the dense network, after Liu et al. 2019",
    "lr_rewind": "Renda et al. 2020",
    "fine_tune": "Renda et al. 2020",
    "lr_rewind_iterated": "Renda et al. 2020",
    "fine_tune_iterated": "Renda et al. 2020",
    "trained_ticket": "after Yosinski et al. 2014",
    "dense_pretrained": "Yosinski et al. 2014",
}
"""Where a control comes from."""


def transferred(f: Facts) -> str:
    """Say of which other study the tickets are, if they are."""
    if not _is_transfer(f):
        return ""
    files, data = f.block("source.files"), DATA.get(f["source.data"], f["source.data"])
    of = "replicate r had those of its replicate r"
    if is_one(files):
        each = enumerated(f"{name} (sha256 {digest})" for name, digest in sorted(files.items()))
        of = f"all replicates had one of them, {each}, so nothing is shown of any other"
    classes = (f.about.get("data") or {}).get("classes", f["source.classes"])
    head = ""
    if (f["source.data"], f["source.classes"]) != (f["data.name"], classes):
        head = (
            " As the classes are others, the output layer was drawn anew for each replicate, the "
            "same for all arms and the dense network, and was not pruned."
        )
    return (
        f"Tickets, and their masks, were not drawn here but transferred (Morcos et al. 2019) from "
        f"the study {f['source.study']} of the same network on {data}: {of}. {_by(f)} "
        f"are those there, and k = {f['source.rewind_epoch']} is the rewind epoch there.{head}"
    )


def _is_transfer(f: Facts) -> bool:
    return f["source.study"] is not None


def ranked(f: Facts) -> str:
    """Say which weights could be pruned, and what they were ranked by."""
    if not _prunes(f) or _is_transfer(f):
        return ""
    if masks := f["pruning.masks"]:
        each = enumerated(f"{plain(mask)} (sha256 {mask.rpartition('@')[2]})" for mask in masks)
        return (
            f"Masks of the weights of convolutions and linear layers were given: {each}, "
            f"the same for all replicates."
        )
    score, at = f["pruning.score"], rewind(f["mask_epoch"] or f["recipe.epochs"])
    spared = f" (all but {enumerated(f['pruning.spare'])})" if f["pruning.spare"] else ""
    after = f"after {_length(at)}"
    when = "before training" if score in BEFORE_TRAINING else after
    where = "within each layer" if _allocation(f) else "over the whole network"
    if score in OF_ZHOU:
        where += f" (Zhou et al. 2019{'' if _allocation(f) else ' rank within each layer'})"
    by = f", in the dense network {when}, by {SCORES.get(score, score)}, {where}"
    if is_own(score):
        by = (
            f", {where}, by {score} (code of the authors' own, which may use the "
            f"dense network's weights {after}, its initial ones and their gradients)"
        )
    return (
        f"The weights of convolutions and linear layers{spared} were ranked{by}; biases and batch "
        f"norm were never pruned."
    )


def _allocation(f: Facts) -> str:
    return f["pruning.allocation"] or ("uniform" if f["pruning.score"] == "layerwise" else "")


def _length(k: Rewind) -> str:
    """Return so much training in words."""
    if isinstance(k, Iterations):
        return counted(k.count, "iteration")
    return counted(k, "epoch") if isinstance(k, int) else f"{k:g} epochs"


def _prunes(f: Facts) -> bool:
    return any(ARMS[arm].has_threshold for arm in f.axes["arm"])


def pruned(f: Facts) -> str:
    """Say how many of them went at once."""
    if not _prunes(f) or f["pruning.masks"] or _is_transfer(f):
        return ""
    rate = f"{100 * f['pruning.rate']:g} %"
    rates = enumerated(
        [f"{100 * value:g} % of {name}" for name, value in f.block("pruning.layer_rates").items()]
        or [""]
    )
    keep = LAYERS_KEEP.get(_allocation(f), "")
    kept = f" Layers kept {keep}, at most all that they have." if keep else ""
    if f["pruning.schedule"] == "iterative":
        return (
            f"Pruning was iterative (Frankle & Carbin 2019): each of "
            f"{counted(f['pruning.rounds'], 'round')} pruned {rate} of the weights that were left"
            f"{f' ({rates})' if rates else ''}. From the second on, a round ranked the weights of "
            f"the trained ticket of the round before, at the same rewind epoch.{kept}"
        )
    if f["pruning.by"] == "cutoff":
        return "At once, all weights with a score below a cutoff were pruned."
    where = " in each layer" if _allocation(f) == "uniform" else ""
    more = f", as much as rounds of {rate} would take{where} ({rates})" if rates else where
    return f"At once, the threshold's share with the lowest scores was pruned{more}.{kept}"


def thresholds(f: Facts) -> str:
    """Say which thresholds there were, and what they left."""
    if not _prunes(f):
        return ""
    name = _by(f)
    if not f.tickets:
        return f"{name} were {enumerated(f.axes['threshold'])}."
    known = zip(f.axes["threshold"], f.densities, strict=True)
    each = [f"{t:g} ({f'{100 * d:.4g} %' if d == d else 'not known yet'})" for t, d in known]
    return (
        f"{name} were {enumerated(each)}; in brackets stands the share of the weights of "
        f"convolutions and linear layers that was left in the tickets, counted after training "
        f"(median)."
    )


def _by(f: Facts) -> str:
    return "Cutoffs" if f["pruning.by"] == "cutoff" else "Thresholds"


def rewound(f: Facts) -> str:
    """Say from where tickets were trained again, and how."""
    if _is_transfer(f):
        return (
            f"A ticket started as {meaning('ticket')}. All arms were trained for all "
            f"T = {f['recipe.epochs']} epochs, with a fresh optimizer, while pruned weights stayed "
            f"at zero."
        )
    ks = [rewind(k) for k in f.axes["rewind_epoch"]]
    unit = "iterations" if any(isinstance(k, Iterations) for k in ks) else "epochs"
    listed = enumerated(map(number, ks))
    source = "Renda et al. 2020" + ("; Frankle et al. 2019" if ks[-1] else "")
    source += "; Frankle et al. 2020" if unit == "iterations" else ""
    rest = f"epochs k + 1 to T = {f['recipe.epochs']}"
    if not all(isinstance(k, int) for k in ks):
        rest = f"the rest of T = {f['recipe.epochs']} epochs"
    fresh = " Optimizers started afresh." if f["fresh_buffers"] else ""
    state = "weights and statistics" if fresh else "complete state"
    if not f.tickets:
        kept = " Pruned weights stayed at zero in training." if _prunes(f) else ""
        if any(ARMS[arm].has_k for arm in f.axes["arm"]):
            kept += f" Checkpoint k is the dense network's {state} after k {unit} ({source}); "
            kept += f"k was {listed}.{fresh}"
        return f"No tickets were trained.{kept}"
    return (
        f"A ticket is checkpoint k, the dense network's {state} after k {unit} ({source}), under "
        f"its mask. It was trained for {rest}, at their learning rates and "
        f"on their batches, while pruned weights stayed at zero; k was {listed}.{fresh}"
    )


def controls(f: Facts) -> str:
    """Say what tickets were compared with, besides the dense network."""
    said, dense = [], ""
    own = {plain(arm): arm for arm in f["grid.arms"] if is_own(arm)}
    for arm in controls_of(f.axes["arm"]):
        if arm in own:
            said.append(
                f"{own[arm]} (code of the authors' own, which gives the weights and the mask that "
                f"training starts with at epoch k, from those of the ticket)"
            )
            continue
        rate = f" of {_fine_tune_rate(f):g}" if ARMS[arm].fine_tuned else ""
        source = f"; {SOURCES[arm]}" if arm in SOURCES else ""
        what = meaning(arm) if _is_transfer(f) else _meaning(arm)
        told = f"{arm} ({what}{rate}{source})"
        if ARMS[arm].has_threshold:
            said.append(told)
        else:
            dense = f" They were compared with {told}, too."
    if not said and not f.tickets:
        return ""
    if not said:
        none = "There was no control, which would tell what a ticket owes to its mask and weights."
        return none + dense
    return f"Controls of the same densities were {enumerated(said)}.{dense}"


def rewound_in_part(f: Facts) -> str:
    """Say which arms had but some of the rewind epochs."""
    some = f.block("grid.rewind_epochs_of").items()
    each = {arm: enumerated(number(rewind(k)) for k in ks) for arm, ks in some if f.arms([arm])}
    said = [f"{arm} had k = {ks} alone" for arm, ks in each.items()]
    return f"Of the rewind epochs, {enumerated(said)}." if said else ""


def pruned_in_part(f: Facts) -> str:
    """Say which arms had but some of the thresholds."""
    some = f.block("grid.thresholds_of").items()
    said = [f"{arm} had {enumerated(of)} alone" for arm, of in some if f.arms([arm])]
    return f"Of the thresholds, {enumerated(said)}." if said else ""


def _meaning(arm: str) -> str:
    return ARMS[arm].meaning.partition(";")[0]


def _fine_tune_rate(f: Facts) -> float:
    optimizer, schedule = f.block("recipe.optimizer"), f.block("recipe.schedule")
    recipe = Recipe(
        f["recipe.epochs"],
        f["recipe.batch_size"],
        Optimizer(**optimizer),
        Schedule(**schedule),
        fine_tune_rate=f["recipe.fine_tune_rate"],
    )
    return recipe.fine_tuning().optimizer.rate


def stability(f: Facts) -> str:
    """Say how stability was measured, if it was."""
    if not (children := f.arms(CHILDREN)):
        return ""
    said = enumerated(f"{arm} ({_meaning(arm)})" for arm in children)
    return (
        f"Stability (Frankle et al. 2020) was measured by {said}: a barrier is the highest test "
        f"error at {POINTS_ON_LINE} points on the line between the final weights of two siblings, "
        f"less the mean of its ends, with batch-norm statistics computed anew at each point."
    )


def masks(f: Facts) -> str:
    """Say whether masks were compared."""
    if not f.masks_compared:
        return ""
    return "The masks of every two epochs of a dense run were compared (after You et al. 2020)."


def learning_speed(f: Facts) -> str:
    """Say how learning speed was measured, if it was."""
    if not (every := f["recipe.measure_every"]):
        return ""
    judged = ", and tickets were judged there, too" if f.tickets and f.replicates > 1 else ""
    return (
        f"For learning speed (Frankle & Carbin 2019), losses and accuracies were measured every "
        f"{counted(every, 'step')} and after each epoch; a run stops early where its validation "
        f"loss is lowest, in steps from its own start{judged}."
    )
