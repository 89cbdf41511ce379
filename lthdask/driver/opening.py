"""Opening a study: what its folder holds, and whether it can be continued."""

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from hashlib import sha256
from itertools import product
from pathlib import Path
from typing import Any

from lthdask import given, growing
from lthdask.data.digest import DataDigest
from lthdask.data.inputs import inputs_of
from lthdask.driver.belonging import (
    require_axes,
    require_cells,
    require_cube_of,
    require_dense_runs,
)
from lthdask.driver.full_disk import said_when_full
from lthdask.errors import InputError, as_path
from lthdask.grid import Cell, is_applicable, stored_at
from lthdask.networks.build import is_known
from lthdask.options import Options
from lthdask.own import codes, file_of, plain, require_given
from lthdask.pruning.rule import prunable_weights
from lthdask.reading import yaml_mapping
from lthdask.storage import source
from lthdask.storage.cube import Cube
from lthdask.storage.driver import driving
from lthdask.storage.folder import Folder
from lthdask.storage.growth import grow
from lthdask.storage.manifest import FORMAT, Manifest
from lthdask.storage.readable import attributes, layers, readable
from lthdask.storage.schema import CELL, Extent, Status
from lthdask.study import Study
from lthdask.training.engine import Engine

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Opened:
    """A study and its folder, as it was found.

    Attributes
    ----------
    study : Study
        What the folder has and what was asked for, together: a study only grows.
    asked : Study
        What was asked for: all of it, or a part.
    options : Options
    folder : Folder
    manifest : Manifest or None
        None if the study has not been started; what the cube tells of it, if it is lost. It lists
        the dense runs whose curves are there.
    axes : mapping of str to list
        The axes of the study's cells. New values come last, so that everything in the cube keeps
        its place.
    every : mapping of Cell to Status
        Every cell of the study.
    cells : mapping of Cell to Status
        Those that were asked for.
    engine : Engine
        The engine to ask a worker for: the one that was used before, if there was one.
    """

    study: Study
    asked: Study
    options: Options
    folder: Folder
    manifest: Manifest | None
    axes: Mapping[str, list[Any]]
    every: Mapping[Cell, Status]
    cells: Mapping[Cell, Status]
    engine: Engine

    @property
    def data(self) -> DataDigest | None:
        """What identifies the data it was computed on; None if that was not recorded."""
        return self.manifest.data if self.manifest else None

    @property
    def steps(self) -> int:
        """Batches in an epoch; 0 before a worker has looked at the data."""
        return self.manifest.steps if self.manifest else 0

    @property
    def more(self) -> Mapping[str, list[Any]]:
        """What the folder has along its axes and was not asked for; empty where that is all."""
        asked, grid = self.asked.grid.axes(), self.asked.grid
        more = {name: [v for v in of if v not in asked[name]] for name, of in self.axes.items()}
        for axis, of_arms in grid.narrowed.items():
            for arm, some in of_arms.items():
                of, here = self.study.grid.along(axis, arm), asked[axis]
                more[f"{axis} of {arm}"] = [v for v in of if v in here and v not in some]
        return {name: values for name, values in more.items() if values}


@contextmanager
def driving_study(
    study: Study, out: str | Path | None = None, options: Options = Options()
) -> Iterator[Opened]:
    """Open a study as its only driver, and make its folder if there is none yet.

    Raises
    ------
    InputError
        As for :func:`open_study`; also if another driver is at work, or the folder is not
        writable.
    """
    _require_together(study, options)
    folder = _folder(study, out)
    _require_given(study, folder)
    with said_when_full(folder.path):
        folder.make()
        with driving(folder.path):
            _joined(study, folder)  # another study is left as it is
            _finish_growing(folder)
            folder.write_code(codes(study.own))
            folder.write_masks(given.contents(study.pruning.masks))
            source.take_over(study, folder)
            yield open_study(study, out, options)


def open_study(study: Study, out: str | Path | None = None, options: Options = Options()) -> Opened:
    """Look at the folder of a study, which need not exist, and write nothing.

    Parameters
    ----------
    study : Study
    out : path, optional
        Its folder; ``runs/<name>`` by default.
    options : Options

    Raises
    ------
    InputError
        If it cannot be written, or contains another study, or if the options do not fit the
        study, or code of one's own has changed or was not given.
    """
    _require_together(study, options)
    folder = _folder(study, out)
    folder.check()
    _require_given(study, folder)
    asked, study = study, _joined(study, folder)
    cube = Cube(folder.cube) if folder.cube.exists() else None
    manifest = _manifest(folder, cube, study)
    axes = {
        name: sorted(values, key=[*(cube.axis(name) if cube else []), *values].index)
        for name, values in study.grid.axes().items()
    }
    every = dict.fromkeys((Cell(*at) for at in product(*axes.values())), Status.PENDING)
    every |= cube.cells() if cube else {}
    of = study.grid.narrowed
    every = {
        cell: Status.PENDING if status is Status.NOT_APPLICABLE else status  # the arm has grown
        for cell, status in every.items()
        if is_applicable(cell, axes, of)
    }
    if cube and (options.adaptive is not None or options.keep == "matching"):
        require_cells(cube, every, ("metrics", "digests"))  # what is trained depends on them
    engine = _engine(study, folder, manifest)
    opened = Opened(study, asked, options, folder, manifest, axes, every, every, engine)
    if not opened.more:
        return opened
    wanted = {stored_at(cell, axes) for cell in asked.grid.cells()}
    return replace(opened, cells={cell: every[cell] for cell in every if cell in wanted})


def extent_of(study: Study, manifest: Manifest, layers: list[str]) -> Extent:
    """Return how large the cube of a study is."""
    every, epochs = study.recipe.measure_every, study.recipe.epochs
    iterations = range(every, epochs * manifest.steps + 1, every) if every else ()
    return Extent(manifest.axes, epochs, layers, study.pruning.meaning, manifest.steps, iterations)


def layers_of(study: Study, cube: Path) -> list[str]:
    """Return the names of a study's prunable weights.

    Those of a network of one's own or a library's, whose code need not be here, are what the cube
    says.
    """
    if not is_known(study.network):
        return layers(cube)
    return list(prunable_weights(study.outline()))


def _finish_growing(folder: Folder) -> None:
    """Bring the cube to the format and the size that the manifest says.

    An earlier version of lthdask may have made it, or a growth may have been killed.
    """
    manifest, text = folder.manifest(), folder.study()
    if manifest is None or text is None or not folder.cube.exists():
        return
    study, now = Study.parse(text), replace(manifest.identified(), format=FORMAT)
    require_cube_of(folder, now)
    extent = extent_of(study, now, layers_of(study, folder.cube))
    written: Mapping[str, Any] = yaml_mapping(text, "study")
    if sha256(text.encode()).hexdigest() != manifest.study_digest:  # killed before it was told
        written = attributes(folder.cube).get("study", written)
    about = now.about(written)
    with readable(folder.cube):
        changed = grow(folder.cube, extent, about)
    if now != manifest:
        folder.write_manifest(now)
        log.warning(
            "%s was made by an earlier version of lthdask; it is up to date now", folder.path
        )
    elif changed:
        log.warning("the axes of %s did not match its manifest; they do now", folder.cube)


def _manifest(folder: Folder, cube: Cube | None, study: Study) -> Manifest | None:
    """Return how the study was computed, by the cube if the manifest is lost."""
    if found := folder.manifest():
        manifest = found.identified()  # the update of an earlier format may have been killed
        # With the cube, or a part of it, the curves of a dense run are lost.
        kept = {
            replicate: digests
            for replicate, digests in manifest.checkpoints.items()
            if cube and cube.dense_chunk(replicate).exists()
        }
        if cube:
            require_cube_of(folder, manifest)
            require_dense_runs(cube, kept)
        return replace(manifest, checkpoints=kept)
    if cube is None:
        return None
    log.warning(
        "manifest.json of %s is missing: results.zarr tells the engine and the data, but not "
        "whether checkpoints are whole, so the dense runs are trained again",
        folder.path,
    )
    require_axes(cube, study.grid.axes())
    require_cells(cube, cube.cells())
    axes = {name: cube.axis(name) for name in CELL}
    return Manifest.of_cube(folder.cube, attributes(folder.cube), axes)


def _folder(study: Study, out: str | Path | None) -> Folder:
    return Folder(as_path(out or Path("runs") / study.name))


def _require_together(study: Study, options: Options) -> None:
    """Refuse options that do not fit the study, and code of one's own that has not been given."""
    require_given(study.own)
    codes(study.own)
    if options.adaptive is not None and study.iterative:
        raise InputError(
            "iterative pruning trains every round, so no cell can be skipped; leave out `adaptive`"
        )
    if options.adaptive is not None and "ticket" not in study.grid.arms:
        raise InputError(
            "`adaptive` looks for tickets that match; add the arm ticket, or leave out `adaptive`"
        )
    for kept in options.kept:
        kept.require_in(study.grid)
    if options.keep == "matching" and "ticket" not in study.grid.arms:
        raise InputError(
            "`keep` matching looks for tickets that match; add the arm ticket, or list what to keep"
        )
    if options.masks_only and (study.pruning.before_training or study.source):
        are_given = study.pruning.masks or study.source
        raise InputError(
            f"{'given' if are_given else study.pruning.score} masks are known before "
            f"training, so there are none to compare; leave out `masks_only`"
        )


def _require_given(study: Study, folder: Folder) -> None:
    """Refuse masks, or tickets, that were given to another process, unless the folder has them."""
    for mask in study.pruning.masks:
        given.load(folder.masks, mask)
    source.require(study, folder, inputs_of(study.data, None))


def _joined(study: Study, folder: Folder) -> Study:
    """Return a study together with what its folder has of it; refuse another study there."""
    if (text := folder.study()) is None:
        return study
    before = Study.parse(text, str(folder.path / "study.yaml"))
    now = {plain(name): name for name in study.own}
    if odd := [name for name in before.own if now.get(plain(name), name) != name]:
        file = file_of(odd[0])
        raise InputError(
            f"{file} has changed since the study in {folder.path} was begun; choose another folder "
            f"with `out`, or give the file as it was with `code`: a copy lies in "
            f"{folder.code / file}"
        )
    if lines := growing.differences(before, study):
        raise InputError(
            f"the folder {folder.path} contains another study; choose another folder with `out`, "
            f"or give the same settings: " + "; ".join(lines)
        )
    whole = growing.joined(before, study)
    require_given(whole.own)  # an arm that the folder has, and nobody asks for
    return whole


def _engine(study: Study, folder: Folder, manifest: Manifest | None) -> Engine:
    """Return the engine to ask a worker for."""
    if manifest is None:
        return study.engine
    # How many cells are trained side by side, and by what, may change on resume.
    now = study.engine
    engine = replace(manifest.engine, cohort=now.cohort, graphs=now.graphs, kernels=now.kernels)
    for name, used in asdict(engine).items():
        asked = getattr(study.engine, name)
        if asked not in ("auto", used):
            raise InputError(
                f"the folder {folder.path} was computed with engine.{name} {used}, but "
                f"{asked} is asked for; choose another folder with `out`, or the same engine"
            )
    return engine
