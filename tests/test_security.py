"""Who may connect to a run, and what others of the same machine can see and do."""

import json
import os
import subprocess
import sys
import tempfile
from multiprocessing import process
from multiprocessing.connection import Listener
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import ProxyHandler, build_opener

import dask
import psutil
import pytest
from distributed import Security

from lthdask.cluster import local, security
from lthdask.cluster.client import open_client
from lthdask.errors import InputError

ANOTHER_USER = """
import encodings.idna, json, os, socket, ssl, sys  # before the files are out of reach
ports, certificates = json.load(sys.stdin)
contexts = {}
for way, file in certificates.items():
    contexts[way] = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    contexts[way].check_hostname, contexts[way].verify_mode = False, ssl.CERT_NONE
    if file:
        contexts[way].load_cert_chain(file)
os.setgroups([]), os.setgid(65534), os.setuid(65534)

def answers(port, context=None):
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=20) as bare:
            with context.wrap_socket(bare) if context else bare as connection:
                connection.sendall(b"GET / HTTP/1.0\\r\\n\\r\\n")
                return bool(connection.recv(1))
    except (ssl.SSLError, ConnectionError):
        return False

answered = {"in the clear": [port for port in ports if answers(port)]}
rest = [port for port in ports if port not in answered["in the clear"]]
for way, context in contexts.items():
    answered[way] = [port for port in rest if answers(port, context)]
json.dump(answered, sys.stdout)
"""


@pytest.fixture(scope="module")
def foreign():
    return Security.temporary()


def processes():
    """This process and all that it has started: the driver of the tests and its workers."""
    return [psutil.Process(), *psutil.Process().children(recursive=True)]


@pytest.mark.skipif(os.getuid() != 0, reason="only root can act as another user of this machine")
def test_another_user_gets_an_answer_from_nothing_but_web_pages(local_client, foreign, tmp_path):
    listening = [c for p in processes() for c in p.net_connections("tcp") if c.status == "LISTEN"]
    assert {c.laddr.ip for c in listening} == {"127.0.0.1"}
    ports = [c.laddr.port for c in listening]
    certificates = {"without a certificate": None}
    for way, own in {"a foreign one": foreign, "its own": local_client.security}.items():
        certificates[way] = str(tmp_path / way)
        Path(certificates[way]).write_text(own.tls_client_cert + own.tls_client_key)
    done = subprocess.run(
        [sys.executable, "-c", ANOTHER_USER],
        input=json.dumps([ports, certificates]),
        capture_output=True,
        text=True,
    )
    assert not done.stderr
    answered = {way: set(of_way) for way, of_way in json.loads(done.stdout).items()}

    found = local_client.scheduler_info()
    workers = found["workers"].items()
    run = [found["address"], *(address for name, w in workers for address in (name, w["nanny"]))]
    run = {int(address.rpartition(":")[2]) for address in run}
    pages = {found["services"]["dashboard"], *(w["services"]["dashboard"] for _, w in workers)}
    assert (len(run), len(pages)) == (5, 3)
    assert answered == {
        "in the clear": pages,
        "without a certificate": set(),
        "a foreign one": set(),
        "its own": run,
    }
    assert run | pages == set(ports)


def is_ours_alone(folder):
    """Whether nobody else can look into a folder, or into one above it."""
    status = [path.stat() for path in (folder, *folder.parents)]
    return any(s.st_uid == os.getuid() and not s.st_mode & 0o077 for s in status[:-2])


def test_sockets_and_scratch_of_a_run_lie_in_folders_that_nobody_else_can_enter(local_client):
    sockets = [c.laddr for p in processes() for c in p.net_connections("unix") if c.laddr]
    folders = {Path(socket).parent for socket in sockets}
    assert folders, "the fork server has one"
    of_workers = local_client.run(lambda dask_worker: dask_worker.local_directory)
    folders |= {Path(folder) for folder in of_workers.values()}
    folders.add(Path(local_client.cluster.scheduler.local_directory))
    folders |= {Path(nanny.local_directory) for nanny in local_client.cluster.workers.values()}
    for folder in folders:
        assert is_ours_alone(folder), folder


def test_sockets_find_room_where_the_temporary_folder_has_a_long_name(monkeypatch, tmp_path):
    long = tmp_path / ("x" * 90)
    long.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(long))
    monkeypatch.setitem(process.current_process()._config, "tempdir", None)
    local._make_folder_of_sockets()
    assert tempfile.gettempdir() == str(long)
    with Listener(family="AF_UNIX") as listener:
        folder = Path(listener.address).parent
    assert is_ours_alone(folder)


def test_no_page_of_the_dashboard_acts(local_client):
    """The one that measures disks writes to them; a route may retire workers."""
    base = local_client.dashboard_link.removesuffix("/status")

    def status(page, data=None):
        try:
            with build_opener(ProxyHandler({})).open(base + page, data) as answer:
                return answer.status
        except HTTPError as error:
            return error.code

    assert status("/status") == 200
    assert status("/hardware") == 404
    assert status("/api/v1/retire_workers", b'{"n": 1}') == 404


@pytest.mark.parametrize(("required", "encrypted"), [(None, True), (True, True), (False, False)])
def test_a_run_is_encrypted_unless_the_configuration_says_that_it_need_not_be(required, encrypted):
    with dask.config.set({"distributed.comm.require-encryption": required}):
        one, other = security.of_this_run(), security.of_this_run()
    assert one.require_encryption is encrypted
    assert bool(one.tls_scheduler_key) is encrypted
    assert (one.tls_scheduler_key == other.tls_scheduler_key) is not encrypted


TLS = "distributed.comm.tls"
REFUSED = {
    "no certificate": ("tls", {}, f"needs certificates; give ca-file, .* in {TLS}"),
    "half of it": ("tls", {f"{TLS}.ca-file": "CERT"}, "needs certificates; give ca-file"),
    "a file that is not there": (
        "tls",
        {f"{TLS}.client.cert": "/nowhere/cert"},
        f"{TLS}.client.cert is no file that is here; got '/nowhere/cert'",
    ),
    "a file of something else": (
        "tls",
        {f"{TLS}.{key}": __file__ for key in ("ca-file", "client.cert", "client.key")},
        f"{TLS} of Dask's configuration cannot be used: ",
    ),
    "an old version": (
        "tls",
        {f"{TLS}.min-version": 1.1},
        f"{TLS}.min-version must be one of 1.2, 1.3; got 1.1",
    ),
    "a foreign certificate": (
        "tls",
        {f"{TLS}.ca-file": "CERT", f"{TLS}.client.cert": "CERT", f"{TLS}.client.key": "KEY"},
        "no Dask scheduler answers at tls://.*: TLS certificate does not match",
    ),
    "no encryption": (
        "tcp",
        {"distributed.comm.require-encryption": True},
        "is not encrypted, which Dask's configuration requires",
    ),
}


@pytest.mark.parametrize("how", REFUSED)
def test_a_scheduler_that_cannot_be_spoken_to_as_configured_is_one_sentence(
    local_client, foreign, how
):
    protocol, values, problem = REFUSED[how]
    pem = {"CERT": foreign.tls_client_cert, "KEY": foreign.tls_client_key}
    address = local_client.scheduler.address.replace("tls", protocol)
    with (
        dask.config.set({key: pem.get(value, value) for key, value in values.items()}),
        pytest.raises(InputError, match=problem),
        open_client(scheduler=address),
    ):
        pass
