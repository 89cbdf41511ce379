"""Resuming: training runs save their state, can be stopped at any step, and are picked up again.

Any worker may pick a run up. A run that gets no further is not tried for ever.
"""

import math
import os
import platform
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict

from lthdask.events import Event, Stopped, TaskContext
from lthdask.lottery.experiment import Experiment
from lthdask.rewinding import place
from lthdask.storage import checkpoints
from lthdask.storage.identity import run_of
from lthdask.training.checkpoint import Checkpoint
from lthdask.training.engine import Engine
from lthdask.training.loop import Diverged, EpochMetrics, Measurement, Outcome, Progress
from lthdask.worker.work import Work, cube_of

BETWEEN_TELLING = 1.0
"""Least number of seconds between two events of a run. Each takes a millisecond from training,
whose thread shares its process with Dask's; and a thousand workers tell theirs to one driver."""


class ResumableRun:
    """A training run that can be stopped at any step, and picks up where it left off.

    Parameters
    ----------
    work : Work
    name : object
        What names the run: a cell, or the name of a dense run.
    here : TaskContext

    Attributes
    ----------
    start : Checkpoint or None
        The newest state that was saved.
    curves : dict of int to dict of str to float
        `EpochMetrics` of the epochs that are done.
    learning : dict of int to dict of str to float
        `Measurement` at the iterations inside epochs.
    digests : dict of Place to str
        Only for a dense run: epoch, or steps inside one → digest of its checkpoint.

    Raises
    ------
    Stopped
        If the worker has to go already.
    """

    def __init__(self, work: Work, name: object, here: TaskContext) -> None:
        if here.should_stop():
            raise Stopped
        self.work, self.name, self.here = work, name, here
        self.place = _place(work.engine)
        self.began, self._clock = time.time(), time.monotonic()
        self.saved_at = self._clock
        self._told_at, self._untold = -math.inf, 0.0
        self._state = checkpoints.State(
            work.folder.runs.of(name), self.warn, run_of(cube_of(work).identity, name)
        )
        self.start: Checkpoint | None
        self.start, notes = self._state.load() or (None, {})
        self.curves = {int(epoch): values for epoch, values in notes.get("curves", {}).items()}
        self.learning = {int(at): values for at, values in notes.get("learning", {}).items()}
        self.digests = {place(at): digest for at, digest in notes.get("digests", {}).items()}
        self._seconds_before: float = notes.get("seconds", 0.0)

    def begin(self, position: tuple[int, int] = (0, 0), beside: int = 1) -> None:
        """Record the attempt; without a state, it starts after so many epochs, and steps.

        `beside` runs are trained in one step, and share the time it takes.
        """
        self._clock, self._beside = time.monotonic(), beside
        self._begins = position
        self.position = (self.start.epoch, self.start.step) if self.start else position
        about = {
            "run": str(self.name),
            "driver": self.work.driver,
            "started": self.began,
            "place": self.place,
            "worker": self.here.place,
            "node": self.here.node,
            "pid": os.getpid(),
            "epoch": self.position[0],
            "step": self.position[1],
            "seconds": self._seconds_before,
            "beside": beside,
        }
        most = self.work.options.max_attempts
        self.attempt = self.work.folder.runs.begin(self.name, about, most)

    def restart(self, reason: str) -> None:
        """Forget the state, which cannot be continued."""
        self.warn(f"{self.name} starts anew: {reason}")
        self._state.remove()
        self.start, self.curves, self.learning, self.digests = None, {}, {}, {}

    def due(self) -> bool:
        """Return whether it is time to save the state."""
        waited = time.monotonic() - self.saved_at
        return waited >= self.work.options.checkpoint_interval or self.here.should_stop()

    def note(self, outcome: Outcome, steps: int) -> None:
        """Keep what was measured, and say from time to time how many epochs are done."""
        if isinstance(outcome, EpochMetrics):
            self.curves[outcome.epoch] = asdict(outcome)
            self.learning[outcome.epoch * steps] = asdict(outcome)
            epoch, step = self._begins  # the run's own part of an epoch, if it begins inside one
            self._untold += 1 - step / steps if outcome.epoch == epoch + 1 else 1
            if time.monotonic() - self._told_at >= BETWEEN_TELLING:
                self.tell()
        elif isinstance(outcome, Measurement):
            self.learning[outcome.iteration] = asdict(outcome)

    def tell(self) -> None:
        """Say how many epochs are done since this was said."""
        if self._untold:
            self.here.tell(Event("epoch", str(self.name), epochs=self._untold))
        self._untold, self._told_at = 0.0, time.monotonic()

    def save(self, checkpoint: Checkpoint) -> None:
        """Save the state."""
        notes = {
            "curves": self.curves,
            "learning": self.learning,
            "digests": {str(at): digest for at, digest in self.digests.items()},
            "seconds": self.seconds(),
        }
        self._state.save(checkpoint, notes)
        self.saved_at = time.monotonic()

    def seconds(self) -> float:
        """Return how long the run has taken, over all attempts that continued one another."""
        return self._seconds_before + (time.monotonic() - self._clock) / self._beside

    def end(self) -> None:
        """Remove the state: the results are written."""
        self._state.remove()

    def warn(self, sentence: str) -> None:
        """Tell what needs attention."""
        self.here.tell(Event("warning", str(self.name), sentence))

    def compare_with_lifetime(self, epoch: float) -> None:
        """Warn if an epoch takes, in seconds, longer than a worker lives."""
        lifetime = self.here.lifetime
        if lifetime and epoch > lifetime:
            sentence = (
                f"an epoch takes {epoch:.0f} s, longer than the {lifetime:.0f} s that a worker "
                f"has; training resumes inside an epoch, but a longer wall-time saves restarts"
            )
            self.here.tell(Event("warning", "lifetime", sentence))


def follow(
    trainings: Sequence[ResumableRun],
    epochs: Iterator[Progress],
    experiment: Experiment,
) -> Iterator[Progress]:
    """Pass on what is trained; keep the curves of each run, and save its state when it is due.

    Parameters
    ----------
    trainings : sequence of Training
        The runs, which are trained side by side.
    epochs : iterator of Progress
        Their progress.
    experiment : Experiment

    Raises
    ------
    Stopped
        If the worker has to go; the states are saved.
    """
    last, steps = experiment.recipe.epochs, experiment.steps
    first, clock = trainings[0], time.monotonic()
    epoch, step = first.position
    try:
        for found in epochs:
            for training, outcome in zip(trainings, found.outcomes, strict=True):
                training.note(outcome, steps)
            yield found
            if all(isinstance(outcome, Diverged) for outcome in found.outcomes):
                continue
            done = (found.epoch - epoch) * steps + found.step - step
            first.compare_with_lifetime((time.monotonic() - clock) * steps / max(done, 1))
            if found.epoch < last and first.due():
                leaving = first.here.should_stop()
                each = zip(trainings, found.states(), found.outcomes, strict=True)
                for training, state, outcome in each:
                    if not isinstance(outcome, Diverged):
                        training.save(state)
                first.saved_at = time.monotonic()  # many take as long as an interval
                if leaving:
                    raise Stopped
    finally:
        for training in trainings:
            training.tell()


def _place(engine: Engine) -> str:
    """Return host, device and, in a queue, the number of the job."""
    device: str = engine.device
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    jobs = [
        os.environ[name] for name in ("SLURM_JOB_ID", "PBS_JOBID", "JOB_ID") if name in os.environ
    ]
    device += f":{visible}" if device == "cuda" and visible else ""
    return " ".join([platform.node(), device, *(f"job {job}" for job in jobs[:1])])
