"""Attempts at runs: why each has failed, and whether it is begun again."""

import logging
import traceback
from collections import Counter
from dataclasses import dataclass, field, replace
from pathlib import Path

from lthdask.cluster.queue import Queue
from lthdask.driver.full_disk import UNUSABLE, is_unusable, raise_if_full
from lthdask.errors import ExhaustedError, FinalError, InputError
from lthdask.training.loop import Diverged
from lthdask.worker.work import Work

log = logging.getLogger(__name__)


@dataclass
class Attempts:
    """The attempts at the dense runs and cells of a sweep, by the names of these runs.

    Parameters
    ----------
    work : Work
    queue : Queue
        Which knows where a run has failed.
    """

    work: Work
    queue: Queue
    reasons: dict[str, Exception] = field(default_factory=dict)
    _raised: Counter[str] = field(default_factory=Counter)
    _allowed: dict[str, int] = field(default_factory=dict)

    def work_for(self, *names: str) -> Work:
        """Return the work for runs, with as many attempts as they may be given in all."""
        allowed = max(map(self._most, names))
        self._allowed.update(dict.fromkeys(names, allowed))
        return replace(self.work, options=replace(self.work.options, max_attempts=allowed))

    def _most(self, name: str) -> int:
        most = self.work.options.max_attempts
        return most + self.queue.places.forgiven(name, most)

    def again(self, name: str, outcome: Exception) -> bool:
        """Keep the reason why a run has failed, and return whether to begin it again.

        Whether it has been begun too often is for the next attempt to say, unless it raises
        before it is even recorded.

        Raises
        ------
        OSError
            In place of failing a run because the study's folder, or the data's, cannot be used.
        """
        folder = self.work.folder
        raise_if_full(folder.path, outcome)
        self.keep_reason(name, outcome)
        if isinstance(outcome, ExhaustedError):
            self.queue.places.died(name, folder.runs.fruitless(name, self.work.driver))
            again = self._most(name) > self._allowed[name]
        elif isinstance(outcome, FinalError):
            again = False
        else:
            self._raised[name] += 1
            attempts = folder.runs.attempts(name)
            begun = sum(attempt.get("driver") == self.work.driver for attempt in attempts)
            again = self._raised[name] - begun < self._most(name)
        reason, folders = self.reasons[name], (folder.path, self.work.data or folder.path)
        if not again and not isinstance(reason, InputError | Diverged):
            again = self.queue.places.leave_out_the_only_one(name)
        if not again and any(is_unusable(Path(place), reason) for place in folders):
            raise reason
        return again

    def keep_reason(self, name: str, outcome: Exception) -> None:
        """Keep why a run has failed; that it was begun too often says less than what it raised."""
        if not isinstance(outcome, ExhaustedError) or name not in self.reasons:
            self.reasons[name] = outcome
        try:
            text = "".join(traceback.format_exception(self.reasons[name]))
            self.work.folder.runs.write_traceback(name, text)
        except OSError as error:
            if error.errno in UNUSABLE:
                raise
            log.warning("cannot keep the reason why %s failed: %s", name, error)
