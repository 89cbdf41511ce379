"""Calls of the functions of `lthdask`, as Python text."""

from functools import cache, partial
from pathlib import Path
from tempfile import mkdtemp

import numpy as np
import torch

import lthdask
from lthdask.data.readers import DataSource
from lthdask.grid import Cell, Grid
from lthdask.networks.build import Network
from lthdask.pruning.rule import Pruning
from lthdask.training.recipe import Optimizer, Recipe, Schedule
from tests.bad_inputs.trying import Bad
from tests.studies import made_study, made_ticket

CALLS = [
    # studies
    ("Study.read('digit')", "did you mean 'digits'"),
    ("Study.read(None)", "`which`"),
    ("Study.read(5)", "`which`"),
    ("Study.read(b'digits')", "`which`"),
    ("Study.read(['digits'])", "`which`"),
    ("Study.read(Path('digits'))", None),
    ("Study.read('digits', 'mine.py')", "`code` is a list"),
    ("Study.read('digits', 5)", "`code` is a list"),
    ("Study.read('digits', [5])", "`code`"),
    ("Study.read('digits', [None])", "`code`"),
    ("Study.read('digits', ['nowhere.py'])", "cannot read the code nowhere.py"),
    ("Study.read('digits', ['.'])", "cannot read the code"),
    ("Study.read('digits', ['a\\0b.py'])", "null"),
    ("Study.parse(None)", "`text`"),
    ("Study.parse(b'name: x')", "`text`"),
    ("Study.parse('')", "must be a mapping"),
    ("Study.from_dict(None)", "mapping"),
    ("Study.from_dict([])", "mapping"),
    ("Study.from_dict({})", "'name' is missing"),
    ("Study.from_dict({'name': float('nan')})", "name"),
    ("Study.from_dict({1: 2})", "is missing"),
    ("study.changed(None)", "`changes`"),
    ("study.changed([('seed', 3)])", "`changes`"),
    ("study.changed('seed=3')", "`changes`"),
    ("study.changed({'seed': None})", "seed should be"),
    ("study.changed({'seed': np.nan})", "seed should be"),
    ("study.changed({'seed': 3.5})", "seed should be a valid integer; got 3.5"),
    ("study.changed({'seed': np.float32(3)})", None),
    ("study.changed({'seed': np.int64(3)})", None),
    ("study.changed({'seed': np.array(3)})", None),
    ("study.changed({'seed': np.array([3])})", "seed should be a valid integer; got [3]"),
    ("study.changed({'seed': torch.tensor(3)})", None),
    ("study.changed({'seed': True})", "'seed' takes numbers; got True"),
    ("study.changed({'seed': np.True_})", "'seed' takes numbers; got True"),
    ("study.changed({'seed': 1j})", "got 1j"),
    ("study.changed({'seed': b'3'})", "got b'3'"),
    ("study.changed({'seed': object()})", "got <object"),
    ("study.changed({'seed': lambda: 3})", "workers cannot import"),
    ("study.changed({'seed': {1, 2}})", "seed should be"),
    ("study.changed({'seed': range(3)})", "seed should be"),
    ("study.changed({'seed': np.datetime64('2024-05-01')})", "2024"),
    ("study.changed({'seed': 10**5000})", "10,000 bits"),
    ("study.changed({3: 3})", "unknown key '3'"),
    ("study.changed({None: 3})", "unknown key 'None'"),
    ("study.changed({'grid': {'thresholds': [0.5]}})", "is a block"),
    ("study.changed({'grid.thresholds': np.linspace(0.1, 0.9, 3)})", None),
    ("study.changed({'grid.thresholds': np.eye(2)})", "thresholds"),
    ("study.changed({'grid.thresholds': 'a'})", "thresholds"),
    ("study.changed({'grid.thresholds': None})", "thresholds"),
    ("study.changed({'grid.thresholds': [0.5, None]})", "thresholds"),
    ("study.changed({'grid.thresholds': [0.5, '0.9']})", "0.9"),
    ("study.changed({'grid.thresholds': [True]})", "takes numbers; got True"),
    ("study.changed({'grid.thresholds': {0.5: 1}})", "thresholds"),
    ("study.changed({'grid.thresholds': iter([0.5])})", "got <"),
    ("study.changed({'grid.thresholds': np.array([], float)})", "at least one value"),
    ("study.changed({'grid.arms': [None]})", "arms"),
    ("study.changed({'grid.arms': 'ticket'})", None),
    ("study.changed({'network.name': None})", "name"),
    ("study.changed({'network.name': len})", "workers cannot import"),
    ("study.changed({'data.augmentation': 'flip'})", None),
    ("study.changed({'recipe': study.recipe})", "is a block"),
    ("study.grown(thresholds=None)", "thresholds"),
    ("study.grown(thresholds=0.9)", None),
    ("study.grown(thresholds=[[0.9]])", "thresholds"),
    ("study.grown(replicates=0)", None),
    ("study.grown(replicates=None)", "replicates"),
    ("study.grown(replicates='3')", None),
    ("study.grown(replicates=[1, 2])", "replicates"),
    ("study.grown(replicates=1.5)", "replicates"),
    ("study.grown(arms='x')", "unknown arm 'x'"),
    ("study.grown(rewind_epochs='5it')", "not both"),
    # blocks of it
    ("Grid(0.5, 0)", None),
    ("Grid([0.5], [0], 'x')", "unknown arm 'x'"),
    ("Grid('0.5', [0])", None),
    ("Grid([0.5], None)", "rewind_epochs takes"),
    ("Grid([0.5], [np.inf])", "rewind_epochs"),
    ("Grid([0.5], [0], replicates=None)", "replicates"),
    ("Grid([0.5], [0], replicates=10**9)", "cells"),
    ("Grid([0.5], [0], 5)", "unknown arm '5'"),
    ("Grid([0.5], [0], rewind_epochs_of=5)", "rewind_epochs_of"),
    ("Optimizer('sgd', '0.1')", "rate"),
    ("Optimizer('sgd', None)", "rate"),
    ("Optimizer(None, 0.1)", "None"),
    ("Optimizer('sgd', float('nan'))", "rate"),
    ("Network(5)", "5"),
    ("Network('resnet20', width='1')", "width"),
    ("Pruning(score=None)", "None"),
    ("Pruning(rate='0.2')", "rate"),
    ("DataSource('digits', '8')", "image_size"),
    ("DataSource('digits', None)", "image_size"),
    ("Recipe(None, None, None, None)", "epochs"),
    # options
    ("Options(max_attempts=0)", "`max_attempts` must be 1 or more; got 0"),
    ("Options(max_attempts='3')", "`max_attempts`"),
    ("Options(max_attempts=None)", "`max_attempts`"),
    ("Options(max_attempts=1.5)", "`max_attempts`"),
    ("Options(max_attempts=float('nan'))", "`max_attempts`"),
    ("Options(max_attempts=np.int64(3))", None),
    ("Options(checkpoint_interval='60')", "`checkpoint_interval`"),
    ("Options(checkpoint_interval=-1)", "`checkpoint_interval`"),
    ("Options(checkpoint_interval=float('nan'))", "`checkpoint_interval`"),
    ("Options(checkpoint_interval=None)", "`checkpoint_interval`"),
    ("Options(adaptive='0.5')", "`adaptive`"),
    ("Options(adaptive=0)", "`adaptive`"),
    ("Options(adaptive=True)", "`adaptive`"),
    ("Options(adaptive=np.float64(0.5))", None),
    ("Options(keep=None)", "`keep` is a text"),
    ("Options(keep=0.9)", "`keep` is a text"),
    ("Options(keep=['0.9'])", "`keep` is a text"),
    ("Options(keep='some')", "`keep` takes"),
    ("Options(allow_origin='hub')", "`allow_origin`"),
    ("Options(allow_origin=5)", "`allow_origin`"),
    ("Options(allow_origin=[5])", "`allow_origin`"),
    ("Options(download='yes')", "`download`"),
    ("Options(retry_failed=1)", "`retry_failed`"),
    ("Options(masks_only='no')", "`masks_only`"),
    # runs
    ("run('digits', None)", "`study` is a Study"),
    ("run(None, None)", "`study` is a Study"),
    ("run(study.to_dict(), None)", "`study` is a Study"),
    ("run(study, None)", "`client`"),
    ("run(study, 'tcp://127.0.0.1:1')", "`client`"),
    ("run(study, None, 5)", "`client`"),
    ("submit('digits', None)", "`study` is a Study"),
    ("submit(study, None)", "`client`"),
    ("submit(study, 5)", "`client`"),
    ("run(study, client, 5)", "`out`"),
    ("run(study, client, None, 5)", "`data`"),
    ("run(study, client, options=None)", "`options`"),
    ("run(study, client, options={'keep': 'all'})", "`options`"),
    ("run(study, client, watch=5)", "`watch`"),
    ("run(study, client, out='a\\0b')", "null"),
    ("open_client('2', deployment='local')", "`workers`"),
    ("open_client(0, deployment='local')", "`workers`"),
    ("open_client(-1, deployment='local')", "`workers`"),
    ("open_client(1.5, deployment='local')", "`workers`"),
    ("open_client((2, 1), deployment='local')", "`workers`"),
    ("open_client((1, 2, 3), deployment='local')", "`workers`"),
    ("open_client(True, deployment='local')", "`workers`"),
    ("open_client(1, deployment='cloud')", "unknown deployment 'cloud'"),
    ("open_client(1, deployment=5)", "`deployment`"),
    ("open_client(1, deployment='local', threads=0)", "`threads`"),
    ("open_client(1, deployment='local', threads='1')", "`threads`"),
    ("open_client(1, deployment='local', threads=None)", "`threads`"),
    ("open_client(1, deployment='local', say=None)", "`say`"),
    ("open_client(1, cluster=5)", "`cluster`"),
    ("open_client(1, cluster='nowhere.yaml')", "No such file"),
    ("open_client(1, scheduler='')", "`scheduler` is an address"),
    ("open_client(1, scheduler=5)", "`scheduler`"),
    ("open_client(1, scheduler='nowhere')", "nowhere"),
    # results
    ("open_results(None)", "`path`"),
    ("open_results(5)", "`path`"),
    ("open_results('')", "no results"),
    ("open_results('nowhere')", "nowhere"),
    ("open_results('a\\0b')", "null"),
    ("open_results('x' * 5000)", "xxx"),
    ("open_results(folder)", None),
    ("open_results(str(folder))", None),
    ("open_results(folder / 'results.zarr')", None),
    ("open_results(folder, 'curve')", "did you mean 'curves'"),
    ("open_results(folder, None)", "`groups`"),
    ("open_results(folder, 5)", "`groups`"),
    ("open_results(folder, ['curves'])", "`groups`"),
    ("open_results([folder])", "`path`"),
    ("follow(None)", "`path`"),
    ("follow(folder, 'curve')", "did you mean 'curves'"),
    ("next(follow('nowhere'))", "nowhere"),
    # questions
    ("select(results, rewind_epoch='5it')", "there is no rewind_epoch 5it"),
    ("select(results, rewind_epoch='2')", "there is no rewind_epoch 2"),
    ("select(results, rewind_epoch=None)", "there is no rewind_epoch None"),
    ("select(results, threshold='0.5')", "there is no threshold 0.5"),
    ("select(results, threshold=0.7)", "there is no threshold 0.7; known: 0.5, 0.9"),
    ("select(results, threshold=float('nan'))", "there is no threshold nan"),
    ("select(results, threshold=[])", "at least one"),
    ("select(results, threshold=[[0.5]])", "threshold"),
    ("select(results, threshold=slice(0, 1))", "there is no threshold slice"),
    ("select(results, threshold={0.5})", "there is no threshold"),
    ("select(results, threshold=True)", "there is no threshold True"),
    ("select(results, threshold=np.float32(0.9))", None),
    ("select(results, threshold=np.array([0.5, 0.9]))", None),
    ("select(results, threshold=0.5j)", "there is no threshold"),
    ("select(results, density=0.05)", "there is no density 0.05"),
    ("select(results, arm='tickets')", "there is no arm tickets"),
    ("select(results, arm=5)", "there is no arm 5"),
    ("select(results, arm=None)", "there is no arm None"),
    ("select(results, replicate=7)", "there is no replicate 7"),
    ("select(results, replicate='0')", "there is no replicate 0"),
    ("select(results, replicate=0.5)", "there is no replicate 0.5"),
    ("select(results, replicate=np.int8(0))", None),
    ("select(results, treshold=0.5)", "no axis 'treshold'"),
    ("select(None, arm='ticket')", "open_results"),
    ("select(results.test_accuracy, arm='ticket')", "open_results"),
    ("verdicts(None)", "open_results"),
    ("verdicts(results, 'one')", "`margin`"),
    ("verdicts(results, -1)", "`margin`"),
    ("verdicts(results, float('nan'))", "`margin`"),
    ("verdicts(results, float('inf'))", "`margin`"),
    ("verdicts(results, [1, 2])", "`margin`"),
    ("verdicts(results, True)", "`margin`"),
    ("verdicts(results, np.float32(1))", None),
    ("verdicts(results, level=0)", "`level`"),
    ("verdicts(results, level=5)", "`level`"),
    ("verdicts(results, level='0.05')", "`level`"),
    ("verdicts(results, level=None)", "`level`"),
    ("verdicts(results, accuracy='accuracy')", "unknown accuracy 'accuracy'"),
    ("verdicts(results, accuracy=None)", "`accuracy` is a text; got None"),
    ("verdicts(results, accuracy=['test_accuracy'])", "`accuracy` is a text"),
    ("verdicts(results.mean())", ""),
    ("verdicts(results.isel(threshold=[]))", "no threshold"),
    ("verdicts(results.isel(replicate=[]))", "no replicate"),
    ("verdicts(results.drop_vars('status'))", "open_results"),
    ("verdicts(results)", None),
    ("verdicts(results).max()", None),
    ("(verdicts(alone)).max()", None),
    ("(frontier(alone)).max()", None),
    ("controls(alone)", None),
    ("(early_stop(alone)).max()", None),
    ("verdicts(results).mean()", None),
    ("verdicts(results).min('threshold')", None),
    ("verdicts(results).where(verdicts(results).stable)", None),
    ("frontier(results)", None),
    ("frontier(results, 'one')", "`margin`"),
    ("frontier(results, level=2)", "`level`"),
    ("frontier(results.test_accuracy)", "open_results"),
    ("frontier(results).max()", None),
    ("controls(results)", None),
    ("controls(results).max()", None),
    ("controls(results, level=None)", "`level`"),
    ("controls(None)", "open_results"),
    ("early_stop(results)", None),
    ("early_stop(results).max()", None),
    ("early_stop(results, 5)", "`level`"),
    ("early_stop('digits')", "open_results"),
    ("difference_to_dense(results)", None),
    ("difference_to_dense(results, 'loss')", "unknown accuracy 'loss'"),
    ("difference_to_dense(None)", "open_results"),
    # tickets and masks
    ("load_ticket(None)", "`path`"),
    ("load_ticket(5)", "`path`"),
    ("load_ticket('nowhere')", "cannot read the ticket"),
    ("load_ticket('.')", "cannot read the ticket"),
    ("load_ticket('a\\0b')", "null"),
    ("load_ticket('/dev/zero')", "no regular file"),
    ("load_ticket(ticket)", None),
    ("load_ticket(str(ticket))", None),
    ("load_ticket(ticket, 'mine.py')", "`code` is a list"),
    ("load_ticket(ticket, None)", "`code` is a list"),
    ("load_ticket(ticket, ['nowhere.py'])", "cannot read the code"),
    ("load_ticket(folder / 'study.yaml')", "is not a valid ticket"),
    ("open_mask(None, 0.5)", "`folder`"),
    ("open_mask(5, 0.5)", "`folder`"),
    ("open_mask('nowhere', 0.5)", "nowhere"),
    ("open_mask(folder / 'study.yaml', 0.5)", "study.yaml"),
    ("open_mask(begun, None)", "`threshold` is a number; got"),
    ("open_mask(begun, '0.5')", "`threshold` is a number; got"),
    ("open_mask(begun, [0.5])", "`threshold` is a number; got"),
    ("open_mask(begun, np.array([0.5, 0.9]))", "`threshold` is a number; got"),
    ("open_mask(begun, 0.7)", "no threshold 0.7"),
    ("open_mask(begun, float('nan'))", "no threshold nan"),
    ("open_mask(begun, 0.5, '0')", "`replicate` is a whole number; got"),
    ("open_mask(begun, 0.5, 0.0)", "`replicate` is a whole number; got"),
    ("open_mask(begun, 0.5, True)", "`replicate` is a whole number; got"),
    ("open_mask(begun, 0.5, 5)", "no replicate 5"),
    ("open_mask(begun, 0.5, 0, 'x')", "rewind_epoch takes"),
    ("open_mask(begun, 0.5, 0, 7)", "no rewind_epoch 7"),
    ("open_mask(begun, 0.5, 0, '5it')", "no rewind_epoch 5it"),
    ("open_mask(begun, 0.5, 0, [0])", "`rewind_epoch` is"),
    ("open_mask(begun, 0.5, data=5)", "`data`"),
    ("open_mask(begun, np.float64(0.5))", "was not begun yet"),
]


@cache
def _study(arms: tuple[str, ...]) -> Path:
    """Return the folder of a study with a ticket, made once."""
    place = made_study(Path(mkdtemp()), arms, 2)
    made_ticket(place, Cell("ticket", 0, 0.5, 0))
    return place


def _call(call: str, folder: Path) -> None:
    names = {name: getattr(lthdask, name) for name in lthdask.__all__}
    blocks = (DataSource, Grid, Network, Optimizer, Pruning, Recipe, Schedule)
    names |= {block.__name__: block for block in blocks}
    names |= {"np": np, "torch": torch, "Path": Path, "study": lthdask.Study.read("digits")}
    arms = ("ticket",) if "alone" in call else ("ticket", "random_mask")
    if any(name in call for name in ("folder", "results", "alone", "begun", "ticket)", "ticket,")):
        place = _study(arms)
        names["folder"] = names["begun"] = place
        names["results"] = names["alone"] = lthdask.open_results(place)
        names["ticket"] = place / "tickets" / f"{Cell('ticket', 0, 0.5, 0)}.safetensors"
    if "client" in call and "open_client" not in call:
        names["client"] = Client("127.0.0.1:1")
    eval(call, names)


class Client:
    """What stands for a client where something else is refused before it is asked."""

    def __init__(self, address: str) -> None:
        self.address = address


def rows() -> list[Bad]:
    """Return every bad input of this kind."""
    return [
        Bad(
            "Python",
            call,
            partial(_call, call),
            told,
            starts="deployment='local'" in call,
            slow=told is None and "results" in call,
        )
        for call, told in CALLS
    ]
