"""The whole story: how a study becomes a cube of results.

A dense network is trained once per replicate; its checkpoints are scattered once; two
nested loops, over thresholds and rewind epochs, become delayed tasks; the workers train
every ticket and write its cell.
"""

import functools
import logging
import platform
import traceback
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import xarray as xr

from lthdask.cluster.queue import Queue, Task
from lthdask.errors import InputError
from lthdask.events import Event
from lthdask.grid import Cell, longest_first
from lthdask.storage import checkpoints
from lthdask.storage.folder import Folder
from lthdask.storage.results import Cube, Status, open_results
from lthdask.study import Study
from lthdask.tasks import Work, look_around, train_cell, train_dense
from lthdask.training import Engine

if TYPE_CHECKING:
    from distributed import Client

PACKAGES = ("lthdask", "torch", "torchvision", "numpy", "dask", "distributed", "zarr")

log = logging.getLogger(__name__)


def run(
    study: Study,
    client: "Client",
    out: str | Path | None = None,
    data: str | Path | None = None,
    *,
    download: bool = False,
    retry_failed: bool = False,
    watch: Callable[[Event], None] = lambda event: None,
) -> xr.Dataset:
    """Train every cell of a study that is not done yet.

    Parameters
    ----------
    study : Study
    client : distributed.Client
        Where to train; its owner opens and closes it.
    out : path, optional
        The study's folder, seen by every worker; ``runs/<name>`` by default.
    data : path, optional
        The folder of the data set, seen by every worker.
    download : bool
        Fetch a data set that is missing from that folder.
    retry_failed : bool
        Train failed cells again.
    watch : callable
        Called with each `Event`, from more than one thread.

    Returns
    -------
    xarray.Dataset
        As from :func:`lthdask.open_results`.

    Raises
    ------
    InputError
        If something that was given cannot be used; nothing has been trained then.
    """
    folder = existing(study, out)
    folder.make()
    queue = Queue(client, lambda name: watch(Event("epoch", name)))
    where = Path(data).absolute() if data else None
    work, cube = _prepared(queue, Work(study, _engine(study, folder), folder, where, download))
    cells = _unfinished(cube.cells(), retry_failed)
    search = _Search(work, cube, cells, queue, watch)

    replicates = sorted({cell.replicate for cell in cells})
    trained = [replicate for replicate in replicates if search.share_checkpoints(replicate)]
    epochs = epochs_to_train(study, cells, dense_runs=len(replicates) - len(trained))
    watch(Event("plan", cells=len(cells), epochs=epochs))
    for replicate in replicates:
        if replicate in trained:
            search.add_cells(replicate)
        else:
            search.add_dense_run(replicate)
    queue.run()
    return open_results(folder.path)


@dataclass
class _Search:
    """The dense runs and cells of a study that are still to be trained."""

    work: Work
    cube: Cube
    cells: list[Cell]
    queue: Queue
    watch: Callable[[Event], None]

    def add_dense_run(self, replicate: int) -> None:
        """Queue the dense run of a replicate, before all cells."""
        then = functools.partial(self._dense_run_landed, replicate)
        name, arguments = f"dense-{replicate}", (self.work, replicate)
        self.queue.add(Task(name, train_dense, arguments, length=float("inf"), then=then))

    def share_checkpoints(self, replicate: int) -> bool:
        """Scatter the checkpoints that a replicate's cells start from, once.

        Returns
        -------
        bool
            Whether they are there. If one is missing or damaged, none counts: the dense
            run is trained anew, and gives the same.
        """
        folder, last = self.work.folder, self.work.study.recipe.epochs
        digests = folder.manifest()["checkpoints"].get(str(replicate))
        if digests is None:
            return False
        for epoch in sorted({last} | {c.rewind_epoch for c in self.cells_of(replicate)}):
            path = checkpoints.path_of(folder.path, replicate, epoch)
            load = functools.partial(checkpoints.load, path, digests[str(epoch)])
            try:
                self.queue.share((replicate, epoch), load)
            except InputError as error:
                log.warning("%s", error)
                return False
        return True

    def add_cells(self, replicate: int) -> None:
        """Queue the cells of a replicate, longest first."""
        last = self.work.study.recipe.epochs
        for cell in self.cells_of(replicate):
            self.queue.add(
                Task(
                    f"cell-{cell}",
                    train_cell,
                    arguments=(self.work, cell),
                    shared=((replicate, last), (replicate, cell.rewind_epoch)),
                    length=last - cell.rewind_epoch,
                    then=functools.partial(self._cell_landed, cell),
                )
            )

    def cells_of(self, replicate: int) -> list[Cell]:
        """Return the cells of a replicate."""
        return [cell for cell in self.cells if cell.replicate == replicate]

    def _dense_run_landed(self, replicate: int, outcome: Any) -> None:
        if isinstance(outcome, Exception):
            self.watch(Event("dense", f"dense run {replicate}", "failed"))
            for cell in self.cells_of(replicate):
                self._cell_landed(cell, outcome)
            return
        manifest = self.work.folder.manifest()
        manifest["checkpoints"][str(replicate)] = outcome
        self.work.folder.write_manifest(manifest)
        self.watch(Event("dense", f"dense run {replicate}", "done"))
        if self.share_checkpoints(replicate):
            self.add_cells(replicate)
            return
        unread = InputError(f"the driver cannot read the checkpoints of replicate {replicate}")
        for cell in self.cells_of(replicate):
            self._cell_landed(cell, unread)

    def _cell_landed(self, cell: Cell, outcome: Any) -> None:
        status = outcome
        if isinstance(outcome, Exception):
            status = "failed"
            self.work.folder.write_traceback(cell, "".join(traceback.format_exception(outcome)))
            self.cube.mark(cell, Status.FAILED)
        self.watch(Event("cell", str(cell), status))


def existing(study: Study, out: str | Path | None = None) -> Folder:
    """Return the folder of a study, which need not exist, if it can be gone on with.

    Raises
    ------
    InputError
        If it cannot be written, or holds another study, or one that cannot grow to this.
    """
    folder = Folder(Path(out or Path("runs") / study.name))
    folder.check()
    text = folder.study()
    if text is None:
        return folder
    before = Study.parse(text, str(folder.path / "study.yaml"))
    if lines := before.differences(study):
        raise InputError(
            f"the folder {folder.path} holds another study; give another one with --out, or "
            f"the same settings: " + "; ".join(lines)
        )
    kept, last = before.kept_until, study.grid.rewind_epochs[-1]
    if last > kept:
        raise InputError(
            f"the grid cannot grow to rewind epoch {last}: the folder {folder.path} keeps "
            f"complete states of its dense runs until epoch {kept}; give another one with --out"
        )
    _engine(study, folder)
    return folder


def remaining(study: Study, folder: Folder, retry_failed: bool = False) -> list[Cell]:
    """Return the cells that a run of the study would train, longest first."""
    cells = dict.fromkeys(study.grid.cells(), Status.PENDING)
    if folder.cube.exists():
        cells |= Cube(folder.cube).cells()
    return _unfinished(cells, retry_failed)


def _unfinished(cells: Mapping[Cell, Status], retry_failed: bool = False) -> list[Cell]:
    """Return the cells that are to be trained, longest first."""
    wanted = {Status.PENDING} | ({Status.FAILED} if retry_failed else set())
    return longest_first(cell for cell, status in cells.items() if status in wanted)


def epochs_to_train(study: Study, cells: list[Cell], dense_runs: int) -> int:
    """Return how many epochs it takes to train so many dense runs and these cells."""
    epochs = study.recipe.epochs
    return dense_runs * epochs + sum(epochs - cell.rewind_epoch for cell in cells)


def _engine(study: Study, folder: Folder) -> Engine:
    """Return the engine to ask a worker for: the one that was used before, if any."""
    before = folder.manifest().get("engine")
    if before is None:
        return study.engine
    for name, used in before.items():
        asked = getattr(study.engine, name)
        if asked not in ("auto", used):
            raise InputError(
                f"the folder {folder.path} was computed with engine.{name} {used}, and "
                f"{asked} is asked for; give another one with --out, or the same engine"
            )
    return Engine(**before)


def _prepared(queue: Queue, work: Work) -> tuple[Work, Cube]:
    """Have a worker look around; then write down what the study is, and make its cube."""
    study, folder, found = work.study, work.folder, list[Any]()
    arguments = (work, folder.leave_word())
    queue.add(Task("look-around", look_around, arguments, then=found.append))
    queue.run()
    if isinstance(found[0], Exception):
        raise found[0]
    engine, layers = found[0]
    versions = {package: version(package) for package in PACKAGES}
    manifest = folder.manifest() or {
        "versions": versions | {"python": platform.python_version()},
        "host": platform.node(),
        "engine": asdict(engine),
        "checkpoints": {},
    }
    folder.write_study(study.to_yaml())
    folder.write_manifest(manifest)
    axes: dict[str, Any] = {
        "arm": study.grid.arms,
        "replicate": range(study.grid.replicates),
        "threshold": study.grid.thresholds,
        "rewind_epoch": study.grid.rewind_epochs,
    }
    about = {"study": study.to_dict(), "versions": manifest["versions"], "engine": asdict(engine)}
    if folder.cube.exists():
        cube = Cube(folder.cube)
        cube.grow(axes)
        cube.annotate(about)
    else:
        meaning = study.pruning.meaning
        cube = Cube.create(folder.cube, axes, study.recipe.epochs, layers, about, meaning)
    return replace(work, engine=engine), cube
