"""What is said of a network's size: published counts, for code of one's own too."""

import json

import pytest
import torch
from click.testing import CliRunner

from lthdask.commands.main import main
from lthdask.data.inputs import inputs_of
from lthdask.data.readers import READERS, DataSource, load
from lthdask.lottery.size import size_of
from lthdask.networks.build import Network
from lthdask.own import allow

OWN = """
import torch
from torch import nn


class Sentences(nn.Module):
    def __init__(self, classes):
        super().__init__()
        self.words, self.memory = nn.Embedding(50, 16), nn.LSTM(16, 32, batch_first=True)
        self.attention = nn.MultiheadAttention(32, 2, batch_first=True)
        self.classes = nn.Linear(32, classes)

    def forward(self, sentences):
        states, _ = self.memory(self.words(sentences))
        return self.classes(self.attention(states, states, states)[0].mean(1))


def sentences(shape, classes):
    return Sentences(classes)


class Asking(nn.Sequential):
    def forward(self, images):
        return super().forward(-images if images.sum() > 0 else images)


def asking(shape, classes):
    return Asking(nn.Flatten(), nn.Linear(64, classes))
"""


@pytest.fixture
def own(tmp_path):
    file = tmp_path / "mine.py"
    file.write_text(OWN)
    allow(file)
    return file


@pytest.mark.parametrize(
    ("network", "shape", "classes", "multiply_adds"),
    [
        (Network("mobilenet_v2"), (3, 224, 224), 1000, 300_774_272),  # 300 M, Sandler et al. 2018
        (Network("mobilenet_v2"), (1, 32, 32), 10, 6_124_928),
        (Network("resnet18"), (3, 224, 224), 1000, 1_814_073_344),  # 1.8 G, He et al. 2016
        (Network("resnet20"), (3, 32, 32), 10, 40_813_184),  # 41 M
        (Network("lenet_300_100"), (1, 28, 28), 10, 266_200),
    ],
)
def test_multiply_adds_are_the_published_ones(network, shape, classes, multiply_adds):
    assert size_of(network, shape, classes).multiply_adds == multiply_adds


def test_layers_of_ones_own_network_are_counted_and_attention_too(own):
    size = size_of(Network("mine:sentences"), (12,), 3, torch.int64)
    memory, attention = 12 * 4 * 32 * (16 + 32), 12 * 4 * 32 * 32 + 2 * 12 * 12 * 32
    assert size.multiply_adds == memory + attention + 3 * 32


def test_a_network_that_asks_for_values_has_parameters_and_a_reason(own):
    words = ["--study", "digits", "--deploy", "slurm", "--code", str(own), "--out", "none"]
    words += ["--set", "network.name=mine:asking", "--set", "data.image_size=8"]
    told = CliRunner().invoke(main, ["plan", *words])
    assert told.exit_code == 0, told.output
    line = told.output.splitlines()[1]
    assert line.startswith("network mine:asking: 650 parameters, 640 of them prunable; multiply-")
    assert "cannot be counted: Tensor.item() cannot be called on meta tensors" in line
    of = json.loads(CliRunner().invoke(main, ["plan", *words, "--json"]).stdout)["network"]
    assert (of["parameters"], of["multiply_adds"]) == (650, None)


def test_what_a_named_data_set_shows_is_known_before_it_is_read(tmp_path):
    digits = DataSource("digits", image_size=16, validation=200)
    data = load(digits)
    assert inputs_of(digits, None) == (data.shape, data.classes)
    for name in ("train/cat", "train/dog", "train/.hidden", "val/cat"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "train" / "note.txt").touch()
    folder = DataSource("folder", image_size=64, validation=1)
    assert inputs_of(folder, tmp_path) == ((3, 64, 64), 2)
    assert inputs_of(folder, None) is inputs_of(folder, tmp_path / "nowhere") is None
    rest = [DataSource(name, 32, 1) for name in READERS if name != "folder"]
    assert all(inputs_of(source, None) for source in rest)
