"""The log of a study: what its command said and how it ended, added to ``log.txt`` by each run.

It is written by a thread of its own. Where that fails, it is said once, and the run goes on.
"""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from logging.handlers import QueueHandler, QueueListener
from pathlib import Path
from queue import SimpleQueue

FORM = logging.Formatter("%(asctime)s %(levelname)s %(message)s", "%Y-%m-%dT%H:%M:%S%z")

log = logging.getLogger(__name__)


class StudyLog:
    """What is to be written into a log, and from some moment on is.

    Attributes
    ----------
    lines : logging.Logger
        Takes what is for the log alone. Warnings of the library come by themselves.
    """

    def __init__(self) -> None:
        self.lines = logging.Logger("log of a study")
        self._records: SimpleQueue[logging.LogRecord] = SimpleQueue()
        self._writing: QueueListener | None = None
        self._handler = QueueHandler(self._records)
        self.lines.addHandler(self._handler)

    def write(self, file: Path) -> None:
        """Append to this file what there is, and what is to come."""
        self._writing = QueueListener(self._records, _LogFile(file))
        self._writing.start()

    @contextmanager
    def kept(self) -> Iterator["StudyLog"]:
        """Take the library's warnings too, and end the writing with the context."""
        library = logging.getLogger("lthdask")
        usual = [] if library.hasHandlers() else [logging.lastResort]  # or they are said no more
        ours = [handler for handler in (self._handler, *usual) if handler]
        for handler in ours:
            library.addHandler(handler)
        try:
            yield self
        finally:
            for handler in ours:
                library.removeHandler(handler)
            if self._writing:
                self._writing.stop()


class _LogFile(logging.Handler):
    """Opens its file for each record, so that one that was lost may come back."""

    def __init__(self, file: Path) -> None:
        super().__init__()
        self.setFormatter(FORM)
        self._file, self._said = file, False

    def emit(self, record: logging.LogRecord) -> None:
        try:
            with self._file.open("a", encoding="utf-8", errors="backslashreplace") as file:
                file.write(f"{self.format(record)}\n")
        except OSError as error:
            if not self._said:
                self._said = True
                why = error.strerror
                log.warning("cannot write %s: %s; the run goes on without it", self._file, why)
