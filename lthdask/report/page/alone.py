"""The page by itself: a server of this machine, for `lthdask watch`."""

import asyncio
import secrets
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from socket import socket
from typing import Any

from bokeh.application import Application
from bokeh.application.handlers.function import FunctionHandler
from bokeh.document import Document
from bokeh.resources import Resources
from bokeh.server.auth_provider import AuthProvider
from bokeh.server.server import BaseServer
from bokeh.server.tornado import BokehTornado
from bokeh.server.views.ws import WSHandler
from jinja2 import Template
from tornado.httpserver import HTTPServer
from tornado.ioloop import IOLoop
from tornado.netutil import bind_sockets
from tornado.web import HTTPError

from lthdask.cluster.places import tunnel
from lthdask.errors import InputError
from lthdask.options import LOOPBACK, origins_with
from lthdask.report.page.document import document
from lthdask.report.page.source import Source
from lthdask.storage.driver import no_study
from lthdask.storage.folder import Folder

PAGE = Template("""\
<!DOCTYPE html>
<html lang="en">
<head>
  <meta charset="utf-8">
  <title>{{ title }}</title>
  <meta name="viewport" content="width=device-width, initial-scale=1">
  <meta name="referrer" content="no-referrer">
  <meta name="color-scheme" content="light dark">
  <link rel="icon" href="data:,">
  <style>
    body { margin: 0; background: #ffffff; }
    @media screen and (prefers-color-scheme: dark) {
      html { background: #161616; color-scheme: light; filter: invert(0.914) hue-rotate(180deg); }
    }
    @media print { body { print-color-adjust: exact; zoom: 0.7; } }
    @page { size: landscape; margin: 12mm; }
  </style>
  {{ bokeh_css }}
  {{ bokeh_js }}
</head>
<body>
  {{ plot_div }}
  {{ plot_script }}
</body>
</html>
""")


class _Secret(AuthProvider):  # type: ignore[misc]
    """Lets in who knows the token, and nobody else.

    A page that was let in has a session that is signed, by which its websocket is known.
    """

    def __init__(self, token: str) -> None:
        self.token = token
        super().__init__()

    @property
    def get_user(self) -> Callable[[Any], Any]:
        return self._user

    @property
    def login_url(self) -> str:
        return "/"  # nobody is sent there

    def _user(self, request: Any) -> str:
        given = request.get_argument("token", "")
        if isinstance(request, WSHandler) or secrets.compare_digest(
            given.encode(), self.token.encode()
        ):
            return "the owner"
        raise HTTPError(403, "this page is opened by the address that `lthdask watch` says")


class _Site(BokehTornado):  # type: ignore[misc]
    """A site whose pages load what they use, and neither tables, WebGL nor MathJax."""

    def resources(self, absolute_url: str | bool | None = None) -> Resources:
        return super().resources(absolute_url).clone(components=["bokeh", "bokeh-widgets"])


def serve(
    path: Path, port: int = 0, origins: Sequence[str] = (), say: Callable[[str], None] = print
) -> None:
    """Show the study in a folder, until somebody interrupts.

    Parameters
    ----------
    path : Path
    port : int
        Port of this machine's own network; 0 is any that is free.
    origins : sequence of str
        Further origins of pages that may connect, such as ``hub.example.org:443``.
    say : callable
        Called with the address, and how to reach it from elsewhere.

    Raises
    ------
    InputError
        If there is no study, the port is taken, or an origin is none.
    """
    if Folder(path).study() is None:
        raise no_study(path)
    may_connect = origins_with(origins)

    async def until_interrupted() -> None:
        token = secrets.token_urlsafe(24)
        sockets = _listening(port)
        server = server_of(path, token, sockets, may_connect)
        at = sockets[0].getsockname()[1]
        say(f"watching {path} at http://127.0.0.1:{at}/?token={token}")
        say(f"from elsewhere: {tunnel(at, at)}")
        try:
            await asyncio.Event().wait()
        finally:
            server.stop()

    asyncio.run(until_interrupted())


def _listening(port: int) -> list[socket]:
    """Return sockets of this machine's own network."""
    try:
        return bind_sockets(port, "127.0.0.1")
    except OSError as error:
        raise InputError(
            f"cannot listen at port {port} of this machine: {error.strerror}; choose another `port`"
        ) from None


def server_of(
    path: Path, token: str, sockets: list[socket], origins: Sequence[str] = LOOPBACK
) -> BaseServer:
    """Return the server, which has started in the loop that runs."""
    source = Source(path)
    threading.Thread(target=source.look, daemon=True).start()  # while somebody opens the page
    page = document(source)

    def show(doc: Document) -> None:
        page(doc)
        doc.template = PAGE

    site = _Site(
        {"/": Application(FunctionHandler(show))},
        extra_websocket_origins=list(origins),
        absolute_url="",
        auth_provider=_Secret(token),
        sign_sessions=True,
        secret_key=secrets.token_bytes(),
        use_index=False,
    )
    http = HTTPServer(site)
    http.add_sockets(sockets)
    server = BaseServer(IOLoop.current(), site, http)
    server.start()
    return server
