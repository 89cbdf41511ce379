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

import numpy as np

import lthdask

PINNED = {
    "engine.device": "cpu",
    "engine.precision": "float32",
    "engine.threads": "1",
    "engine.dense_threads": "1",
    "engine.cohort": "1",
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
RECORD = {"seconds", "attempts", "started", "ended", "place"}
"""How a cell was computed, not what came out."""


def digests() -> dict[str, str]:
    """Return the SHA-256 of every result, by study and variable."""
    found = {}
    there = lthdask.open_client(2, deployment="local")
    with tempfile.TemporaryDirectory() as folder, there as client:
        for name, changes in STUDIES.items():
            study = lthdask.Study.read("digits").changed(PINNED | changes)
            results = lthdask.run(study, client, Path(folder) / name).load()
            for variable, values in results.data_vars.items():
                if variable not in RECORD:
                    array = np.ascontiguousarray(values.values.astype("f8"))
                    content = f"{values.dims} {array.shape}".encode() + array.tobytes()
                    found[f"{name}: {variable}"] = hashlib.sha256(content).hexdigest()
    return found


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
