"""What an upload promises: only where it is asked for, whole, and a word where it cannot be."""

import base64
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from click.testing import CliRunner
from huggingface_hub import constants

from lthdask.commands.main import main
from lthdask.grid import Cell
from lthdask.study import Study
from tests.studies import made_study, made_ticket

CELL = Cell("ticket", 0, 0.5, 0)


class Hub(BaseHTTPRequestHandler):
    """As much of the hub's interface as an upload needs."""

    def do_GET(self):
        if "/tree/" in self.path:
            self.answer([{"type": "file", "path": "model.onnx", "size": 1, "oid": "0"}])
        else:
            self.answer({"id": "me/ticket"}, self.server.status)

    def do_POST(self):
        sent = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.asked.append((self.path, self.headers["Authorization"], sent))
        host = f"http://{self.headers['Host']}"
        if self.path == "/api/repos/create":
            self.answer({"url": f"{host}/me/ticket"}, self.server.status)
        elif "/preupload/" in self.path:
            files = [
                {"path": file["path"], "uploadMode": "regular", "shouldIgnore": False}
                for file in json.loads(sent)["files"]
            ]
            self.answer({"files": files})
        elif "/commit/" in self.path:
            self.answer({"commitUrl": f"{host}/me/ticket/commit/0", "commitOid": "0"})
        else:
            self.answer({"errors": [], "warnings": []})  # on the card's head

    def answer(self, value, status=200):
        content = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *of):
        pass


@pytest.fixture
def hub(monkeypatch, tmp_path):
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    server.asked, server.status = [], 200
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    address = f"http://127.0.0.1:{server.server_port}"
    monkeypatch.setattr(constants, "ENDPOINT", address)
    monkeypatch.setattr(constants, "AGENT_HARNESSES_PATH", str(tmp_path / "of-the-hub.json"))
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def asked(tmp_path):
    """A command that exports a ticket."""
    run = made_study(tmp_path / "run")
    study = Study.parse((run / "study.yaml").read_text()).to_dict()
    about = {"cell": vars(CELL), "study": study, "metrics": {"test_accuracy": 0.9}}
    made_ticket(run, CELL, about | {"engine": {}, "versions": {"torch": "2.0"}})
    given = ["export", str(run), "-o", str(tmp_path / "out"), "--threshold", "0.5"]
    return [*given, "--rewind-epoch", "0"]


def test_nothing_is_sent_unless_it_is_asked_for(hub, asked):
    assert CliRunner().invoke(main, asked).exit_code == 0
    assert hub.asked == []


def test_what_is_asked_for_is_sent_whole_in_place_of_an_earlier_export(hub, asked, tmp_path):
    done = CliRunner().invoke(main, [*asked, "--upload", "me/ticket"])
    assert done.exit_code == 0, done.output
    assert "uploaded to http://127.0.0.1" in done.output
    assert {token for _, token, _ in hub.asked} == {"Bearer hf_secret"}
    (commit,) = [sent for path, _, sent in hub.asked if "/commit/" in path]
    lines = [json.loads(line) for line in commit.splitlines()]
    sent = {
        line["value"]["path"]: base64.b64decode(line["value"]["content"])
        for line in lines
        if line["key"] == "file"
    }
    assert sent == {file.name: file.read_bytes() for file in (tmp_path / "out").iterdir()}
    gone = [line["value"]["path"] for line in lines if line["key"] == "deletedFile"]
    assert gone == ["model.onnx"]


@pytest.mark.parametrize(
    ("name", "token", "said"),
    [
        ("a/b/c", "hf_secret", "--upload must be USER/NAME, as the hub has it; got 'a/b/c'"),
        ("me/ticket", "", "log in with: hf auth login"),
    ],
)
def test_what_cannot_be_sent_is_refused_before_anything_is_written(
    hub, asked, tmp_path, monkeypatch, name, token, said
):
    monkeypatch.setenv("HF_TOKEN", token)
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "none"))
    done = CliRunner().invoke(main, [*asked, "--upload", name])
    assert done.exit_code == 2
    assert said in done.output
    assert not (tmp_path / "out").exists()
    assert hub.asked == []


def test_a_hub_that_refuses_is_named_and_the_folder_stays(hub, asked, tmp_path):
    hub.status = 403
    done = CliRunner().invoke(main, [*asked, "--upload", "me/ticket"])
    assert done.exit_code == 2
    assert "is written, but not uploaded to me/ticket: " in done.output
    assert "403" in done.output
    assert (tmp_path / "out" / "ticket.safetensors").exists()
