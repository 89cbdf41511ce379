"""What faults cost, and that nothing is lost: uv run python benchmarks/faults.py.

One study of 108 small cells is run by the command, on this machine, while faults are
injected at random: workers and drivers killed and told to go, states damaged. Prints, per
fault, what was lost: a Markdown table, as in docs/faults.md. Ends with 1 if a done cell was
lost, or begun again, or the results differ from those of an undisturbed run.
"""

import argparse
import os
import random
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import psutil

from lthdask.grid import Cell
from lthdask.storage.cube import Cube
from lthdask.storage.folder import Folder
from lthdask.storage.results import open_results
from lthdask.storage.schema import GROUPS, Status
from lthdask.study import Study

SCRIPT = Path(__file__).parent.parent / "scripts" / "run.py"
INTERVAL = 0.5
STUDY = Study.read("digits").changed(
    {
        "name": "soak",
        "network.name": "lenet_300_100",
        "data.image_size": "8",
        "data.validation": "900",
        "recipe.epochs": "100",
        "grid.thresholds": ",".join(str(i / 20) for i in range(6, 18)),
        "grid.rewind_epochs": "0,1,2,3,4,5,6,7,8",
        "keep_until": "8",
    }
)


@dataclass
class Fault:
    """One kind of fault, and what it has cost so far."""

    name: str
    victim: Literal["worker", "driver"]
    how: signal.Signals
    damage: bool = False
    times: int = 0
    lost: int = 0
    repeated: int = 0
    seconds: list[float] = field(default_factory=list)


class Soak:
    """A study that is disturbed until it is done."""

    def __init__(self, home: Path, seed: int) -> None:
        self.home, self.folder, self.dice = home, Folder(home / "run"), random.Random(seed)
        (home / "study.yaml").write_text(STUDY.to_yaml())
        (home / "cluster.yaml").write_text(f"lthdask: {{checkpoint-interval: {INTERVAL}s}}\n")
        self.driver: subprocess.Popen[bytes] | None = None
        self.hit: list[tuple[Fault, str, dict[str, Any], float]] = []
        self.done: set[Cell] = set()

    def start(self, out: str = "run") -> subprocess.Popen[bytes]:
        """Start the command, as a user does."""
        command = [sys.executable, str(SCRIPT), "--deploy", "local", "--max-attempts", "50"]
        command += ["--study", str(self.home / "study.yaml"), "--out", str(self.home / out)]
        command += ["--cluster", str(self.home / "cluster.yaml")]
        quiet = subprocess.DEVNULL
        return subprocess.Popen(command, stdout=quiet, stderr=quiet, start_new_session=True)

    def training(self) -> list[tuple[str, dict[str, Any]]]:
        """Return the attempts that are being trained by the driver's children."""
        if self.driver is None or self.driver.poll() is not None:
            return []
        children = {child.pid for child in psutil.Process(self.driver.pid).children(recursive=True)}
        finished = {str(cell) for cell in self.now_done()}
        names = [place.name for place in (self.folder.path / "cells").glob("*")]
        attempts = [
            (name, found[-1]) for name in names if (found := self.folder.runs.attempts(name))
        ]
        return [(n, a) for n, a in attempts if a.get("pid") in children and n not in finished]

    def now_done(self) -> set[Cell]:
        """Return the cells that are done."""
        if not self.folder.cube.exists():
            return set()
        cells = Cube(self.folder.cube).cells()
        return {cell for cell, status in cells.items() if status is Status.DONE}

    def inject(self, fault: Fault) -> None:
        """Break something that is being trained, and note what it hits."""
        while not (busy := self.training()):
            if self.driver is None or self.driver.poll() is not None:
                if len(self.now_done()) == len(STUDY.grid.cells()):
                    return
                self.driver = self.start()
            time.sleep(0.02)
        time.sleep(self.dice.uniform(0.2, 1.2))
        busy = self.training()
        if not busy:
            return
        self.done = self.now_done()
        victim = self.dice.choice(busy)
        hit, now = [victim], time.time()
        assert self.driver
        if fault.victim == "driver":
            hit = busy
            self.driver.send_signal(fault.how)
            self.driver.wait()
        else:
            os.kill(victim[1]["pid"], fault.how)
        if fault.damage:
            states = list(self.folder.runs.of(victim[0]).glob("state-*.safetensors"))
            newest = max(states, key=lambda file: file.stat().st_mtime_ns, default=None)
            if newest is not None:
                content = bytearray(newest.read_bytes())
                content[self.dice.randrange(len(content))] ^= 1 << self.dice.randrange(8)
                newest.write_bytes(content)
        fault.times += 1
        fault.lost += len(self.done - self.now_done())
        self.hit += [(fault, name, attempt, now) for name, attempt in hit]

    def finish(self) -> None:
        """Let the study end undisturbed, and count what each fault has cost."""
        while self.driver is None or self.driver.wait() != 0:
            self.driver = self.start()
        ended = open_results(self.folder.path, "records").ended
        ended = (ended - np.datetime64(0, "s")) / np.timedelta64(1, "s")
        for fault, name, attempt, at in self.hit:
            attempts = self.folder.runs.attempts(name)
            later = attempts[attempts.index(attempt) + 1 :]
            if not later:  # it was done in that very moment
                fault.seconds.append(0.0)
                continue
            worked = attempt["seconds"] + at - attempt["started"]
            fault.seconds.append(max(0.0, worked - later[0]["seconds"]))
        for cell in STUDY.grid.cells():
            end = float(ended.sel(vars(cell)))
            again = [a for a in self.folder.runs.attempts(cell) if a["started"] > end]
            if again:
                before = [hit[0] for hit in self.hit if hit[3] < again[0]["started"]]
                before[-1].repeated += 1


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--faults", type=int, default=200, help="how many, at least")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    faults = [
        Fault("worker killed (SIGKILL)", "worker", signal.SIGKILL),
        Fault("worker told to go (SIGTERM)", "worker", signal.SIGTERM),
        Fault("driver killed (SIGKILL)", "driver", signal.SIGKILL),
        Fault("driver stopped (SIGINT)", "driver", signal.SIGINT),
        Fault("worker killed, its newest state damaged", "worker", signal.SIGKILL, damage=True),
    ]
    began = time.monotonic()
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as home:
        soak = Soak(Path(home), arguments.seed)
        cells = len(STUDY.grid.cells())
        while sum(f.times for f in faults) < arguments.faults and len(soak.now_done()) < cells:
            soak.inject(soak.dice.choices(faults, weights=[4, 4, 1, 1, 2])[0])
        before = len(soak.now_done())
        soak.finish()
        assert soak.start("whole").wait() == 0
        results = [group for group in GROUPS if group != "records"]
        mine, whole = (open_results(Path(home) / name, *results) for name in ("run", "whole"))
        same = mine.equals(whole)
    injected = sum(fault.times for fault in faults)
    print(
        f"{injected} faults on {cells} cells ({before} done by the last fault) in "
        f"{(time.monotonic() - began) / 60:.0f} min, a state every {INTERVAL} s; "
        f"results equal to an undisturbed run's: {same}\n"
    )
    print("| fault | times | cells lost | done cells repeated | seconds lost, median | worst |")
    print("|---|---|---|---|---|---|")
    for f in faults:
        median, worst = (statistics.median(f.seconds), max(f.seconds)) if f.seconds else (0, 0)
        print(f"| {f.name} | {f.times} | {f.lost} | {f.repeated} | {median:.2f} | {worst:.2f} |")
    sys.exit(not same or any(f.lost or f.repeated for f in faults))


if __name__ == "__main__":
    main()
