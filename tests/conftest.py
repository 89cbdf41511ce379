"""Small real parts for the tests: data of a few images, networks of a few weights."""

import hashlib
import json
import os
from contextlib import contextmanager

import dask
import numpy as np
import pytest
import torch

if not torch.cuda.is_available():
    # Without a GPU, kernels run in Triton's interpreter. Triton asks when it is imported.
    os.environ["TRITON_INTERPRET"] = "1"

from hypothesis import settings

import lthdask
from lthdask.data.batches import Data, Images
from lthdask.lottery import runs
from lthdask.lottery.experiment import Experiment
from lthdask.networks.build import Network
from lthdask.pruning.rule import Pruning
from lthdask.storage.manifest import Manifest
from lthdask.storage.results import open_results
from lthdask.storage.schema import GROUPS
from lthdask.training.engine import Engine
from lthdask.training.recipe import Optimizer, Recipe, Schedule

settings.register_profile("busy-machine", deadline=None, derandomize=True)
settings.load_profile("busy-machine")


def pytest_xdist_auto_num_workers(config):
    """Run the whole default selection in two processes, and everything else in one."""
    whole = config.args_source is config.ArgsSource.TESTPATHS
    return 2 if whole and config.option.markexpr.startswith("not ") else 0


ENGINE = Engine(device="cpu", precision="float32")


def images(count: int, size: int = 8, channels: int = 1, classes: int = 4, seed: int = 0) -> Images:
    """Return images whose class is where they are bright, with noise."""
    random = np.random.default_rng(seed)
    labels = np.arange(count) % classes
    pixels = random.integers(0, 120, (count, channels, size, size))
    for image, label in zip(pixels, labels, strict=True):
        image[:, :, label * size // classes : (label + 1) * size // classes] += 80
    return Images(torch.from_numpy(pixels).byte(), torch.from_numpy(labels).long())


def small_data(size: int = 8, channels: int = 1, augmentation: tuple[str, ...] = ()) -> Data:
    """Return 4 batches of 8 training images, and an incomplete one."""
    train = images(35, size, channels, seed=1)
    mean, std = torch.full((channels, 1, 1), 100.0), torch.full((channels, 1, 1), 50.0)
    rest = [images(12, size, channels, seed=seed) for seed in (2, 3)]
    return Data(train, *rest, 4, mean, std, augmentation)


def small_recipe(epochs: int = 4, batch_size: int = 8, **changes: object) -> Recipe:
    optimizer = Optimizer("sgd", rate=0.05, momentum=0.9, weight_decay=1e-3)
    values = {"optimizer": optimizer, "schedule": Schedule("linear", warmup_epochs=1)} | changes
    return Recipe(epochs=epochs, batch_size=batch_size, **values)


def small_experiment(network: str | Network = "lenet_300_100", **changes: object) -> Experiment:
    if isinstance(network, str):
        width = 0.25 if network == "mobilenet_v2" else 1.0
        network = Network(network, width=width)
    values = {
        "network": network,
        "data": small_data(),
        "recipe": small_recipe(),
        "pruning": Pruning("lamp"),
        "seed": 3,
        "engine": ENGINE,
    }
    return Experiment(**(values | changes))


class InDouble(Experiment):
    """An experiment in float64."""

    def build(self, replicate=0, again=False):
        return super().build(replicate, again).double()

    @contextmanager
    def borrowed(self):
        yield self.build()


@pytest.fixture(scope="session")
def dense_run():
    """The checkpoints and metrics of one dense MobileNetV2, trained for 4 epochs."""
    experiment = small_experiment("mobilenet_v2")
    checkpoints, metrics = zip(*runs.train_dense(experiment, replicate=0), strict=True)
    return experiment, checkpoints, metrics


def everything(folder):
    """Return the results of a study with all groups of variables."""
    return open_results(folder, *GROUPS)


def ran(study, client, folder, **more):
    """Run a study, and return its results with all groups of variables."""
    lthdask.run(study, client, folder, **more)
    return everything(folder)


def percent(share: float) -> float:
    """Return a share as results show it."""
    return round(100 * share, 10)


def equal(a, b) -> bool:
    """Whether two checkpoints are equal, bit for bit."""
    return a.digest() == b.digest()


@pytest.fixture(scope="session")
def local_client():
    """A client to two real worker processes."""
    from lthdask.cluster.client import open_client

    with open_client(2, deployment="local") as client:
        yield client


@pytest.fixture
def running(local_client):
    """The address of the scheduler of these workers, with what a second client needs to connect."""
    security = local_client.security
    tls = {
        "ca-file": security.tls_ca_file,
        "client.cert": security.tls_client_cert,
        "client.key": security.tls_client_key,
    }
    with dask.config.set({f"distributed.comm.tls.{key}": value for key, value in tls.items()}):
        yield local_client.scheduler.address


def change_manifest(folder, **values):
    """Write other values into a manifest, with the digest that belongs to them."""
    file = folder / "manifest.json"
    whole = json.loads(file.read_text()) | values
    whole.pop("digest")
    digest = hashlib.sha256(json.dumps(whole, sort_keys=True).encode()).hexdigest()
    file.write_text(json.dumps(whole | {"digest": digest}))


MANIFEST = Manifest({"torch": "2.0"}, "node1", ENGINE, "a test", "", {}, steps=1)
