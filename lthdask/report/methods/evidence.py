"""Sentences on what the numbers rest on: replicates, tests, engine, versions, cells."""

from lthdask.arms import SCRATCH, controls_of
from lthdask.report.methods.facts import Facts, counted, enumerated
from lthdask.storage.schema import Status

LEVEL = 0.05
"""That of :func:`lthdask.verdicts`, as the other rules below: importing it takes half a second."""
COLLAPSE = 7
DEVICES = {"cpu": "CPUs", "cuda": "GPUs"}
PACKAGES = {
    "lthdask": "lthdask {} (the lthdask developers 2026)",
    "torch": "PyTorch {} (Paszke et al. 2019)",
    "numpy": "NumPy {}",
    "dask": "Dask {}",
    "zarr": "Zarr {}",
    "pillow": "Pillow {}",
    "python": "Python {}",
}
"""How packages are called; others by their names."""


def replicates(f: Facts) -> str:
    """Say in what replicates differ."""
    if f.replicates == 1:
        return (
            f"There was one replicate, drawn from the seed {f['seed']}: each accuracy is a single "
            f"draw, without an interval, and nothing was tested."
        )
    augmented = ", augmentation" if f["data.augmentation"] else ""
    return (
        f"Each of the {f.replicates} replicates had an initialisation, an order of the data"
        f"{augmented} and a dense network of its own, drawn from the seed {f['seed']}."
    )


def tests(f: Facts) -> str:
    """Say how tickets were compared with the dense network."""
    if not f.tickets:
        return ""
    margin = _points(f["matching_margin"])
    if f.replicates == 1:
        return f"A ticket is within the margin if it is at most {margin} below the dense network."
    return (
        f"Test accuracies after the last epoch were compared in pairs, by replicate, with "
        f"one-sided t-tests at the level {LEVEL} and a margin of {margin}; a standard deviation "
        f"was taken to be at least one test image. A ticket matches if it is shown to lie less "
        f"than the margin below the dense network (Schuirmann 1987), and is worse if it is shown "
        f"to lie further below."
    )


def wins(f: Facts) -> str:
    """Say how tickets were compared with the controls that take an ingredient away."""
    scratch = f.arms(SCRATCH)
    if f.replicates == 1 or not (f.tickets and scratch):
        return ""
    if f["pruning.score"] == "random":
        return "Tickets have random masks, so none is said to win, whatever it owes to its weights."
    every = f"each of {enumerated(scratch)}" if len(scratch) > 1 else scratch[0]
    some = "one of them (Bonferroni)" if len(scratch) > 1 else "it"
    return (
        f"It wins if it matches and is shown to lie more than the margin above {every} "
        f"(intersection-union test, Berger 1982), and is no better than a control if it matches "
        f"and is shown to lie less than the margin above {some}."
    )


def many(f: Facts) -> str:
    """Say how it was allowed for that there are many cells."""
    if f.replicates == 1 or not f.tickets:
        return ""
    fallen = "diverged"
    if f.replicates > 2:
        fallen += f" or fell more than {COLLAPSE} standard deviations below the median of its cell"
    return (
        f"The p-values of each claim were adjusted for all cells of the map (Benjamini & Hochberg "
        f"1995), so that at most {100 * LEVEL:g} % of the verdicts of each kind are expected to be "
        f"wrong; a ticket of which a replicate {fallen} never matches. Intervals are two-sided, at "
        f"{100 * (1 - LEVEL):g} %, of each cell alone. The frontier of a rewind epoch is the "
        f"lowest density with a mean difference to the dense network of at least minus the margin; "
        f"its interval inverts the tests."
    )


def choices(f: Facts) -> str:
    """Say what was chosen on the validation images."""
    if not f.tickets:
        return ""
    chosen = "The sparsest ticket within the margin was chosen on the validation images"
    if f.replicates > 1:
        chosen += ", and its interval allows for the choice from all cells (Bonferroni)"
    if controls_of(f.axes["arm"]):
        chosen += "; so was, for each threshold, the rewind epoch at which arms are compared"
    return f"{chosen}."


def engine(f: Facts) -> str:
    """Say on what and how it was computed."""
    used = f.block("engine") | f.about.get("engine", {})
    device, precision, cohort = used["device"], used["precision"], used["cohort"]
    if device not in DEVICES:
        return ""
    how = f"Training ran on {DEVICES[device]} in {precision}"
    if precision == "bfloat16":
        how += " (activations and convolutions; weights, gradients and updates in float32)"
    how += f", with {counted(used['threads'], 'CPU thread')} for a cell and "
    how += f"{used['dense_threads']} for a dense run"
    how += ", matrix products by oneDNN" if used.get("matmul") == "onednn" else ""
    if used.get("evaluation") == "folded":
        how += ", and batch norm folded into convolutions in evaluation"
    if f.alone and cohort == 1:
        return f"{how}; on such an engine, the same study gives the same results bit for bit."
    last = "one cell at a time" if cohort == 1 else f"at most {cohort} cells side by side"
    if cohort == "auto":
        last = "as many cells side by side as fit into memory"
    if device == "cuda":
        without = {"CUDA graphs": used["graphs"], "kernels of its own": used["kernels"]}
        off = [what for what, on in without.items() if not on]
        last += f", without {enumerated(off)}" if off else ""
    return f"{how}. The study's last run was set to train {last}."


def versions(f: Facts) -> str:
    """Say what it was computed with."""
    now = f.about.get("versions", {})
    earlier = [
        of
        for before in f.about.get("earlier_versions", ())
        if (of := {name: v for name, v in before.items() if now.get(name) != v})
    ]
    told = f"The software was {_packages(now)}." if now else ""
    return " ".join(
        [told, *(f"Before, a part was computed with {_packages(of)}." for of in earlier)]
    )


def cells(f: Facts) -> str:
    """Say what became of the cells, and whether the study is complete."""
    kinds = {s: n for s, n in f.cells.items() if s is not Status.NOT_APPLICABLE}
    total, done = sum(kinds.values()), kinds.pop(Status.DONE, 0)
    ends = {
        Status.FAILED: "failed",
        Status.DIVERGED: "diverged",
        Status.SKIPPED: "skipped",
        Status.PENDING: "not trained yet",
    }
    rest = [f"{kinds[status]:,} {word}" for status, word in ends.items() if status in kinds]
    others = f" ({enumerated(rest)})" if rest else ""
    were = "was" if done == 1 else "were"
    said = [f"{done:,} of {counted(total, 'cell')} {were} trained to the end{others}."]
    if Status.SKIPPED in kinds:
        said.append(
            "Cells were skipped by a bisection of the thresholds at each rewind epoch, which goes "
            "by the verdicts of the tickets trained so far, and takes what lies between two of "
            "the same verdict to be like them."
        )
    if Status.PENDING in kinds or f.untrained:
        said.append("The study is not complete yet; the words above are those of the whole study.")
    return " ".join(said)


def _points(share: float) -> str:
    number = f"{100 * share:g}"
    return f"{number} percentage point{'s' * (number != '1')}"


def _packages(found: dict[str, str]) -> str:
    names = [
        *(name for name in PACKAGES if name in found),
        *(n for n in found if n not in PACKAGES),
    ]
    return enumerated(PACKAGES.get(name, f"{name} {{}}").format(found[name]) for name in names)
