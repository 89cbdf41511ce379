"""A study that is trained in this process, without a cluster."""

from dataclasses import replace

from lthdask import needs
from lthdask.driver.opening import driving_study
from lthdask.driver.preparing import write_down
from lthdask.driver.remaining import remaining
from lthdask.events import TaskContext
from lthdask.options import Options
from lthdask.storage import checkpoints
from lthdask.storage.folder import Folder
from lthdask.worker.cells import train_cells
from lthdask.worker.tasks import compare_masks, look_around, train_dense
from lthdask.worker.work import Work
from tests.test_flow import TINY

STUDY = TINY.changed({"recipe.epochs": "2", "grid.rewind_epochs": "0,1", "grid.replicates": "2"})
HERE = TaskContext(lambda event: None, lambda: False)


def trained(folder, study=STUDY, options=Options(), masks=False):
    """Train every cell of a study in a folder as a run does, and return the work."""
    with driving_study(study, folder, options) as opened:
        work = Work(study, opened.engine, opened.folder, None, options, recorded=opened.data)
        with opened.folder.probe() as probe:
            around = look_around(work, probe, HERE)
        manifest, _ = write_down(opened, around)
        work = replace(work, engine=manifest.engine, recorded=manifest.data)
        for replicate in manifest.checkpoints.keys() ^ {*range(study.grid.replicates)}:
            digests = train_dense(work, replicate, HERE)
            manifest = manifest.with_dense_run(replicate, digests)
            opened.folder.write_manifest(manifest)
            checkpoints.State(opened.folder.runs.of(f"dense-r{replicate}")).remove()
            if masks:
                for threshold in study.grid.thresholds:
                    compare_masks(work, replicate, threshold, digests, HERE)
        for cell in remaining(opened).cells:
            assert train_cells(work, [cell], HERE, *dense_of(work, cell)) == ["done"]
    return work


def dense_of(work, cell):
    """Return the checkpoints of the dense run that a cell starts from."""
    digests = Folder(work.folder.path).manifest().checkpoints[cell.replicate]
    steps = work.experiment().steps
    return [
        checkpoints.load(checkpoints.path_of(work.folder.path, cell.replicate, at), digests[at])
        for at in needs.checkpoints_for(work.study, cell, steps)
    ]
