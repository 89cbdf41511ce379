"""Kinds of fault in real runs: uv run python -m benchmarks.fault_kinds.

Breaks a small study in many kinds of way, one at a time, gives the same command again, and compares
the results with those of an undisturbed run, bit for bit. Prints a Markdown table, as in
docs/faults.md: what ended the study. Ends with 1 if anything was lost, if a command hung, or if a
fault that damaged no file needed another command. Kinds that mount need root, and Linux.
"""

import argparse
import re
import shlex
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path

import xarray as xr

from benchmarks.fault_scene import Scene, half_done, undisturbed
from benchmarks.faults_in_midrun import MIDRUN
from benchmarks.faults_between import BETWEEN

BY_ITSELF, SAME, LOST = "by itself", "the same command", "LOST"


@dataclass(frozen=True)
class Outcome:
    """What became of a study: what ended it, and what was wrong with that."""

    ended: str
    problem: str = ""


def tried(act: Callable[[Scene], None], home: Path, half: Path | None, whole: xr.Dataset) -> Outcome:
    """Break a study in one way, and give its command again; `half` is a folder to begin with."""
    scene = Scene(home)
    try:
        if half:
            shutil.copytree(half, scene.folder, symlinks=True)
        act(scene)
        return finished(scene, whole)
    except (RuntimeError, TimeoutError, AssertionError) as error:
        return Outcome(LOST, f"not broken as meant: {error!r}")
    finally:
        if left := scene.close():
            print(f"    {left} processes did not end by themselves", flush=True)


def finished(scene: Scene, whole: xr.Dataset) -> Outcome:
    """Give the command again, as often as it takes, and judge the results."""
    before = scene.done_before if scene.done_before is not None else scene.done()
    started = {cell: len(scene.attempts(cell)) for cell in before}
    ended, code = BY_ITSELF, scene.wait() if scene.running else -1
    if scene.running and code is None:
        return Outcome(LOST, "hangs")
    said = [scene.said.read_text()] if scene.running else []
    if code != 0:
        scene.mend()
        ended, code = SAME, again(scene)
        said.append(scene.said.read_text())
    if code == 2 and (other := re.search(r"lthdask (check \S+ --repair)", said[-1])):
        words = shlex.split(other[1])
        scene.run(*words)
        ended, code = f"`lthdask check --repair`, then {SAME}", again(scene)
        said.append(scene.said.read_text())
    if code is None:
        return Outcome(LOST, "hangs: " + said[-1][-500:])
    if code != 0:
        return Outcome(LOST, f"ends with {code}: {said[-1][-1500:]}")
    if traceback := [text for text in said if "Traceback" in text]:
        return Outcome(LOST, f"a traceback: {traceback[0][-1500:]}")
    if not scene.same(whole):
        return Outcome(LOST, "other results")
    if twice := [cell for cell in started if len(scene.attempts(cell)) > started[cell]]:
        if not scene.damages:
            return Outcome(LOST, f"done cells were trained again: {twice}")
    return Outcome(ended)


def again(scene: Scene) -> int | None:
    """Give the same command."""
    scene.start()
    return scene.wait()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", default="", help="kinds whose name has this in it (a regex)")
    parser.add_argument("--at-once", type=int, default=2, help="how many scenes are run at once")
    parser.add_argument("--patience", type=int, default=240, help="seconds until a command hangs")
    arguments = parser.parse_args()
    Scene.patience = arguments.patience
    signal.signal(signal.SIGINT, signal.default_int_handler)  # else ignored behind a shell's &
    signal.signal(signal.SIGHUP, signal.SIG_DFL)  # and of nohup
    kinds = {name: (act, False) for name, act in MIDRUN.items()}
    kinds |= {name: (act, True) for name, act in BETWEEN.items()}
    kinds = {name: kind for name, kind in kinds.items() if re.search(arguments.only, name)}
    began, outcomes = time.monotonic(), dict[str, Outcome]()
    with (
        tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as place,
        ThreadPoolExecutor(arguments.at_once) as pool,
    ):
        home = Path(place)
        whole, half = undisturbed(home / "whole"), half_done(home / "half")
        running = {
            pool.submit(tried, act, home / str(number), half if between else None, whole): name
            for number, (name, (act, between)) in enumerate(kinds.items())
        }
        for done in as_completed(running):
            outcomes[running[done]] = done.result()
            print(f"{running[done]}: {done.result().ended} {done.result().problem}", flush=True)
    ended = Counter(outcome.ended for outcome in outcomes.values())
    minutes = (time.monotonic() - began) / 60
    print(f"\n{len(outcomes)} kinds in {minutes:.0f} min: {dict(ended)}\n")
    print("| fault | what ended the study |\n|---|---|")
    for name in kinds:
        print(f"| {name} | {outcomes[name].ended} |")
    sys.exit(LOST in ended)


if __name__ == "__main__":
    main()
