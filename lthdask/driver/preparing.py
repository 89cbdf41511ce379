"""Before anything is trained: a worker looks around; then manifest and cube are written."""

import logging
import platform
from dataclasses import replace
from hashlib import sha256
from typing import Any

from lthdask import needs
from lthdask.cluster.deaths import allowing
from lthdask.cluster.queue import Queue, Task
from lthdask.data.digest import other_data
from lthdask.driver.opening import Opened, extent_of
from lthdask.errors import ExhaustedError, InputError
from lthdask.grid import is_applicable
from lthdask.rewinding import rounded
from lthdask.storage.creation import create_cube
from lthdask.storage.cube import Cube
from lthdask.storage.folder import Folder
from lthdask.storage.growth import grow
from lthdask.storage.manifest import Manifest, versions_here
from lthdask.storage.schema import Status
from lthdask.worker.tasks import Surroundings, look_around
from lthdask.worker.work import Work

MOST_LOOKS = 1_000_000
"""Measurements inside the epochs of one run."""
KNOWN = InputError, ExhaustedError
"""What a worker raises that another would raise, too."""

log = logging.getLogger(__name__)


def surroundings(queue: Queue, work: Work) -> Surroundings:
    """Have a worker look around.

    Raises
    ------
    InputError
        If the device, the study's folder or the data cannot be used from there, the data are not
        those that the study was begun with, or worker after worker dies.
    """
    found = list[Any]()
    with work.folder.probe() as probe, allowing(work.options.max_attempts, queue.client):
        for _ in range(work.options.max_attempts):  # the first worker may be sick
            queue.add(Task("look-around", look_around, (work, probe), then=found.append))
            queue.run()
            if not isinstance(found[-1], Exception) or isinstance(found[-1], KNOWN):
                break
    if isinstance(found[-1], ExhaustedError):
        raise InputError(
            "worker after worker died as it looked around, for example because memory is short; "
            "choose fewer `workers`, or give them more memory"
        )
    if isinstance(found[-1], Exception):
        raise found[-1]
    around: Surroundings = found[-1]
    return around


def write_down(opened: Opened, around: Surroundings) -> tuple[Manifest, Cube]:
    """Write down what the study is and how it is computed, and make its cube or grow it.

    Raises
    ------
    OtherData
        If the study was computed on other data.
    InputError
        If rewind epochs do not lie on steps of their own, or there would be more measurements than
        `MOST_LOOKS`. Nothing is written in any of these cases.
    """
    study, folder = opened.study, opened.folder
    needs.require_steps(study, around.steps)
    manifest = _manifest(opened, around)
    extent, about = extent_of(study, manifest, around.layers), manifest.about(study.to_dict())
    if (looks := len(extent.iterations)) > MOST_LOOKS:
        raise InputError(
            f"recipe.measure_every {study.recipe.measure_every} makes {looks:,} measurements of "
            f"each run, and {MOST_LOOKS:,} are the most; set a larger one"
        )
    for line in rounded(study.grid.ks, around.steps):
        log.warning("%s", line)
    folder.write_study(study.to_yaml())
    if opened.manifest is None:
        folder.runs.remove_states(folder.runs.unfinished())  # nobody knows how they were computed
    folder.write_manifest(manifest)
    if folder.cube.exists():
        grow(folder.cube, extent, about)
    else:
        create_cube(folder.cube, extent, about)
    cube = Cube(folder.cube)
    for cell, status in cube.cells().items():
        applicable = is_applicable(cell, opened.axes, study.grid.narrowed)
        if status is Status.PENDING and not applicable:
            cube.mark(cell, Status.NOT_APPLICABLE)
        elif status is Status.NOT_APPLICABLE and applicable:
            cube.erase(cell)  # an arm has got more rewind epochs
    return manifest, cube


def _manifest(opened: Opened, around: Surroundings) -> Manifest:
    """Return the manifest of this run, which continues the one before."""
    before, versions = opened.manifest, versions_here(opened.study.network.name)
    manifest = Manifest(
        versions=versions,
        host=platform.node(),
        engine=around.choice.engine,
        engine_reason=around.choice.reason,
        study_digest=sha256(opened.study.to_yaml().encode()).hexdigest(),
        axes=opened.axes,
        steps=around.steps,
        majority=around.majority,
        data=around.data,
    )
    if before is None:
        return manifest.identified()
    _require_same_data(before, manifest, opened.folder)
    earlier, then = before.earlier_versions, dict(before.versions)
    if changed := [name for name in then.keys() & versions if then[name] != versions[name]]:
        log.warning(
            "part of the study was computed with other versions, so bits may differ: %s",
            ", ".join(f"{name} {then[name]} → {versions[name]}" for name in sorted(changed)),
        )
        earlier = (*earlier, then)
    return replace(
        manifest,
        host=before.host or manifest.host,
        engine_reason=before.engine_reason or manifest.engine_reason,
        checkpoints=before.checkpoints,
        earlier_versions=earlier,
        first_format=before.first_format,
        identity=before.identity,
    ).identified()


def _require_same_data(before: Manifest, now: Manifest, folder: Folder) -> None:
    """Refuse other data by what formats 1 and 2 recorded, and say what is recorded from now on.

    What later formats record, the worker has compared already.
    """
    odd = []
    if before.steps not in (0, now.steps):
        odd.append(f"{now.steps:,} batches in an epoch, not {before.steps:,}")
    if before.majority not in (None, now.majority):
        odd.append(
            f"{now.majority:.4f} of the validation images belong to the most frequent class, not "
            f"{before.majority:.4f}"
        )
    if odd:
        raise other_data("a worker", folder.path, odd)
    if not (before.data and before.data.splits):
        log.warning(
            "the data of %s are recorded from now on; an earlier version of lthdask began it, and "
            "did not compare them between runs",
            folder.path,
        )
