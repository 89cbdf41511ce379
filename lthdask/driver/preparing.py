"""Before anything is trained: a worker looks around; then manifest and cube are written."""

import logging
import platform
from collections.abc import Mapping
from dataclasses import replace
from hashlib import sha256
from importlib.metadata import version
from typing import Any

from lthdask.cluster.queue import Queue, Task
from lthdask.driver.opening import Opened, extent_of
from lthdask.grid import is_applicable
from lthdask.storage.creation import create_cube
from lthdask.storage.cube import Cube
from lthdask.storage.growth import grow
from lthdask.storage.manifest import FORMAT, Manifest
from lthdask.storage.schema import Status
from lthdask.worker.tasks import Surroundings, look_around
from lthdask.worker.work import Work

PACKAGES = ("lthdask", "torch", "torchvision", "numpy", "dask", "distributed", "zarr")

log = logging.getLogger(__name__)


def surroundings(queue: Queue, work: Work) -> Surroundings:
    """Have a worker look around.

    Raises
    ------
    InputError
        If the device, the study's folder or the data cannot be used from there.
    """
    found = list[Any]()
    with work.folder.probe() as probe:
        queue.add(Task("look-around", look_around, (work, probe), then=found.append))
        queue.run()
    if isinstance(found[0], Exception):
        raise found[0]
    around: Surroundings = found[0]
    return around


def write_down(opened: Opened, around: Surroundings) -> tuple[Manifest, Cube]:
    """Write down what the study is and how it is computed, and make its cube or grow it."""
    study, folder = opened.study, opened.folder
    manifest = _manifest(opened, around)
    folder.write_study(study.to_yaml())
    folder.write_manifest(manifest)
    extent, about = extent_of(study, manifest, around.layers), manifest.about(study.to_dict())
    if folder.cube.exists():
        grow(folder.cube, extent, about)
    else:
        create_cube(folder.cube, extent, about)
    cube = Cube(folder.cube)
    for cell, status in cube.cells().items():
        if status is Status.PENDING and not is_applicable(cell, opened.axes):
            cube.mark(cell, Status.NOT_APPLICABLE)
    return manifest, cube


def _manifest(opened: Opened, around: Surroundings) -> Manifest:
    """Return the manifest of this run, which continues the one before."""
    versions = _versions()
    before = opened.manifest or Manifest(
        versions, platform.node(), around.choice.engine, around.choice.reason, "", {}, 0
    )
    if (earlier := dict(before.versions)) != versions:
        changes = (
            f"{n} {earlier.get(n)} → {v}" for n, v in versions.items() if earlier.get(n) != v
        )
        log.warning(
            "part of the study was computed with other versions, so bits may differ: %s",
            ", ".join(changes),
        )
        before = replace(before, earlier_versions=(*before.earlier_versions, earlier))
    return replace(
        before,
        versions=versions,
        engine=around.choice.engine,
        engine_reason=before.engine_reason or around.choice.reason,
        study_digest=sha256(opened.study.to_yaml().encode()).hexdigest(),
        axes=opened.axes,
        steps=around.steps,
        majority=around.majority,
        shape=around.shape,
        classes=around.classes,
        format=FORMAT,
    )


def _versions() -> Mapping[str, str]:
    return {package: version(package) for package in PACKAGES} | {
        "python": platform.python_version()
    }
