"""A browser without a window, spoken to over a pipe.

Chromium ends by itself when its end of the pipe closes, so none is left behind however this
process ends; and nothing listens. It needs neither a driver nor a package of Python. What is said
is Chromium's DevTools protocol: https://chromedevtools.github.io/devtools-protocol/.
"""

import json
import os
import select
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from lthdask.errors import InputError

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
SECONDS = 60.0
"""How long an answer may take; before the first one, the browser has to start."""
_ARGUMENTS = (
    "--headless",
    "--remote-debugging-pipe",
    "--no-first-run",
    "--disable-gpu",
    "--hide-scrollbars",
    "--disable-dev-shm-usage",  # it is small in containers
    "--disable-background-networking",
    "--disable-component-update",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",  # it asks nobody
)
_WITH_PIPES = 'exec "$@" 3<&0 4>&1 </dev/null >/dev/null'
"""Chromium reads from its file 3, and writes to its file 4."""


class Browser:
    """An empty page of a browser; :func:`opened` returns it."""

    def __init__(self, send: IO[bytes], receive: IO[bytes]) -> None:
        self._send, self._receive = send.fileno(), receive.fileno()
        self._number, self._rest = 0, b""
        self._session: dict[str, str] = {}
        page = self.ask("Target.createTarget", url="about:blank")["targetId"]
        session = self.ask("Target.attachToTarget", targetId=page, flatten=True)
        self._session = {"sessionId": session["sessionId"]}

    def ask(self, method: str, **given: Any) -> dict[str, Any]:
        """Call a method of the protocol, and return its answer.

        Raises
        ------
        InputError
            If the browser refuses, ends, or takes too long.
        """
        self._number += 1
        message = {"id": self._number, "method": method, "params": given, **self._session}
        end, answer = time.monotonic() + SECONDS, dict[str, Any]()
        self._say(json.dumps(message).encode() + b"\0", end)
        while answer.get("id") != self._number:  # what comes between are events
            answer = json.loads(self._message(end))
        if "error" in answer:
            raise InputError(f"the browser refuses {method}: {answer['error']['message']}")
        result: dict[str, Any] = answer["result"]
        return result

    def value(self, code: str) -> Any:
        """Return the value of an expression of JavaScript, or of its promise.

        Raises
        ------
        InputError
            Likewise, and if the expression raises something.
        """
        answer = self.ask(
            "Runtime.evaluate", expression=code, awaitPromise=True, returnByValue=True
        )
        if "exceptionDetails" in answer:
            raise InputError(f"in the browser: {answer['result'].get('description', answer)}")
        return answer["result"].get("value")

    def _say(self, message: bytes, end: float) -> None:
        os.set_blocking(self._send, False)
        with suppress(BrokenPipeError):  # that it ended is said when nothing comes back
            while message:
                _in_time(select.select([], [self._send], [], max(0, end - time.monotonic())))
                message = message[os.write(self._send, message) :]

    def _message(self, end: float) -> bytes:
        while b"\0" not in self._rest:
            _in_time(select.select([self._receive], [], [], max(0, end - time.monotonic())))
            if not (found := os.read(self._receive, 2**20)):
                raise InputError("the browser ended")
            self._rest += found
        message, _, self._rest = self._rest.partition(b"\0")
        return message


def _in_time(ready: Any) -> None:
    if not any(ready):
        raise InputError(f"the browser did not answer within {SECONDS:g} s")


@contextmanager
def opened() -> Iterator[Browser]:
    """Open a browser, and end it.

    Raises
    ------
    InputError
        If there is none, or it does not start.
    """
    browser = next(filter(None, map(shutil.which, NAMES)), None)
    if browser is None:
        raise InputError(
            "PNG, SVG and PDF are drawn by Chromium or Chrome, and there is none on PATH; install "
            "one, or save a figure from report.html with the tool beside it"
        )
    # Chromium crashes where the path of its socket, below, is longer than 107 bytes.
    long = len(os.fsencode(tempfile.gettempdir())) > 30
    with tempfile.TemporaryDirectory(
        prefix="lthdask-", dir="/tmp" if long else None, ignore_cleanup_errors=True
    ) as folder:
        arguments = [browser, *_ARGUMENTS, f"--user-data-dir={folder}/profile"]
        arguments += ["--no-sandbox"] * (os.geteuid() == 0)  # the sandbox refuses root
        said = Path(folder, "said.txt")
        with said.open("wb") as errors, _started(arguments, folder, errors) as pipes:
            try:
                page = Browser(*pipes)
            except InputError as problem:
                last = "; ".join(said.read_text(errors="replace").splitlines()[-1:])
                raise InputError(f"{browser} does not start: {problem}; {last}") from None
            yield page


@contextmanager
def _started(
    arguments: list[str], folder: str, errors: IO[bytes]
) -> Iterator[tuple[IO[bytes], IO[bytes]]]:
    """Start a browser in a process group of its own, and end all of it."""
    process = subprocess.Popen(
        ["/bin/sh", "-c", _WITH_PIPES, "sh", *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=errors,
        env=os.environ | {"TMPDIR": folder},
        start_new_session=True,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        yield process.stdin, process.stdout
    finally:
        process.stdin.close()
        process.stdout.close()
        with suppress(subprocess.TimeoutExpired):
            process.wait(min(5, SECONDS))
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
