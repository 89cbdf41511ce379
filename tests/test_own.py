"""What code of one's own is promised: it runs only when given, everywhere the same, and resumes."""

import itertools
import re
import shutil
import sys
from dataclasses import replace
from pathlib import Path
from types import FunctionType

import numpy as np
import pytest
import torch
from click.testing import CliRunner

import lthdask
from lthdask import own
from lthdask.checks.folder import check, repair
from lthdask.commands.main import main
from lthdask.data.readers import DataSource, load
from lthdask.driver.opening import open_study
from lthdask.driver.plan import plan
from lthdask.errors import InputError
from lthdask.grid import Cell, Grid
from lthdask.lottery import runs
from lthdask.lottery.drawing import draw
from lthdask.lottery.ticket import Ticket
from lthdask.lottery.trial import require_repeatable
from lthdask.networks.build import Network, build
from lthdask.pruning.rule import Pruning, prunable_weights
from lthdask.storage.folder import Folder
from lthdask.storage.schema import Status
from lthdask.study import Study
from lthdask.training.recipe import Optimizer, Schedule
from lthdask.worker.work import Work
from tests.conftest import ENGINE, equal, ran, small_experiment, small_recipe

PAGE = Path(__file__).parent.parent / "docs" / "your-own.md"
WORDS = ["sentences", "network", "rmsprop", "halved", "kept_sign", "initial_signs"]


def blocks(kind, first):
    """The blocks of the page that begin with a line."""
    found = re.findall(rf"```{kind}\n(.*?)```", PAGE.read_text(), re.DOTALL)
    return "\n".join(block for block in found if block.startswith(first))


def written(folder, name, text):
    """A file of code, which studies may run."""
    (folder / name).write_text(text)
    own.allow(folder / name)
    return folder / name


@pytest.fixture
def words(tmp_path):
    """The folder in which the page's files lie."""
    (tmp_path / "mine.py").write_text(blocks("python", "# mine.py"))
    (tmp_path / "words.yaml").write_text(blocks("yaml", "# words.yaml"))
    return tmp_path


@pytest.fixture
def nothing_given(monkeypatch):
    """As in another process, which has been given no code."""

    def forget():
        monkeypatch.setattr(own, "_given", {})
        monkeypatch.setattr(own, "_newest", {})

    return forget


def test_the_page_is_true_and_its_results_are_read_without_the_code(
    words, local_client, nothing_given
):
    study = Study.read(words / "words.yaml", [words / "mine.py"])
    folder = words / "runs"
    results = ran(study, local_client, folder)
    done = results.status.sel(arm="ticket").values
    assert (done == Status.DONE).all()
    assert results.dense_test_accuracy.item() > 90
    assert results.layer.values.tolist() == ["hidden.weight", "classes.weight"]
    assert (folder / "code" / "mine.py").read_bytes() == (words / "mine.py").read_bytes()

    (words / "mine.py").write_text("raise SystemExit('it was run')")
    (folder / "code" / "mine.py").rename(words / "kept.txt")
    nothing_given()
    recorded = Study.parse((folder / "study.yaml").read_text())
    assert [own.plain(name) for name in recorded.own] == [
        "mine:network",
        "mine:sentences",
        "mine:rmsprop",
        "mine:halved",
        "mine:kept_sign",
        "mine:initial_signs",
    ]
    assert results.arm.values.tolist() == ["ticket", "reinit", "mine:initial_signs"]
    own_arm = results.sel(arm="mine:initial_signs")
    assert (own_arm.status == Status.DONE).all()
    assert own_arm.epochs_trained.sel(rewind_epoch=1).values.tolist() == [[2, 2]]
    at_zero = results.sel(rewind_epoch=0).test_accuracy  # where no sign has changed
    np.testing.assert_array_equal(
        at_zero.sel(arm="mine:initial_signs").values, at_zero.sel(arm="ticket").values
    )
    assert check(folder) == []
    for command in ("status", "report", "report --methods"):
        told = CliRunner().invoke(main, [*command.split(), str(folder)])
        assert told.exit_code == 0, told.output
    assert "by mine:rmsprop@" in told.output
    assert "mine:initial_signs@" in told.output
    assert "mine:network@" in (folder / "report.html").read_text()

    (words / "kept.txt").rename(folder / "code" / "mine.py")
    with pytest.raises(InputError, match="runs code of its own, mine:network; if you trust it"):
        lthdask.run(recorded, local_client, folder)
    written(words, "mine.py", (folder / "code" / "mine.py").read_text() + "\n# a change\n")
    with pytest.raises(InputError, match="mine.py is not the file that the study was begun with"):
        lthdask.run(recorded, local_client, folder)
    changed = Study.read(words / "words.yaml")
    with pytest.raises(InputError, match=r"mine.py has changed since .* in .*/code/mine.py"):
        lthdask.run(changed, local_client, folder)
    grown = Study.read(words / "words.yaml", [folder / "code" / "mine.py"])
    more = ran(grown.changed({"grid.thresholds": "0.5,0.7,0.9"}), local_client, folder)
    kept = more.test_accuracy.sel(threshold=[0.5, 0.9])
    np.testing.assert_array_equal(kept.values, results.test_accuracy.values)
    assert np.isfinite(more.test_accuracy.sel(arm="ticket", threshold=0.7)).all()

    for file in ("zarr.json", "metrics/zarr.json", "threshold/c/0"):
        (folder / "results.zarr" / file).unlink()
        assert repair(folder)
        assert check(folder) == []
    for file, problem in (("layer/c/0", "not what was written"), ("", "missing")):
        lost = folder / "results.zarr" / file
        lost.unlink() if file else shutil.rmtree(lost)
        (damage,) = check(folder)
        assert f"results.zarr: it is {problem}; beyond repair" in str(damage)


def test_a_study_runs_no_code_that_was_not_given(words, monkeypatch):
    monkeypatch.chdir(words)
    trace = words / "trace"
    (words / "sly.py").write_text(f"import pathlib\npathlib.Path({str(trace)!r}).touch()\n")
    text = (words / "words.yaml").read_text().replace("mine:network", "sly:network")
    (words / "sly.yaml").write_text(text.replace("mine:", "sly:"))
    told = CliRunner().invoke(main, ["plan", "--study", "sly.yaml"])
    assert told.exit_code == 2
    assert (
        "runs code of its own, sly:sentences; if you trust it, give the file sly.py" in told.stderr
    )
    assert "with --code" in told.stderr
    for name in ("os:system", "sly:network", "os.path:join", "sly:network@0123"):
        with pytest.raises(InputError, match=r"runs code of its own|unknown network"):
            Study.read("digits").changed({"network.name": name})
    assert not trace.exists()
    assert not (words / "runs").exists()


def test_what_cannot_be_run_is_said_in_one_sentence(tmp_path, monkeypatch):
    written(tmp_path, "broken.py", "def network(:\n")
    written(tmp_path, "late.py", "import json\n\nraise KeyError('token')\n")
    written(tmp_path, "gone.py", "raise SystemExit('no licence')\n")
    written(tmp_path, "mine.py", "size = 3\n")
    for name, problem in {
        "broken:network": r"broken.py cannot be run on \S+: SyntaxError: ",
        "late:network": r"late.py cannot be run on \S+: .*late.py, line 3: KeyError: 'token'",
        "gone:network": r"gone.py cannot be run on \S+: .*gone.py, line 1: SystemExit: no licence",
        "mine:network": "mine.py has no function 'network'",
        "mine:size": "mine.py has no function 'size'",
    }.items():
        with pytest.raises(InputError, match=problem):
            Network(name)
    for file, problem in {
        "not-a-name.py": "named as a module is",
        "lost.py": "No such file",
    }.items():
        (tmp_path / "not-a-name.py").touch()
        with pytest.raises(InputError, match=problem):
            own.allow(tmp_path / file)
    monkeypatch.delattr(sys.modules["__main__"], "__file__", raising=False)  # as in a notebook
    here = FunctionType(written.__code__, {"__name__": "__main__"}, "network")
    for given in (lambda shape, classes: None, Network.__post_init__, here, max):
        with pytest.raises(InputError, match="workers cannot import .* put it into a file"):
            Study.read("digits").changed({"network.name": given})
    one, other = tmp_path / "one", tmp_path / "other"
    names = []
    for folder in (one, other):
        folder.mkdir()
        written(folder, "mine.py", f"def network(*of): return {str(folder)!r}\n")
        names.append(Network("mine:network").name)
    with pytest.raises(InputError, match=r"two files named mine.py; rename one"):
        own.codes(names)


def test_a_function_stands_for_its_name(words, monkeypatch):
    monkeypatch.syspath_prepend(words)
    import mine

    study = Study.read("digits").changed({"pruning.score": mine.kept_sign})
    again = Study.from_dict(study.to_dict() | {"pruning": {"score": mine.kept_sign}})
    assert study.pruning.score == again.pruning.score == Pruning("mine:kept_sign").score
    assert Study.parse(study.to_yaml()) == study
    assert study.pruning.needs_initial
    assert not study.pruning.needs_gradients


def test_a_worker_that_lacks_what_the_code_needs_says_so(words, local_client, monkeypatch):
    text = (words / "mine.py").read_text()
    here = words / "here"
    here.mkdir()
    (here / "only_here.py").touch()
    monkeypatch.syspath_prepend(here)
    written(words, "mine.py", "import only_here\n" + text)
    study = Study.read(words / "words.yaml")
    with pytest.raises(InputError, match=r"mine.py cannot be run on .*No module named 'only_here'"):
        lthdask.run(study, local_client, words / "runs")
    written(words, "mine.py", text)  # mended: a folder that holds nothing else is begun anew
    assert study != Study.read(words / "words.yaml")
    Folder(words / "runs").check()


def test_a_worker_runs_the_file_of_the_study_and_no_other(words, nothing_given):
    study = Study.read(words / "words.yaml", [words / "mine.py"])
    folder = Folder(words / "runs")
    folder.make()
    work = Work(study, study.engine.chosen(), folder)
    nothing_given()
    with pytest.raises(InputError, match=r"cannot read the code .*/code/mine.py on .*No such file"):
        work.experiment()
    folder.write_code({"mine.py": b"raise SystemExit('it was run')"})
    with pytest.raises(InputError, match="is not the code that the study was begun with"):
        work.experiment()
    folder.write_code({"mine.py": (words / "mine.py").read_bytes()})
    assert work.experiment().data.classes == 3


PATCHES = """
import torch
from torch import nn


class Patches(nn.Module):  # attention over rows, with a mean that it keeps itself
    def __init__(self, shape, classes):
        super().__init__()
        self.rows = nn.Linear(shape[-1], 16)
        self.mixed = nn.MultiheadAttention(16, 2, batch_first=True)
        self.register_buffer("mean", torch.zeros(16))
        self.register_buffer("scale", torch.full((16,), 2.0), persistent=False)
        self.last = nn.Linear(16, classes)

    def forward(self, images):
        rows = self.rows(images.flatten(1, 2))
        if self.training:
            self.mean.lerp_(rows.detach().mean((0, 1)), 0.1)
        rows = rows - self.mean
        return self.last((rows + self.mixed(rows, rows, rows)[0]).mean(1) * self.scale)


network = Patches


def nadam(parameters, rate, momentum, weight_decay):
    return torch.optim.NAdam(
        [{"params": parameters[:2]}, {"params": parameters[2:]}], rate, weight_decay=weight_decay
    )


def falling(epoch, epochs):
    return 1 - epoch / epochs


def still(epoch, epochs):
    return 0
"""


def of_patches(folder, **changes):
    """The experiment of a network of one's own, which is not a sequence of known layers."""
    written(folder, "patches.py", PATCHES)
    recipe = small_recipe(
        2, optimizer=Optimizer("patches:nadam", 0.01), schedule=Schedule("patches:falling")
    )
    return small_experiment(Network("patches:network"), recipe=recipe, **changes)


def test_a_run_of_ones_own_network_and_optimizer_that_is_stopped_at_any_step_ends_in_the_same_bits(
    tmp_path,
):
    experiment = of_patches(tmp_path)
    require_repeatable(experiment)
    states = [state for state, _ in runs.train_dense(experiment, 0, due=lambda: True)]
    assert [(s.epoch, s.step) for s in states] == [
        (0, 0),
        (0, 1),
        (0, 2),
        (0, 3),
        (1, 0),
        (1, 1),
        (1, 2),
        (1, 3),
        (2, 0),
    ]
    assert {"mu_product", "step", "exp_avg"} <= set(states[1].buffers["rows.weight"])
    for state in states[:-1]:
        before = state.digest()
        *_, (end, _) = runs.train_dense(experiment, 0, state)
        assert equal(end, states[-1])
        assert state.digest() == before
    mask = {name: torch.rand(w.shape) > 0.5 for name, w in experiment.prunable().items()}
    ticket = Ticket(states[4], mask, {})
    tickets = [s for s, _ in runs.train_ticket(experiment, 0, ticket, due=lambda: True)]
    for name, survives in mask.items():
        assert not (tickets[-1].weights[name] * ~survives).any()
    *_, (end, _) = runs.train_ticket(experiment, 0, ticket, tickets[1])
    assert equal(end, tickets[-1])


def test_a_network_of_three_dimensions_trains(tmp_path):
    code = "from torch import nn\ndef network(shape, classes):\n    return nn.Sequential("
    code += "nn.Unflatten(1, (1, 1)), nn.Conv3d(1, 4, (1, 3, 3)), nn.Flatten(), nn.Linear(144, 4))"
    written(tmp_path, "volumes.py", code)
    require_repeatable(small_experiment(Network("volumes:network")))


def test_the_rate_is_that_of_the_schedule_in_every_group_of_ones_own_optimizer(tmp_path):
    experiment = of_patches(tmp_path)
    recipe = replace(experiment.recipe, schedule=Schedule("patches:still"))
    (first, _), *_, (end, _) = runs.train_dense(replace(experiment, recipe=recipe), 0)
    for name, _ in build(experiment.network, (1, 8, 8), 4).named_parameters():
        assert torch.equal(first.weights[name], end.weights[name]), name
    assert not torch.equal(first.weights["mean"], end.weights["mean"])


UNUSABLE = {
    "random numbers of torch's": (
        "network",
        "lambda shape, classes: nn.Sequential(nn.Flatten(), nn.Linear(64, classes), Noise())",
        "must draw its random numbers in training alone, by torch",
    ),
    "random numbers in training alone": (
        "network",
        "lambda shape, classes: nn.Sequential(nn.Flatten(), Always(), nn.Linear(64, classes))",
        "must draw its random numbers in training alone, by torch",
    ),
    "nothing but torch's seed": (
        "network",
        "lambda shape, classes: nn.Sequential(nn.Flatten(), started(nn.Linear(64, classes)))",
        "does not begin with the same weights each time",
    ),
    "something to prune": (
        "network",
        "lambda shape, classes: nn.Sequential(nn.Flatten(), nn.LayerNorm(64))",
        "has no convolution or linear layer, so nothing can be pruned",
    ),
    "a module": (
        "network",
        "lambda shape, classes: 7",
        "must be a torch.nn.Module; got <class 'int'>",
    ),
    "the right shape": (
        "network",
        "lambda shape, classes: nn.Sequential(nn.Flatten(), nn.Linear(63, classes))",
        "a few steps of the study fail on .*: RuntimeError: .*mat1 and mat2",
    ),
    "what it has": (
        "network",
        "lambda shape, classes: nn.Linear(shape[7], classes)",
        "the network cannot be built on .*unusable.py, line 29: IndexError",
    ),
    "an optimizer": (
        "optimizer",
        "lambda *of: torch",
        "must return a torch.optim.Optimizer; got <class",
    ),
    "all parameters": (
        "optimizer",
        "lambda parameters, *of: torch.optim.SGD(parameters[:1])",
        "must have all parameters that it was given",
    ),
    "tensors": (
        "optimizer",
        "lambda parameters, rate, *of: Counting(parameters, {'lr': rate})",
        "the optimizer keeps 'steps', which is no tensor",
    ),
    "tensors of the weights' kind": (
        "optimizer",
        "lambda parameters, rate, *of: Whole(parameters, {'lr': rate})",
        "keeps 'steps' as torch.int64, which PyTorch turns into torch.float32",
    ),
    "one rate": (
        "optimizer",
        "lambda parameters, rate, *of: torch.optim.SGD("
        "[{'params': parameters[:2], 'lr': rate / 10}, {'params': parameters[2:]}], rate)",
        "must have the rate that it was given, 0.1, in every group: .*; got 0.01",
    ),
    "weights that are not frozen": (
        "network",
        "lambda shape, classes: nn.Sequential(nn.Flatten(), "
        "nn.Linear(64, 64).requires_grad_(False), nn.Linear(64, classes))",
        "1.weight cannot be pruned: .* neither frozen",
    ),
    "weights that are not shared": (
        "network",
        "lambda shape, classes: nn.Sequential(nn.Flatten(), one := nn.Linear(64, 64), "
        "tied(one), nn.Linear(64, classes))",
        "1.weight cannot be pruned: .* nor shared by two layers",
    ),
    "weights that are not computed": (
        "network",
        "lambda shape, classes: nn.Sequential(nn.Flatten(), "
        "nn.utils.parametrizations.weight_norm(nn.Linear(64, classes)))",
        "1.weight cannot be pruned: .* nor computed from others",
    ),
    "a schedule of every epoch": (
        "schedule",
        "lambda epoch, epochs: [1, 0.1][int(epoch)]",
        "the schedule fails on .*unusable.py, line 29: IndexError",
    ),
    "no state beside": (
        "optimizer",
        "lambda parameters, rate, *of: Forgetful(parameters, {'lr': rate, 'steps': 0})",
        "stopped and resumed would end in other bits",
    ),
    "a share": (
        "schedule",
        "lambda epoch, epochs: -1",
        "must return a share of the rate, 0 or more; got -1.0",
    ),
    "one number each": (
        "score",
        "lambda final: final.sum()",
        r"must return one number for each of the [\d,]+ weights; got shape \(\)",
    ),
    "known evidence": (
        "score",
        "lambda weights: weights",
        "must be some of final, initial and gradient",
    ),
    "numbers": ("score", "lambda gradient: gradient / 0 * 0", "is not a number"),
}
CLASSES = """import numpy as np
import torch
from torch import nn
def started(layer):
    nn.init.constant_(layer.weight, np.random.default_rng().random()); return layer
class Noise(nn.Module):
    def forward(self, logits):
        return logits * float(np.random.default_rng().random())
class Always(nn.Module):
    def forward(self, images):
        return nn.functional.dropout(images)
class Counting(torch.optim.Optimizer):
    def step(self):
        for p in self.param_groups[0]["params"]:
            self.state[p]["steps"] = self.state[p].get("steps", 0) + 1
class Whole(torch.optim.Optimizer):
    def step(self):
        for p in self.param_groups[0]["params"]:
            self.state[p]["steps"] = self.state[p].get("steps", torch.tensor(0)) + 1
def tied(layer):
    other = nn.Linear(64, 64)
    other.weight = layer.weight
    return other
class Forgetful(torch.optim.Optimizer):
    def step(self):
        self.defaults["steps"] += 1
        for p in self.param_groups[0]["params"]:
            p.data.add_(p.grad, alpha=-self.param_groups[0]["lr"] / self.defaults["steps"])
"""


@pytest.mark.parametrize("needed", UNUSABLE)
def test_code_with_which_training_would_fail_is_refused_before_it_begins(tmp_path, needed):
    kind, code, problem = UNUSABLE[needed]
    written(tmp_path, "unusable.py", f"{CLASSES}{kind} = {code}\n")
    with pytest.raises(InputError, match=problem):
        require_repeatable(
            small_experiment(
                Network("unusable:network") if kind == "network" else "lenet_300_100",
                pruning=Pruning("unusable:score") if kind == "score" else Pruning(),
                recipe=small_recipe(
                    optimizer=Optimizer(
                        "unusable:optimizer" if kind == "optimizer" else "sgd", 0.1
                    ),
                    schedule=Schedule("unusable:schedule" if kind == "schedule" else "constant"),
                ),
            )
        )


ARM = """import torch
def opposite(weights, mask, initial):
    weights["1.bias"] += 1
    for name in mask:
        initial[name] *= -1
    return {name: initial[name] for name in mask}, mask
def mixed(mask, generator):
    def at(kept): return torch.randperm(kept.numel(), generator=generator).view(kept.shape)
    return {}, {name: kept.flatten()[at(kept)] for name, kept in mask.items()}
"""


def test_an_arm_of_ones_own_starts_from_its_weights_and_under_its_mask(tmp_path):
    written(tmp_path, "arms.py", ARM)
    grid = Grid((0.5,), (0, 1), ("ticket", "arms:mixed", "arms:opposite"))
    experiment = small_experiment(own_arms=grid.arms[1:])
    require_repeatable(experiment)
    dense = {state.epoch: state for state, _ in runs.train_dense(experiment, 0)}
    arms = {cell.arm: cell for cell in grid.cells() if cell.rewind_epoch == 1}
    ticket, mixed, opposite = (draw(experiment, arms[a], dense) for a in grid.axes()["arm"])
    again = draw(experiment, arms["ticket"], dense)
    assert equal(again.start, ticket.start), "what it is given is a copy"
    assert not equal(mixed.start, ticket.start)
    for name, kept in ticket.mask.items():
        assert torch.equal(opposite.start.weights[name], -dense[0].weights[name] * kept)
        assert int(mixed.mask[name].sum()) == int(kept.sum())
        assert torch.equal(mixed.start.weights[name], dense[1].weights[name] * mixed.mask[name])
    assert torch.equal(opposite.start.weights["1.bias"], dense[1].weights["1.bias"])
    assert (opposite.start.epoch, arms["arms:mixed"].begins(4)) == (1, (1, 0))
    *_, (end, _) = runs.train_ticket(experiment, 0, mixed)
    for name, kept in mixed.mask.items():
        assert not (end.weights[name] * ~kept).any(), name


@pytest.mark.parametrize(
    ("code", "problem"),
    [
        ("weights, mask: ({n: torch.rand(m.shape) for n, m in mask.items()}, mask)", "each time"),
        ("weights, masks: (weights, masks)", "must be some of weights, mask, initial and gener"),
        ("weights: weights", "must return two dicts of tensors, weights and mask; got <class"),
        (
            "mask: ({n: m.float()[:1] for n, m in mask.items()}, mask)",
            "as torch.float32 of .*; got",
        ),
        ("mask: ({n: m / 0 for n, m in mask.items()}, mask)", "weights of '1.weight' that are not"),
        ("mask: ({'head': 0}, mask)", "returns weights of 'head', which are not there"),
        (
            "mask: ({}, {n: m.float() for n, m in mask.items()})",
            "as torch.bool of .*; got torch.fl",
        ),
        ("mask: ({}, {n: m | True for n, m in mask.items()})", "mask .* keeps .* and the ticket's"),
        ("mask: mask['head']", "the arm arms:arm fails on .*arms.py, line 2: KeyError"),
    ],
)
def test_an_arm_that_cannot_be_trained_or_compared_is_refused_before_training(
    tmp_path, code, problem
):
    written(tmp_path, "arms.py", f"import torch\narm = lambda {code}\n")
    arms = Grid((0.5,), (0,), ("arms:arm",)).arms
    with pytest.raises(InputError, match=problem):
        require_repeatable(small_experiment(own_arms=arms))


def test_an_arm_that_a_folder_has_is_not_run_unless_its_file_is_given(tmp_path, nothing_given):
    written(tmp_path, "arms.py", ARM)
    digits = Study.read("digits")
    (tmp_path / "study.yaml").write_text(digits.grown(arms=["arms:mixed"]).to_yaml())
    nothing_given()
    with pytest.raises(InputError, match="runs code of its own, arms:mixed"):
        open_study(digits, tmp_path)


DATA = """import numpy as np
import torch
labels = torch.arange(40) % 4
def of(inputs, labels=labels): return (inputs[:30], labels[:30]), (inputs[30:], labels[30:])
def floats(folder): return of(torch.linspace(0, 1, 200, dtype=torch.float64).view(40, 5))
def words(folder): return of(np.arange(120, dtype=np.int16).reshape(40, 3))
def scalars(folder): return of(torch.arange(40) > 20)
def images(folder): return of(torch.arange(40 * 48).reshape(40, 3, 4, 4).byte())
def named(folder): return of(torch.zeros(40, 5), torch.zeros(40))
def short(folder): return of(torch.zeros(39, 5))
def negative(folder): return of(torch.zeros(40, 5), labels - 1)
def single(folder): return of(torch.zeros(40, 5))[:1]
def mixed(folder): return of(torch.zeros(40, 5))[0], of(torch.zeros(40, 6))[1]
def raising(folder): return open(folder / "texts.csv")
"""


def test_data_may_be_any_tensors(tmp_path):
    written(tmp_path, "tensors.py", DATA)
    kinds = {
        "floats": (torch.float32, (5,)),
        "words": (torch.int64, (3,)),
        "scalars": (torch.float32, ()),
    }
    for name, (kind, shape) in kinds.items():
        data, again = (load(DataSource(f"tensors:{name}", validation=6)) for _ in range(2))
        assert (data.shape, data.classes, data.digest) == (shape, 4, again.digest)
        assert [len(split) for split in (data.train, data.validation, data.test)] == [24, 6, 10]
        shown = torch.cat([inputs for inputs, _ in data.epoch(8, 0, 0, 1)])
        assert shown.dtype == kind
        assert sorted(shown.tolist()) == sorted(data.train.images.tolist())
    data = load(DataSource("tensors:images", validation=6, image_size=8, augmentation=("flip",)))
    assert (data.shape, data.train.images.dtype) == ((3, 8, 8), torch.uint8)
    shown = torch.cat([x for x, _ in data.epoch(8, 0, 0, 1)])
    assert abs(float(shown.mean())) < 0.1


@pytest.mark.parametrize(
    ("name", "more", "problem"),
    [
        ("named", {}, "each input needs a label, a whole number; got .* labels of torch.float32"),
        ("short", {}, "each input needs a label, a whole number; got inputs of shape"),
        ("negative", {}, "labels are numbers from 0 on; got -1"),
        ("single", {}, "must return .inputs, labels. twice, for training and for the test"),
        ("mixed", {}, "must return inputs of one kind"),
        ("raising", {}, r"tensors:raising cannot be read on .*tensors.py, line 14: TypeError"),
        ("floats", {"image_size": 8}, "data.image_size is for images, which are uint8"),
        ("words", {"augmentation": ("flip",)}, "data.augmentation is for images"),
        ("floats", {"normalisation": "image"}, "data.normalisation is for images"),
        ("images", {"augmentation": ("crop",)}, "data.augmentation needs data.image_size"),
        ("floats", {"validation": 30}, "leaves none to train on"),
    ],
)
def test_data_that_cannot_be_trained_on_are_refused(tmp_path, name, more, problem):
    written(tmp_path, "tensors.py", DATA)
    with pytest.raises(InputError, match=problem):
        load(DataSource(f"tensors:{name}", **({"validation": 6} | more)))


def test_a_known_network_trains_on_ones_own_data_and_its_checkpoints_have_the_planned_size(
    tmp_path,
):
    written(tmp_path, "tensors.py", DATA)
    keys = {"network.name": "lenet_300_100", "network.width": "1.0", "data.name": "tensors:floats"}
    keys |= {"data.image_size": "0", "data.validation": "6", "recipe.batch_size": "8"}
    study = Study.read("digits").changed(keys)
    found = plan(study, tmp_path / "runs", here=False)
    network = build(study.network, (5,), 4)
    assert found.checkpoint[0] == 4 * sum(p.numel() for p in network.parameters())
    work = Work(study, replace(ENGINE, cohort=1), Folder(tmp_path / "runs"))
    require_repeatable(work.experiment())


def test_cells_of_ones_own_code_are_trained_one_by_one_and_it_is_said(tmp_path):
    experiment = of_patches(tmp_path)
    choice = runs.choose_engine(replace(ENGINE, cohort=4), experiment)
    assert choice.engine.cohort == 1
    assert "cells are trained one by one" in choice.reason
    known = replace(experiment, network=Network("lenet_300_100"))
    assert runs.choose_engine(replace(ENGINE, cohort=4), known).engine.cohort == 1
    known = replace(known, recipe=small_recipe())
    assert runs.choose_engine(replace(ENGINE, cohort=4), known).engine.cohort == 4


def test_a_schedule_of_ones_own_is_a_share_of_the_highest_rate_after_the_warm_up(tmp_path):
    written(tmp_path, "patches.py", PATCHES)
    schedule = Schedule("patches:falling", warmup_epochs=1)
    recipe = small_recipe(4, optimizer=Optimizer("sgd", 0.8), schedule=schedule)
    rates = [recipe.rate(epoch, step, 2) for epoch, step in itertools.product(range(4), range(2))]
    assert rates == pytest.approx([0.4, 0.8, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1])
    with pytest.raises(
        ValueError, match="patches:falling need not have one; give recipe.fine_tune"
    ):
        recipe.fine_tuning()


def test_a_score_of_ones_own_that_is_one_of_ours_draws_the_same_mask(tmp_path):
    code = "def ours(initial, gradient): return (initial * gradient).abs()\n"
    written(tmp_path, "scores.py", code)
    tickets = []
    for score in ("snip", "scores:ours"):
        experiment = small_experiment(pruning=Pruning(score))
        first, end = itertools.islice((s for s, _ in runs.train_dense(experiment, 0)), 2)
        dense = {0: first, experiment.recipe.epochs: end}
        tickets.append(draw(experiment, Cell("ticket", 0, 0.5, 0), dense))
    for name, mask in tickets[0].mask.items():
        assert torch.equal(mask, tickets[1].mask[name])


def test_every_convolution_is_prunable_and_embeddings_are_not(tmp_path):
    kinds = "nn.Conv1d(2, 3, 2), nn.Conv2d(2, 3, 2), nn.Conv3d(2, 3, 2), nn.Linear(2, 3)"
    kinds += ", nn.Embedding(2, 3), nn.EmbeddingBag(2, 3)"
    code = f"from torch import nn\ndef network(*of): return nn.Sequential({kinds})\n"
    written(tmp_path, "layers.py", code)
    built = build(Network("layers:network"), (3,), 2)
    assert list(prunable_weights(built)) == ["0.weight", "1.weight", "2.weight", "3.weight"]
