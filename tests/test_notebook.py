"""What a notebook shows, and what interrupting a cell of it does, in a real kernel."""

import os
import time

import pytest

from lthdask.storage.driver import driver_of
from lthdask.storage.folder import Folder

pytestmark = pytest.mark.notebook

BEGIN = """
import lthdask
from lthdask import interactive
from tests.test_flow import TINY
from tests.test_interactive import LONG, is_training, running_tasks, until
interactive.EVERY = 0.001
client = lthdask.open_client(2, deployment="local")
"""


@pytest.fixture
def kernel():
    from jupyter_client.manager import start_new_kernel

    manager, client = start_new_kernel(
        kernel_name="python3", env=os.environ | {"PYTHONPATH": os.getcwd()}
    )
    yield manager, client
    client.stop_channels()
    manager.shutdown_kernel(now=True)


def outputs(client, code, meanwhile=lambda: None):
    """The messages that a cell of a notebook leaves, as (type, content)."""
    asked, found = client.execute(code), []
    meanwhile()
    while True:
        message = client.get_iopub_msg(timeout=120)
        content, kind = message["content"], message["msg_type"]
        if message["parent_header"].get("msg_id") != asked and kind != "update_display_data":
            continue
        if kind == "status" and content["execution_state"] == "idle":
            return found
        found.append((kind, content))


def shown(found, kind="display_data"):
    return [content["data"]["text/plain"] for what, content in found if what == kind]


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning")
def test_a_notebook_shows_what_is_trained_and_interrupting_it_stops_that(kernel, tmp_path):
    manager, client = kernel
    assert "error" not in dict(outputs(client, BEGIN))

    found = outputs(client, f"results = lthdask.run(TINY, client, {str(tmp_path / 'a')!r})")
    assert shown(found) == ["being prepared"]
    bars = shown(found, "update_display_data")
    assert bars[-1].startswith("tickets: 4/4 cells in ")
    assert any("epochs/s" in bar for bar in bars)

    submit = f"submitted = lthdask.submit(TINY, client, {str(tmp_path / 'b')!r})\nsubmitted"
    found = outputs(client, submit)
    (at_once,) = shown(found)
    assert "being prepared" in at_once or "running" in at_once
    found = outputs(client, "for _ in range(20): display(submitted)")
    assert len(shown(found)) == 20  # each once, though a thread draws it meanwhile
    found = outputs(client, "submitted.wait(); submitted._drawing.join()")
    assert "done, 4/4 cells in " in shown(found, "update_display_data")[-1]

    odd = f"lthdask.run(TINY.changed({{'seed': 1}}), client, {str(tmp_path / 'a')!r})"
    told = dict(outputs(client, odd))["error"]
    assert "seed: 0 in the folder, 1 given" in told["evalue"]
    assert told["traceback"] == [f"InputError: {told['evalue']}"]

    folder = Folder(tmp_path / "c")

    def interrupt():
        end = time.monotonic() + 60
        while not folder.runs.attempts("dense-r0"):
            assert time.monotonic() < end
            time.sleep(0.1)
        manager.interrupt_kernel()

    found = outputs(client, f"lthdask.run(LONG, client, {str(folder.path)!r})", interrupt)
    assert dict(found)["error"]["ename"] == "KeyboardInterrupt"
    assert driver_of(folder.path) is None
    found = outputs(client, "print(running_tasks(client), len(client.nthreads()))\nclient.close()")
    assert dict(found)["stream"]["text"] == "[] 2\n"
