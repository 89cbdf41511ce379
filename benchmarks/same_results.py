"""Whether two versions of lthdask give the same results, bit for bit, on a pinned engine.

    python benchmarks/same_results.py --write before.json      # in one checkout
    python benchmarks/same_results.py --compare before.json    # in the other, on this machine

Three studies of real digits are trained: the default one; LeNet with every arm, stability,
learning speed and two replicates; and LeNet pruned in rounds. Only what existed before is
compared, so a version may add variables.
"""

import argparse
import hashlib
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import lthdask
from lthdask.storage.arrays import Arrays
from lthdask.storage.meanings import RECORD
from lthdask.storage.schema import ARRAYS

PINNED = {
    "engine.device": "cpu",
    "engine.precision": "float32",
    "engine.threads": "1",
    "engine.dense_threads": "1",
    "engine.cohort": "1",
    "engine.matmul": "default",
    "engine.evaluation": "plain",
}
LENET = {"network.name": "lenet_300_100", "data.image_size": "16", "grid.thresholds": "0.5,0.9"}
ARMS = "ticket,random_mask,reinit,lr_rewind,fine_tune,ticket_child,dense_child"
STUDIES = {
    "digits": {},
    "every arm": LENET | {"grid.arms": ARMS, "grid.replicates": "2", "recipe.measure_every": "7"},
    "rounds": {
        "network.name": "lenet_300_100",
        "data.image_size": "16",
        "pruning.schedule": "iterative",
        "pruning.rounds": "3",
        "grid.arms": "ticket,random_mask,reinit",
    },
}


def digests() -> dict[str, str]:
    """Return the SHA-256 of every result, by study and variable."""
    found = {}
    there = lthdask.open_client(2, deployment="local")
    with tempfile.TemporaryDirectory() as folder, there as client:
        for name, changes in STUDIES.items():
            study = lthdask.Study.read("digits").changed(PINNED | changes)
            lthdask.run(study, client, Path(folder) / name)
            for variable, (dimensions, values) in results(Path(folder) / name).items():
                content = f"{dimensions} {values.shape}".encode() + values.tobytes()
                found[f"{name}: {variable}"] = hashlib.sha256(content).hexdigest()
    return found


def results(folder: Path) -> dict[str, tuple[tuple[str, ...], NDArray[Any]]]:
    """Return every result as it lies on disk, so that what it is called by readers may change.

    Arms are in the order of their names, which no version changes.
    """
    arrays, found = Arrays(folder), {}
    order = np.argsort(arrays.axes["arm"])
    for name, array in ARRAYS.items():
        dimensions = array.dimensions
        if array.names:
            named = {array.variable.format(n): arrays.named(name, n) for n in array.names}
            found |= {n: (dimensions[:-1], values) for n, values in named.items()}
        else:
            found[name] = dimensions, arrays[name]
    for name in ("dense_test_accuracy", "dense_validation_accuracy"):
        found[name] = ("replicate",), found[f"{name}_curve"][1][:, -1]
    return {
        name: (dims, (values[order] if "arm" in dims else values).astype("f8", "C"))
        for name, (dims, values) in found.items()
        if name not in RECORD and values.dtype.kind in "biuf"  # the texts are a place and digests
    }


def main() -> int:
    """Write or compare; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--write", type=Path, metavar="FILE")
    parser.add_argument("--compare", type=Path, metavar="FILE")
    given = parser.parse_args()
    found = digests()
    if given.write:
        given.write.write_text(json.dumps(found, indent=2))
    if given.compare:
        before = json.loads(given.compare.read_text())
        differing = [name for name, digest in before.items() if found.get(name) != digest]
        print(f"{len(before) - len(differing)} of {len(before)} results are equal, bit for bit")
        for name in differing:
            print(f"differs: {name}")
        return bool(differing)
    return 0


if __name__ == "__main__":
    sys.exit(main())
