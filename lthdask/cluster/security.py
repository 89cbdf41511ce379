"""Who may connect to scheduler, workers and nannies: whoever can, runs code as you."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from tempfile import TemporaryDirectory

import dask
from distributed import Security
from distributed.comm import normalize_address

from lthdask.errors import InputError

TLS = "distributed.comm.tls"


def of_this_run() -> Security:
    """Return a certificate that is made for this run and kept in memory.

    Where Dask's configuration has ``distributed.comm.require-encryption: false``, return none:
    everything then speaks plain TCP, and any user of the machine may connect.
    """
    if dask.config.get("distributed.comm.require-encryption") is False:
        return Security()
    return Security.temporary()


def configured_for(address: str) -> Security:
    """Return the certificates of Dask's configuration, for a scheduler that runs already.

    Raises
    ------
    InputError
        If they cannot be used, or the address needs them and there are none, or the
        configuration requires encryption and the address has none.
    """
    encrypted = normalize_address(address).startswith(("tls://", "wss://"))
    for key in ("ca-file", "client.cert", "client.key"):
        file = str(dask.config.get(f"{TLS}.{key}") or "")
        if file and "\n" not in file and not os.path.isfile(file):
            raise InputError(f"{TLS}.{key}: there is no file {file}")
    try:
        security = Security()
        context = security.get_connection_args("client")["ssl_context"]
    except (OSError, ValueError) as error:
        raise InputError(f"{TLS} of Dask's configuration cannot be used: {error}") from None
    if encrypted and not context:
        raise InputError(
            f"{address} needs certificates; give ca-file, client.cert and client.key in {TLS} "
            f"of the cluster file"
        )
    if security.require_encryption and not encrypted:
        raise InputError(
            f"{address} is not encrypted, which Dask's configuration requires "
            f"(distributed.comm.require-encryption); give an address that begins with tls://"
        )
    return security


@contextmanager
def own_scratch() -> Iterator[None]:
    """Have Dask make its folders in one of mode 0700, which is removed at the end.

    Dask imports from them, and would take a ``dask-scratch-space`` that another user has made.
    """
    place = dask.config.get("temporary-directory")
    try:
        scratch = TemporaryDirectory(prefix="lthdask-", dir=place, ignore_cleanup_errors=True)
    except OSError as error:
        where = f"Dask's temporary-directory, {place}," if place else "the folder of TMPDIR"
        raise InputError(
            f"{where} cannot be used for temporary files: {error.strerror}; give another folder"
        ) from None
    with scratch, dask.config.set({"temporary-directory": scratch.name}):
        yield
