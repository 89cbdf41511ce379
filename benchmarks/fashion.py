"""A first map of MobileNetV2 on Fashion-MNIST: uv run python benchmarks/fashion.py --data DIR.

DIR holds the data set's four files, as they are published or unpacked:
train-images-idx3-ubyte.gz and so on. (Debian's package dataset-fashion-mnist has them.) They
are unpacked into a temporary folder. The study is small enough for six minutes of one GPU: 8
thresholds, k = 0, 1, 2, 4 of T = 8 epochs, tickets and random masks, 2 replicates. Both arms
of one k and one replicate are a cohort of 16.

After `--seconds` it ends as Ctrl-C would end it, and prints and keeps what is done by then. The
last two lines have the wall time and what it trained on. `--images 1024 --epochs 2
--rewind-epochs 0 1 --thresholds 0.5 0.9 --replicates 1 --network lenet_300_100` tries all of it
on a CPU in well under a minute.
"""

import argparse
import gzip
import json
import shutil
import signal
import sys
import tarfile
import tempfile
import time
from pathlib import Path
from typing import Any

from lthdask.events import Event

FILES = {
    f"{part}-{kind}": items
    for part, items in (("train", 60_000), ("t10k", 10_000))
    for kind in ("images-idx3-ubyte", "labels-idx1-ubyte")
}
"""Name → how many items it has."""
KEPT = ("results.zarr", "study.yaml", "manifest.json")
"""Of a study's folder: what a map is made from, and what says how."""


def unpack(source: Path, folder: Path, images: int | None) -> None:
    """Write the data set as torchvision reads it; of the first `images` to train on, if given.

    Then as large a share of the test images is written.
    """
    raw = folder / "FashionMNIST" / "raw"
    raw.mkdir(parents=True)
    for name, items in FILES.items():
        content = read(source, name)
        dimensions = content[3]
        head = 4 + 4 * dimensions
        sizes = [int.from_bytes(content[at : at + 4], "big") for at in range(4, head, 4)]
        each = (len(content) - head) // sizes[0]
        if content[:3] != b"\0\0\x08" or len(content) != head + sizes[0] * each:
            raise SystemExit(f"{name} in {source} is not a file of bytes in the idx format")
        if images:
            sizes[0] = min(sizes[0], images * items // 60_000)
        sized = b"".join(size.to_bytes(4, "big") for size in sizes)
        (raw / name).write_bytes(content[:4] + sized + content[head : head + sizes[0] * each])


def read(source: Path, name: str) -> bytes:
    """Return a file of the data set, unpacked."""
    if (packed := source / f"{name}.gz").is_file():
        return gzip.decompress(packed.read_bytes())
    if (plain := source / name).is_file():
        return plain.read_bytes()
    raise SystemExit(f"neither {name}.gz nor {name} is in {source}")


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
            copy: Any = shutil.copytree if path.is_dir() else shutil.copy2
            copy(path, target / path.name)
    print(f"kept in {target}: {', '.join(path.name for path in there)}")


def show(folder: Path) -> None:
    """Print the maps of what is done."""
    from rich.console import Console

    from lthdask import open_results
    from lthdask.report.accuracy_map import print_table
    from lthdask.report.summary import counts, sentences
    from lthdask.report.tables import tables

    results = open_results(folder, "layers")
    console = Console(highlight=False)
    for table in tables(results):
        print_table(console, table)
    for sentence in sentences(results):
        print(sentence)
    print(", ".join(f"{number} {status}" for status, number in counts(results).items()))


def device(engine: dict[str, Any]) -> str:
    """Return what was trained on, and how."""
    import torch

    name = torch.cuda.get_device_name() if engine["device"] == "cuda" else "cpu"
    how = ", ".join(f"{key} {engine[key]}" for key in ("precision", "cohort", "graphs", "kernels"))
    return f"{name}: torch {torch.__version__}, {how}"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--data", type=Path, required=True, metavar="DIR")
    parser.add_argument("--keep", type=Path, metavar="DIR", help="or a file, NAME.tar.gz")
    parser.add_argument("--images", type=int, metavar="N", help="to train on and to validate")
    parser.add_argument("--network", default="mobilenet_v2")
    parser.add_argument("--form", choices=["imagenet", "small"], default="imagenet")
    parser.add_argument("--epochs", type=int, default=8, help="T")
    parser.add_argument("--rewind-epochs", type=int, nargs="+", default=[0, 1, 2, 4])
    most = [0.5, 0.7, 0.8, 0.9, 0.95, 0.97, 0.98, 0.99]
    parser.add_argument("--thresholds", type=float, nargs="+", default=most)
    parser.add_argument("--replicates", type=int, default=2)
    parser.add_argument("--workers", type=int, default=1, help="one for each GPU")
    parser.add_argument("--device", choices=["auto", "cpu", "cuda"], default="auto")
    parser.add_argument("--seconds", type=int, default=310, help="after which it ends")
    given = parser.parse_args()

    from lthdask import Study, open_client, run

    if given.images is not None and not 600 <= given.images <= 60_000:
        parser.error("--images must be 600 to 60000")
    images = given.images or 60_000
    study = Study.parse(
        f"""
        name: fashion
        data:
          name: fashion_mnist
          image_size: 32
          validation: {images // 12}
          augmentation: [crop, flip]
        network: {{name: {given.network}, form: {given.form}}}
        recipe:
          epochs: {given.epochs}
          batch_size: 128
          optimizer: {{name: sgd, rate: 0.05, momentum: 0.9, weight_decay: 5.0e-4}}
          schedule: {{name: linear, warmup_epochs: 1}}
        pruning: {{score: lamp}}
        grid:
          thresholds: {given.thresholds}
          rewind_epochs: {given.rewind_epochs}
          arms: [ticket, random_mask]
          replicates: {given.replicates}
        engine: {{device: {given.device}}}
        matching_margin: 0.005
        """,
        "the benchmark",
    )
    began = time.perf_counter()

    def watch(event: Event) -> None:
        if event.kind in ("plan", "dense", "cell", "warning"):
            spent = time.perf_counter() - began
            print(f"{spent:6.1f} s {event.kind} {event.name} {event.status}", flush=True)

    # As Ctrl-C: lthdask.run saves what it has, and leaves.
    signal.signal(signal.SIGALRM, signal.default_int_handler)
    with tempfile.TemporaryDirectory() as temporary:
        folder, data = Path(temporary) / "run", Path(temporary) / "data"
        unpack(given.data, data, given.images)
        whole_grid = False
        signal.alarm(given.seconds)
        try:
            with open_client(given.workers, deployment="local") as client:
                run(study, client, folder, data, watch=watch)
                whole_grid = True
        except KeyboardInterrupt:
            print(f"stopped after {given.seconds} s")
        finally:
            signal.alarm(0)
            took = time.perf_counter() - began
            # Also if something raised: what is done may tell why, and would be gone.
            if (folder / "results.zarr").exists():
                show(folder)
                if given.keep:
                    keep(folder, given.keep)
        print(f"{'whole' if whole_grid else 'stopped'} after {took:.0f} s with the workers")
        if (manifest := folder / "manifest.json").exists():
            print(device(json.loads(manifest.read_text())["engine"]))
    return 0 if whole_grid else 1


if __name__ == "__main__":
    sys.exit(main())
