"""What a table of latencies promises: what was kept, as it is and compacted, with true sizes."""

import importlib.util
import re

import numpy as np
import pytest
import torch
from click.testing import CliRunner

from lthdask.commands.main import main
from lthdask.errors import InputError
from lthdask.export import latency as measuring
from lthdask.export.choice import Asked
from lthdask.export.latency import COMPACTED, DENSE, ZEROS, kept_row, latency
from lthdask.grid import Cell
from tests.studies import made_study, made_ticket

LENET = 784 * 300 + 300 + 300 * 100 + 100 + 100 * 10 + 10
PRODUCTS = 784 * 300 + 300 * 100 + 100 * 10
KEPT = [("ticket", 1, 0.5, 2), ("ticket", 1, 0.9, 2), ("ticket", 0, 0.9, 0), ("reinit", 0, 0.5, 0)]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A study of which four tickets were kept, two of them in one row of the map."""
    folder = tmp_path_factory.mktemp("made") / "run"
    made_study(folder, replicates=2, arms=("ticket", "reinit"))
    for cell in KEPT:
        made_ticket(folder, Cell(*cell))
    return folder


@pytest.mark.parametrize(
    ("asked", "row"),
    [
        (Asked(), KEPT[:2]),
        (Asked(rewind_epoch=0.0), KEPT[2:3]),
        (Asked(replicate=0), KEPT[2:3]),
        (Asked(arm="reinit"), KEPT[3:]),
    ],
    ids=str,
)
def test_what_is_measured_is_the_row_of_which_most_was_kept(run, asked, row):
    assert kept_row(run, asked) == [Cell(*cell) for cell in row]


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        (Asked(arm="reinit", replicate=1), "no reinit of .* was kept there; .* with `keep` all"),
        (Asked(arm="random_mask"), "there is no arm random_mask; known: ticket, reinit"),
        (Asked(rewind_epoch=1.0), "there is no rewind_epoch 1.0; known: 0, 2"),
    ],
)
def test_what_was_not_kept_is_refused_with_what_to_do(run, asked, said):
    with pytest.raises(InputError, match=said):
        kept_row(run, asked)


@pytest.fixture
def quick(monkeypatch):
    monkeypatch.setattr(measuring, "ROUNDS", 1)
    monkeypatch.setattr(measuring, "AT_LEAST", 0.0)


def test_sizes_and_products_are_those_of_the_networks(run, quick):
    threads = torch.get_num_threads()
    (dense, ticket, small), notes = latency(run, [Cell(*KEPT[0])])
    assert [row.form for row in (dense, ticket, small)] == [DENSE, ZEROS, COMPACTED]
    assert (dense.parameters, dense.multiply_adds, dense.size) == (LENET, PRODUCTS, 4 * LENET)
    assert ticket.parameters == LENET - PRODUCTS // 2  # every second weight of `made_ticket`
    assert ticket.multiply_adds == PRODUCTS  # zeros are multiplied
    assert ticket.size == (run / f"tickets/{Cell(*KEPT[0])}.safetensors").stat().st_size
    assert small.parameters < LENET  # half of the inputs are read by nothing
    installed = {"torch", "ONNX Runtime"}
    if importlib.util.find_spec("openvino"):
        installed.add("OpenVINO")
    else:
        assert notes == ["OpenVINO was not measured; it comes with pip install openvino"]
    for row in (dense, ticket, small):
        assert row.seconds.keys() == {(runtime, n) for runtime in installed for n in (1, 32)}
        assert all(seconds > 0 for seconds in row.seconds.values())
    assert torch.get_num_threads() == threads


def test_a_runtime_that_computes_something_else_is_not_timed(run, quick, monkeypatch):
    monkeypatch.setattr(
        measuring, "_onnx_runtime", lambda *of: lambda images: np.ones((len(images), 10), "f4")
    )
    with pytest.raises(InputError, match="ONNX Runtime computes something else than PyTorch"):
        latency(run, [Cell(*KEPT[0])])


def test_without_onnx_torch_is_measured_and_the_rest_is_said(run, quick, monkeypatch):
    monkeypatch.setattr(measuring, "find_spec", lambda name: None)
    rows, notes = latency(run, [Cell(*KEPT[0])])
    assert {runtime for runtime, _ in rows[0].seconds} == {"torch"}
    assert notes == ["ONNX Runtime was not measured; it comes with pip install 'lthdask[export]'"]


def test_the_command_prints_a_row_for_each_network(run, quick, monkeypatch):
    monkeypatch.setattr(measuring, "find_spec", lambda name: None)  # ONNX takes seconds to write
    done = CliRunner().invoke(main, ["latency", str(run)], env={"COLUMNS": "200"})
    assert done.exit_code == 0, done.output
    assert len(re.findall(r"dense|with zeros +\d|compacted +\d", done.output)) == 5
    assert f"{LENET:,}" in done.output
    assert "ticket, k = 2, replicate 1, on cpu" in done.output
