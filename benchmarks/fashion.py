"""Ten minutes of Fashion-MNIST on a GPU: uv run python benchmarks/fashion.py STUDY --data DIR.

STUDY is fashion-mobilenetv2, a map, or fashion-resnet20, with controls; any other does as well.
DIR holds the data set's four files, as they are published or unpacked (Debian's package
dataset-fashion-mnist has them). After `--seconds` the run is ended as by Ctrl-C. What is done by
then is printed, and copied to `--keep`, a folder or a file NAME.tar.gz. Further options are those
of `lthdask run`: `--replicates 2` where there is time for it, or, to try all of this on a CPU,

    fashion-resnet20 --subset 1500 --set data.validation=500 --epochs 2 --replicates 1
        --set recipe.schedule.milestones=1 --set data.image_size=8 --rewind-epochs 0
        --thresholds 0.8 --arms ticket,reinit
"""

import argparse
import shutil
import signal
import subprocess
import sys
import tarfile
import tempfile
import time
from pathlib import Path

KEPT = ("results.zarr", "study.yaml", "manifest.json", "log.txt")
"""Of a study's folder: what a map is made from, and what says how."""
LTHDASK = (sys.executable, "-m", "lthdask")


def keep(folder: Path, target: Path) -> None:
    """Copy the results into a folder, or into one file if its name ends in .tar.gz."""
    there = [folder / name for name in KEPT if (folder / name).exists()]
    if target.name.endswith(".tar.gz"):
        target.parent.mkdir(parents=True, exist_ok=True)
        with tarfile.open(target, "w:gz") as archive:
            for path in there:
                archive.add(path, path.name)
    else:
        target.mkdir(parents=True, exist_ok=True)
        for path in there:
            (shutil.copytree if path.is_dir() else shutil.copy2)(path, target / path.name)
    print(f"kept in {target}: {', '.join(path.name for path in there)}")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("study")
    parser.add_argument("--data", type=Path, required=True, metavar="DIR")
    parser.add_argument("--keep", type=Path, metavar="DIR", help="or a file, NAME.tar.gz")
    parser.add_argument("--seconds", type=int, default=570, help="after which it is ended")
    given, options = parser.parse_known_args()
    began = time.perf_counter()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "run"
        command = [*LTHDASK, "run", "--study", given.study, "--data", given.data]
        run = subprocess.Popen([*command, "--deploy", "local", "--out", folder, *options])
        try:
            code = run.wait(given.seconds)
        except subprocess.TimeoutExpired:
            run.send_signal(signal.SIGINT)  # it saves what it has, and leaves
            code = run.wait()
        took = time.perf_counter() - began
        if (folder / "results.zarr").exists():
            if code:  # else the run has printed them
                subprocess.run([*LTHDASK, "results", folder], check=False)
            if given.keep:
                keep(folder, given.keep)
    print(f"{'whole' if code == 0 else f'ended with code {code}'} after {took:.0f} s")
    return code


if __name__ == "__main__":
    sys.exit(main())
