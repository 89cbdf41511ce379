"""What masks in files are promised: laid over checkpoint k as they are, or refused beforehand."""

import os
import pickle
import re
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from click.testing import CliRunner
from torch import nn
from torch.nn.utils import prune

import lthdask
from lthdask import given, needs
from lthdask.checks.folder import check
from lthdask.commands.main import main
from lthdask.driver.opening import open_study
from lthdask.errors import InputError
from lthdask.grid import Cell
from lthdask.lottery.ticket import Ticket
from lthdask.storage import checkpoints
from lthdask.storage.folder import Folder
from lthdask.study import Study
from tests.conftest import ran

SMALL = {
    "network.name": "lenet_300_100",
    "data.image_size": "8",
    "recipe.epochs": "2",
    "grid.thresholds": "0.5,0.9",
    "grid.rewind_epochs": "0,1",
    "grid.arms": "ticket,random_mask,reinit",
    "engine.device": "cpu",
    "engine.precision": "float32",
    "engine.matmul": "default",
}
SHAPES = {"1.weight": (300, 64), "3.weight": (100, 300), "5.weight": (10, 100)}


@pytest.fixture(scope="module")
def study():
    return Study.read("digits").changed(SMALL)


@pytest.fixture(scope="module")
def trained(study, local_client, tmp_path_factory):
    folder = tmp_path_factory.mktemp("trained") / "drawn"
    return folder, ran(study, local_client, folder)


@pytest.fixture
def elsewhere(monkeypatch):
    """As in another process, which has read no mask."""
    return lambda: monkeypatch.setattr(given, "_read", {})


def masks(share=0.5):
    """A mask of the small network, of which every n-th weight is pruned."""
    return {
        name: torch.arange(np.prod(of)).view(of) % 10 >= 10 * share for name, of in SHAPES.items()
    }


def written(path, tensors):
    if path.suffix == ".safetensors":
        safetensors.torch.save_file(tensors, path)
    else:
        torch.save(tensors, path)
    return str(path)


def test_masks_that_are_written_and_given_again_train_to_the_same_bits(
    study, trained, local_client, tmp_path
):
    folder, drawn = trained
    for threshold in (0.5, 0.9):
        file = tmp_path / f"of-{threshold}.safetensors"
        arguments = ["masks", str(folder), "--threshold", str(threshold), "-o", str(file)]
        said = CliRunner().invoke(main, arguments)
        assert said.exit_code == 0, said.output
        assert f"of-{threshold}.safetensors, " in said.output
        left = [int(kept.sum()) for kept in safetensors.torch.load_file(file).values()]
        sizes = [np.prod(shape) for shape in SHAPES.values()]
        counted = drawn.layer_density.sel(arm="ticket", threshold=threshold, replicate=0)
        np.testing.assert_allclose(np.divide(left, sizes), counted.isel(rewind_epoch=0))
    files = [str(tmp_path / f"of-{threshold}.safetensors") for threshold in (0.9, 0.5)]
    again = study.changed({"name": "given", "pruning.masks": files})
    assert again.grid.thresholds == (0.5, 0.9)
    assert [re.sub("@.*", "", name) for name in again.pruning.masks] == ["of-0.5", "of-0.9"]
    results = ran(again, local_client, tmp_path / "given")
    for name in ("test_accuracy", "counted_density", "layer_density", "dense_test_accuracy"):
        np.testing.assert_array_equal(results[name], drawn[name])
    assert results.layer_cutoff.isnull().all()
    assert Study.parse((tmp_path / "given" / "study.yaml").read_text()) == again
    assert check(tmp_path / "given") == []
    first, _ = sorted((tmp_path / "given" / "masks").iterdir())
    first.write_bytes(first.read_bytes()[:-1])
    assert [(d.what, d.mend) for d in check(tmp_path / "given")] == [(f"masks/{first.name}", None)]
    mask = lthdask.open_mask(tmp_path / "given", 0.9)
    assert given.digest_of(mask) == again.pruning.masks[1].partition("@")[2]


def test_one_mask_has_one_name_in_every_form(tmp_path):
    kept = masks()
    network = nn.Sequential(nn.Flatten(), *(nn.Linear(*of[::-1]) for of in SHAPES.values()))
    for layer, mask in zip(network[1:], kept.values(), strict=True):
        prune.custom_from_mask(layer, "weight", mask)
    names = dict(zip(("1", "2", "3"), ("1", "3", "5"), strict=True))
    pruned = {names[n[0]] + n[1:]: t for n, t in network.state_dict().items()}
    assert "1.weight_mask" in pruned
    assert "1.weight_orig" in pruned
    forms = {
        "a.safetensors": kept,
        "a.pt": kept,
        "b.safetensors": {f"{name}_mask": of.to(torch.uint8) for name, of in kept.items()},
        "c.pt": pruned,
        "d.pth": {name: of.double().requires_grad_() for name, of in kept.items()},
        "e.safetensors": {name: of.to(torch.bfloat16) for name, of in reversed(kept.items())},
    }
    found = {given.named(written(tmp_path / name, of)) for name, of in forms.items()}
    assert len({name.partition("@")[2] for name in found}) == 1
    assert {name[0] for name in found} == set("abcde")
    assert {given.share_of(name) for name in found} == {0.5}


WRONG = {
    "holds 2 for '1.weight'; 1 keeps": {"1.weight": 2 * torch.ones(300, 64)},
    "holds nan for '3.weight'; 1 keeps": {"3.weight": torch.full((100, 300), torch.nan)},
    "holds 0.3 for '5.weight'": {"5.weight": torch.full((10, 100), 0.3)},
    "is of another network: '7.weight' is no weight that can be pruned": {
        "7.weight": torch.ones(3)
    },
    "is of another network: '1.bias' is no weight": {"1.bias": torch.ones(300)},
    "lacks '3.weight'; give ones for a layer": {"3.weight": None},
    r"'3.weight' has the shape \(300, 100\) there, and \(100, 300\) here": {
        "3.weight": torch.ones(300, 100)
    },
    "holds 85 for '5.weight'; 1 keeps": {
        "5.weight": torch.full((10, 100), 85, dtype=torch.uint8).view(torch.bool)
    },
    "is no mask: .*'5.weight' is sparse, or has no values": {
        "5.weight": torch.ones(10, 100, device="meta")
    },
    "is no mask: .*it holds none": dict.fromkeys(SHAPES) | {"1.weight": torch.ones(0)},
    "prunes nothing": {name: torch.ones(of) for name, of in SHAPES.items()},
    "prunes everything": {name: torch.zeros(of) for name, of in SHAPES.items()},
}


@pytest.mark.parametrize("problem", WRONG)
def test_a_mask_that_does_not_fit_is_refused_in_one_sentence_as_the_study_is_read(
    study, tmp_path, problem
):
    tensors = {name: of for name, of in (masks() | WRONG[problem]).items() if of is not None}
    with pytest.raises(InputError, match=problem) as refused:
        study.changed({"pruning.masks": written(tmp_path / "odd.pt", tensors)})
    assert "\n" not in str(refused.value)


class Hostile:
    def __reduce__(self):
        return exec, ("raise SystemExit('code of the file was run')",)


def test_a_file_that_is_no_mask_is_refused_and_never_run(study, tmp_path):
    files = {
        "code.pt": pickle.dumps({"1.weight": Hostile()}),
        "text.safetensors": b"not a mask",
        "empty.pt": b"",
    }
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(InputError, match=f"{name} is no mask: a safe") as refused:
            study.changed({"pruning.masks": str(tmp_path / name)})
        assert "weights_only" not in str(refused.value)  # which PyTorch advises to turn off
    os.mkfifo(tmp_path / "pipe.pt")
    for endless in (tmp_path / "pipe.pt", "/dev/zero"):
        with pytest.raises(InputError, match="it is no regular file"):
            study.changed({"pruning.masks": str(endless)})
    for name, of in {"list.pt": [1], "nested.pt": {"net": {"1.weight": torch.ones(1)}}}.items():
        with pytest.raises(InputError, match="is no mask: .* of tensors is wanted"):
            study.changed({"pruning.masks": written(tmp_path / name, of)})
    with pytest.raises(InputError, match="cannot read the mask .*gone.pt: No such file"):
        study.changed({"pruning.masks": str(tmp_path / "gone.pt")})
    with pytest.raises(InputError, match="of the masks mine@.*, not all were read here; give the"):
        study.changed({"pruning.masks": "mine@0123456789abcdef"})


def test_masks_are_given_as_paths_and_arrays_and_none_leaves_the_rule(study, tmp_path):
    half, most = (written(tmp_path / f"{share}.PT", masks(share)) for share in (0.5, 0.9))
    named = study.changed({"pruning.masks": [half, most]})
    assert study.changed({"pruning.masks": [Path(half), Path(most)]}) == named
    assert study.changed({"pruning.masks": np.array([half, most])}) == named
    assert study.changed({"pruning.masks": "[]"}) == study
    with pytest.raises(
        InputError, match="^digits: pruning.masks.0 should be a valid string; got 3"
    ):
        study.changed({"pruning.masks": "3"})


def test_a_mask_whose_ends_are_of_other_data_is_refused_before_anything_is_trained(
    study, local_client, tmp_path
):
    other = masks() | {"1.weight": torch.arange(300 * 784).view(300, 784) % 2}
    mnist = study.changed({"pruning.masks": written(tmp_path / "mnist.pt", other)})
    problem = r"'1.weight' has the shape \(300, 784\) there, and \(300, 64\) here"
    with pytest.raises(InputError, match=problem):
        lthdask.run(mnist, local_client, tmp_path / "runs")
    assert not (tmp_path / "runs" / "manifest.json").exists()


def test_a_study_with_masks_goes_on_with_them_alone(study, elsewhere, tmp_path):
    whole = study.changed({"pruning.masks": written(tmp_path / "a.pt", masks())})
    folder = Folder(tmp_path / "runs")
    folder.path.mkdir()
    folder.write_study(whole.to_yaml())
    folder.write_masks(given.contents(whole.pruning.masks))
    flipped = {name: ~kept for name, kept in masks().items()}
    other = study.changed({"pruning.masks": written(tmp_path / "b.pt", flipped)})
    with pytest.raises(InputError, match=r'another study; .* pruning.masks: \["a@.*"\] in the f'):
        open_study(other, folder.path)
    elsewhere()
    again = Study.parse(whole.to_yaml())
    assert open_study(again, folder.path).study == whole
    elsewhere()
    with pytest.raises(InputError, match=r"the mask a@.* is not in .*; give its file as pruning.m"):
        open_study(again, tmp_path / "others")
    (file,) = folder.masks.iterdir()
    written(file, flipped)
    with pytest.raises(InputError, match="is not the mask that the study was begun with"):
        open_study(again, folder.path)


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"pruning.score": "lamp"}, "nothing else of pruning means anything"),
        ({"pruning.spare": "stem"}, "nothing else of pruning means anything"),
        ({"pruning.schedule": "iterative", "pruning.rounds": 2}, "nothing else of pruning means"),
        ({"mask_epoch": 1}, "mask_epoch gives none"),
        ({"grid.thresholds": "0.7"}, r"the shares that the masks prune \(0.5\); leave"),
    ],
)
def test_what_contradicts_given_masks_is_refused(study, tmp_path, changes, problem):
    file = written(tmp_path / "a.pt", masks())
    with pytest.raises(InputError, match=problem):
        study.changed({"pruning.masks": file, **changes})


def test_given_masks_take_the_place_of_the_rule_and_are_told_apart_by_their_shares(study, tmp_path):
    file = written(tmp_path / "a.pt", masks())
    values = study.to_dict()
    values["pruning"] = {"masks": file}  # as a file of YAML may have it
    del values["grid"]["thresholds"]
    assert Study.from_dict(values) == study.changed({"pruning.masks": file})
    rule = {"pruning.score": "layerwise", "pruning.schedule": "iterative", "pruning.rounds": 2}
    assert study.changed(rule).changed({"pruning.masks": file}).grid.thresholds == (0.5,)
    flipped = written(tmp_path / "b.pt", {name: ~kept for name, kept in masks().items()})
    with pytest.raises(InputError, match="prune the same share"):
        study.changed({"pruning.masks": f"{file},{flipped}"})
    masked = study.changed({"pruning.masks": file})
    with pytest.raises(InputError, match="given masks are known before training"):
        open_study(masked, tmp_path / "runs", lthdask.Options(masks_only=True))
    assert needs.checkpoints_for(masked, Cell("random_mask", 0, 0.5, 1), 8) == [1]


@pytest.mark.parametrize(
    ("at", "problem"),
    [
        ({"threshold": 0.7}, "the study has no threshold 0.7; known: 0.5, 0.9"),
        ({"threshold": 0.5, "replicate": 3}, "the study has no replicate 3; known: 0"),
        ({"threshold": "0.5"}, "`threshold` is a number; got '0.5'"),
        ({"threshold": 0.5, "replicate": 0.0}, "`replicate` is a whole number; got 0.0"),
        ({"threshold": 0.5, "rewind_epoch": 2}, "the study has no rewind_epoch 2; known: 0, 1"),
    ],
)
def test_a_mask_that_the_study_has_not_is_refused(trained, at, problem):
    with pytest.raises(InputError, match=problem):
        lthdask.open_mask(trained[0], **at)


def test_the_mask_of_a_later_round_needs_the_ticket_of_the_one_before(
    study, local_client, tmp_path
):
    rounds = {"pruning.schedule": "iterative", "pruning.rounds": 3}
    rounds |= {"grid.rewind_epochs": 0, "grid.arms": "ticket", "pruning.rate": 0.5}
    study, folder = study.changed(rounds), tmp_path / "runs"
    results = ran(study, local_client, folder)
    first = lthdask.open_mask(folder, 0.5)
    counted = results.counted_density.sel(threshold=[0.5, 0.75]).values.ravel()
    total = sum(kept.numel() for kept in first.values())
    assert sum(int(kept.sum()) for kept in first.values()) == counted[0] * total
    with pytest.raises(InputError, match="ticket-r0-t0.5-k0, which are not kept once no cell wai"):
        lthdask.open_mask(folder, 0.75)
    end = checkpoints.load(
        checkpoints.path_of(folder, 0, 2), Folder(folder).manifest().checkpoints[0][2]
    )
    final = Folder(folder).runs.final(Cell("ticket", 0, 0.5, 0))
    checkpoints.save_ticket(final, Ticket(end, first, {}))
    second = lthdask.open_mask(folder, 0.75)
    assert all((second[name] <= first[name]).all() for name in first)
    whole = {name: torch.ones_like(kept) for name, kept in first.items()}
    for wrong in (second, whole):
        checkpoints.save_ticket(final, Ticket(end, wrong, {}))
        with pytest.raises(
            InputError, match="the mask of the round before 0.75 keeps .* of another"
        ):
            lthdask.open_mask(folder, 0.75)
