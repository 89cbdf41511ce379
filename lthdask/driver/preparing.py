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
from lthdask.errors import ExhaustedError, InputError
from lthdask.grid import is_applicable
from lthdask.storage.creation import create_cube
from lthdask.storage.cube import Cube
from lthdask.storage.growth import grow
from lthdask.storage.manifest import Manifest
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
        If the device, the study's folder or the data cannot be used from there, or worker after
        worker dies.
    """
    found = list[Any]()
    with work.folder.probe() as probe, queue.allowing(work.options.max_attempts):
        queue.add(Task("look-around", look_around, (work, probe), then=found.append))
        queue.run()
    if isinstance(found[0], ExhaustedError):
        raise InputError(
            "worker after worker died as it looked around, for example because memory is short; "
            "choose fewer `workers`, or give them more memory"
        )
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
    before, versions = opened.manifest, _versions()
    manifest = Manifest(
        versions=versions,
        host=platform.node(),
        engine=around.choice.engine,
        engine_reason=around.choice.reason,
        study_digest=sha256(opened.study.to_yaml().encode()).hexdigest(),
        axes=opened.axes,
        steps=around.steps,
        majority=around.majority,
        shape=around.shape,
        classes=around.classes,
    )
    if before is None:
        return manifest
    earlier = before.earlier_versions
    if (then := dict(before.versions)) != versions:
        changed = [name for name, version in versions.items() if then.get(name) != version]
        log.warning(
            "part of the study was computed with other versions, so bits may differ: %s",
            ", ".join(f"{name} {then.get(name)} → {versions[name]}" for name in changed),
        )
        earlier = (*earlier, then)
    return replace(
        manifest,
        host=before.host,
        engine_reason=before.engine_reason or manifest.engine_reason,
        checkpoints=before.checkpoints,
        earlier_versions=earlier,
        first_format=before.first_format,
    )


def _versions() -> Mapping[str, str]:
    return {package: version(package) for package in PACKAGES} | {
        "python": platform.python_version()
    }
