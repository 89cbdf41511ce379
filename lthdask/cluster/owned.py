"""What a client was opened with: it ends when the client is closed, or its process ends."""

import atexit
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import distributed


class Client(distributed.Client):  # type: ignore[misc]
    """A Dask client that ends its workers, and queued jobs, when it is closed.

    It is closed by :meth:`close`, at the end of a ``with`` block, or by the end of its process.
    """

    _opened: ExitStack | None = None

    def own(self, opened: ExitStack) -> None:
        """Take over what was opened for this client: its closing closes that, last first."""
        self._opened = opened
        atexit.register(self.close)  # also keeps a client that nobody holds from closing by itself

    def before_closing(self, call: Callable[[], object]) -> None:
        """Have something called while the workers are still there."""
        if self._opened:
            self._opened.callback(call)

    def close(self, *args: Any, **kwargs: Any) -> Any:
        """Close the client, and all that was opened for it; more often does nothing."""
        opened, self._opened = self._opened, None
        if opened is None:
            return super().close(*args, **kwargs)
        atexit.unregister(self.close)
        return opened.close()


@dataclass(eq=False)
class _Change:
    """A change of this process that is to be undone."""

    undo: ExitStack = field(default_factory=ExitStack)
    is_over: bool = False


_changes: list[_Change] = []
_changing = threading.RLock()


@contextmanager
def in_order(change: AbstractContextManager[Any]) -> Iterator[None]:
    """Change something of this process, and undo it once all that was changed later is undone.

    Clients of a notebook are closed in any order, but each change restores what it found.
    """
    this = _Change()
    with _changing:
        this.undo.enter_context(change)
        _changes.append(this)
    try:
        yield
    finally:
        with _changing:
            this.is_over = True
            while _changes and _changes[-1].is_over:
                _changes.pop().undo.close()
