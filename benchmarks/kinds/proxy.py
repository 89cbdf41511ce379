"""A proxy of TCP, whose connections can be cut."""

import socket
import threading
from contextlib import suppress


def free_port() -> int:
    """Return a port at which nothing listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class Proxy:
    """Passes on what it is sent to the port `behind`, at an `address` of its own."""

    def __init__(self) -> None:
        self.behind = free_port()
        self._open = list[socket.socket]()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"tcp://127.0.0.1:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._serve, daemon=True).start()

    def answers(self) -> bool:
        """Return whether something listens behind it."""
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.behind)) == 0

    def cut(self) -> None:
        """Cut all connections; new ones are passed on as before."""
        while self._open:
            with suppress(OSError):
                self._open.pop().shutdown(socket.SHUT_RDWR)

    def _serve(self) -> None:
        while True:
            here, _ = self._listener.accept()
            try:
                there = socket.create_connection(("127.0.0.1", self.behind))
            except OSError:
                here.close()
                continue
            self._open += [here, there]
            for pair in ((here, there), (there, here)):
                threading.Thread(target=_pass_on, args=pair, daemon=True).start()


def _pass_on(source: socket.socket, target: socket.socket) -> None:
    with suppress(OSError):
        while content := source.recv(2**16):
            target.sendall(content)
    for end in (source, target):
        with suppress(OSError):
            end.shutdown(socket.SHUT_RDWR)
