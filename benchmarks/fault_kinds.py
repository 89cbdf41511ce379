"""Kinds of fault in real runs: uv run python benchmarks/fault_kinds.py.

Breaks a small study in many kinds of way, one at a time, gives the same command again, and compares
the results with those of an undisturbed run, bit for bit. Prints a Markdown table, as in
docs/faults.md: what ended the study. Ends with 1 if anything was lost, if a command hung, or if a
fault that damaged no file needed another command. Kinds that mount need root, and Linux.
"""

import argparse
import re
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path

import xarray as xr

from benchmarks.kinds import between, folder, processes
from benchmarks.kinds.scene import KINDS, Kind, Scene, half_done, undisturbed
from lthdask.checks.folder import check

BY_ITSELF, SAME, LOST = "the command itself", "the same command again", "LOST"
assert all((between, folder, processes)), "imported for the kinds that they note"

TESTED = {
    "a worker gets SIGKILL": "workers_that_are_killed_all_the_time_cost_nothing_that_is_done",
    "a worker gets SIGTERM": "a_worker_that_is_told_to_go_loses_no_step",
    "the driver gets SIGKILL": "a_driver_that_is_killed_again_and_again_finishes",
    "the driver is killed as it starts": "a_driver_that_is_killed_again_and_again_finishes",
    "the driver gets SIGTERM": "stopping_is_quick_and_the_same_command_goes_on",
    "all processes get SIGINT": "stopping_is_quick_and_the_same_command_goes_on",
    "all processes get SIGTERM": "a_signal_to_the_whole_group_ends_in_order",
    "a zombie trains on beside its replacement": "a_zombie_beside_its_replacement_writes",
    "two drivers at once": "of_two_drivers_at_once_one_is_refused",
    "the disk is full; room is made": "a_full_disk_is_one_sentence",
    "a worker can open no more files": "a_process_that_can_open_no_more_files_is_started_anew",
    "a death between a cell's results and its status": "a_death_between_the_metrics_and_the",
    "a death as a checkpoint of the dense run is saved": "any_schedule_of_kills_leaves_a_folder",
    "a death as a state is saved": "any_schedule_of_kills_leaves_a_folder",
    "a death as an attempt is noted": "any_schedule_of_kills_leaves_a_folder",
    "a death as the study grows": "a_growth_that_is_killed_in_the_middle_is_finished",
    "an exception in one cell, once": "an_exception_in_one_cell_is_tried_again",
    "every cell fails on one of two workers": "a_sick_worker_is_left_out_and_costs_no_cell",
    "one of two workers dies in every cell": "a_sick_worker_is_left_out_and_costs_no_cell",
    "results.zarr is deleted": "a_cube_that_is_gone_is_made_again",
    "results.zarr/zarr.json is deleted": "where_a_part_of_the_results_was_deleted",
    "results.zarr/zarr.json is cut short": "much_damage_at_once_is_repaired",
    "results.zarr/metrics/zarr.json is deleted": "where_a_part_of_the_results_was_deleted",
    "results.zarr/metrics/zarr.json is cut short": "much_damage_at_once_is_repaired",
    "results.zarr/threshold/c/0 is deleted": "axes_that_are_missing_are_mended_by_the_manifest",
    "results.zarr/threshold/c/0 is changed in one bit": "repaired_and_run_again_results_are_as",
    "results.zarr/status/c/0/0/*/0 is emptied": "much_damage_at_once_is_repaired",
    "results.zarr/metrics/c/0/0/*/0/0 is changed in one bit": "repaired_and_run_again_results",
}
"""Kind → how the name of the test begins, after test_, that tries the same."""


@dataclass(frozen=True)
class Outcome:
    """What became of a study: what ended it, and what was wrong with that."""

    ended: str
    problem: str = ""


def tried(kind: Kind, home: Path, half: Path, whole: xr.Dataset) -> Outcome:
    """Break a study in one way, and give its command again; `half` is one that was stopped."""
    scene = Scene(home)
    try:
        if kind.between:
            shutil.copytree(half, scene.folder, symlinks=True)
        kind.act(scene)
        return finished(scene, whole)
    except Exception as error:  # the others go on
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
    if scene.damages and (code == 2 or not scene.same(whole)):
        scene.run("check", str(scene.folder), "--repair")
        ended, code = f"`lthdask check --repair`, then {SAME}", again(scene)
        said.append(scene.said.read_text())
    if code is None:
        return Outcome(LOST, "hangs: " + said[-1][-500:])
    if code != 0:
        return Outcome(LOST, f"ends with {code}: {said[-1][-1500:]}")
    if not scene.same(whole):
        return Outcome(LOST, "other results")
    if not scene.damages and (damage := check(scene.folder)):
        return Outcome(LOST, f"left damaged: {damage}")
    twice = [cell for cell in started if len(scene.attempts(cell)) > started[cell]]
    if twice and not scene.damages:
        return Outcome(LOST, f"done cells were trained again: {twice}")
    traceback = any("Traceback" in text for text in said)
    return Outcome(ended, "(a traceback was shown)" if traceback else "")


def again(scene: Scene) -> int | None:
    """Give the same command."""
    scene.start()
    return scene.wait()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", default="", help="kinds whose name has this in it (a regex)")
    parser.add_argument("--at-once", type=int, default=2, help="how many scenes are run at once")
    parser.add_argument("--patience", type=int, default=240, help="seconds until a command hangs")
    parser.add_argument("--untested", action="store_true", help="leave out those that a test tries")
    arguments = parser.parse_args()
    Scene.patience = arguments.patience
    signal.signal(signal.SIGINT, signal.default_int_handler)  # else ignored behind a shell's &
    signal.signal(signal.SIGHUP, signal.SIG_DFL)  # and of nohup
    kinds = {name: kind for name, kind in KINDS.items() if re.search(arguments.only, name)}
    if arguments.untested:
        kinds = {name: kind for name, kind in kinds.items() if name not in TESTED}
    began, outcomes = time.monotonic(), dict[str, Outcome]()
    with (
        tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as place,
        ThreadPoolExecutor(arguments.at_once) as pool,
    ):
        home = Path(place)
        whole, half = undisturbed(home / "whole"), half_done(home / "half")
        running = {
            pool.submit(tried, kind, home / str(number), half, whole): name
            for number, (name, kind) in enumerate(kinds.items())
        }
        for done in as_completed(running):
            outcomes[running[done]] = done.result()
            print(f"{running[done]}: {done.result().ended} {done.result().problem}", flush=True)
    ended = Counter(outcome.ended for outcome in outcomes.values())
    by_it = ended[BY_ITSELF] + ended[SAME]
    print(f"\n{(time.monotonic() - began) / 60:.0f} min, {arguments.at_once} at once\n")
    print("| kinds tried | ended by the command | needed another | lost |\n|---|---|---|---|")
    another = len(outcomes) - by_it - ended[LOST]
    print(f"| {len(outcomes)} | {by_it} | {another} | {ended[LOST]} |\n")
    print("| fault | what ended the study |\n|---|---|")
    for name in kinds:
        print(f"| {name} | {outcomes[name].ended} |")
    sys.exit(LOST in ended)


if __name__ == "__main__":
    main()
