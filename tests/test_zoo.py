"""What networks of torchvision and timm promise: their shapes, attention pruned, or a refusal."""

import itertools
import sys
from dataclasses import replace
from importlib.metadata import version

import pytest
import torch
import torchvision.models
from click.testing import CliRunner
from torch import nn

import lthdask
from lthdask import own
from lthdask.commands.main import main
from lthdask.errors import InputError
from lthdask.lottery import runs
from lthdask.lottery.size import sees_one_pixel
from lthdask.lottery.ticket import Ticket
from lthdask.lottery.trial import require_repeatable, require_zeros
from lthdask.networks import zoo
from lthdask.networks.build import Network, build, on_meta
from lthdask.networks.randomness import seeds_of
from lthdask.options import Options
from lthdask.pruning.rule import prunable_weights, require_own_parameters
from lthdask.pruning.sensitivity import hessian_gradients, loss_gradients
from lthdask.storage.schema import Status
from lthdask.study import Study
from lthdask.training.engine import Engine
from lthdask.training.evaluation import recompute_batch_norm
from tests.conftest import ENGINE, equal, ran, small_experiment, small_recipe


@pytest.mark.parametrize(
    "name",
    [
        "alexnet",
        "convnext_tiny",
        "densenet121",
        "efficientnet_b0",
        "maxvit_t",
        "mnasnet0_5",
        "mobilenet_v3_small",
        "regnet_x_400mf",
        "resnet18",
        "shufflenet_v2_x0_5",
        "squeezenet1_1",
        "swin_t",
        "vgg11_bn",
        "vit_b_32",
    ],
)
def test_networks_of_torchvision_have_the_published_number_of_parameters(name):
    network = on_meta(Network(f"torchvision/{name}"), (3, 224, 224), 1000)
    published = torchvision.models.get_model_weights(name).DEFAULT.meta["num_params"]
    assert sum(parameter.numel() for parameter in network.parameters()) == published
    require_own_parameters(network)


@pytest.mark.parametrize(
    ("name", "shape", "count"),
    [  # of timm's model card, at 224 pixels and 1,000 classes; attention and a small image beside
        ("timm/vit_tiny_patch16_224", (3, 224, 224), 5_717_416),
        ("timm/resnet18", (3, 64, 64), 11_689_512),
        ("timm/resnet18", (1, 64, 64), 11_689_512 - 2 * 64 * 49),
    ],
)
def test_networks_of_timm_take_the_channels_of_the_images(name, shape, count):
    network = zoo.require_fit(name, shape, 1000, batch=8)
    assert sum(parameter.numel() for parameter in network.parameters()) == count


def test_weights_of_attention_are_prunable_and_embeddings_positions_and_norms_are_not():
    of_torchvision = on_meta(Network("torchvision/vit_b_16"), (1, 32, 32), 10)
    block = "encoder.layers.encoder_layer_0."
    assert [*prunable_weights(of_torchvision)][:5] == [
        "conv_proj.weight",
        f"{block}self_attention.in_proj_weight",
        f"{block}self_attention.out_proj.weight",
        f"{block}mlp.0.weight",
        f"{block}mlp.3.weight",
    ]
    assert [*prunable_weights(of_torchvision)][-1] == "heads.head.weight"
    of_timm = on_meta(Network("timm/vit_tiny_patch16_224"), (1, 32, 32), 10)
    assert [*prunable_weights(of_timm)][:3] == [
        "patch_embed.proj.weight",
        "blocks.0.attn.qkv.weight",
        "blocks.0.attn.proj.weight",
    ]
    apart = nn.MultiheadAttention(8, 2, kdim=4, vdim=6)
    assert [*prunable_weights(apart)] == [
        "q_proj_weight",
        "k_proj_weight",
        "v_proj_weight",
        "out_proj.weight",
    ]


@pytest.mark.parametrize(
    ("name", "shape", "problem"),
    [
        (
            "torchvision/googlenet",
            (3, 64, 64),
            "googlenet returns GoogLeNetOutputs for 2 images",
        ),
        (
            "torchvision/inception_v3",
            (3, 32, 32),
            "on images of 32×32 pixels in 3 channels: ",
        ),
        ("torchvision/vit_b_16", (3, 28, 28), "vit_b_16 cannot be trained on images of 28×28"),
        ("torchvision/vit_b_16", (3, 32, 64), "on images of 32×64 pixels in 3 channels: Wrong"),
        ("torchvision/maxvit_t", (3, 32, 32), "maxvit_t cannot be trained on images of 32×32"),
        ("torchvision/alexnet", (3, 8, 8), "in 3 channels: .*; choose another network, or another"),
        ("torchvision/resnet18", (2, 32, 32), "takes images of one or three channels; got inputs"),
        ("torchvision/resnet18", (12,), r"takes images of one or three channels; .* \(12,\)"),
        ("timm/crossvit_tiny_240", (1, 64, 64), "crossvit_tiny_240 cannot be trained on images"),
    ],
)
def test_what_does_not_take_the_images_is_refused_in_one_sentence(name, shape, problem):
    with pytest.raises(InputError, match=problem) as refused:
        zoo.require_fit(name, shape, 10, batch=8)
    assert "\n" not in str(refused.value)


def test_layers_to_which_a_weight_of_zero_is_none_are_refused():
    require_zeros(on_meta(Network("timm/tf_efficientnet_b0"), (3, 64, 64), 10))
    with pytest.raises(InputError, match="stem.conv1.weight cannot be pruned: ScaledStd"):
        require_zeros(on_meta(Network("timm/test_nfnet"), (3, 64, 64), 10))


def test_a_plan_refuses_what_a_run_refuses(tmp_path):
    given = ["plan", "--set", "network.name=torchvision/googlenet", "--out", str(tmp_path / "run")]
    done = CliRunner().invoke(main, given)
    assert done.exit_code == 2
    assert "googlenet returns GoogLeNetOutputs for 2 images" in done.stderr


@pytest.mark.parametrize(
    ("name", "size", "single"),
    [
        ("resnet18", 32, True),
        ("resnet20", 32, False),
        ("mobilenet_v2", 32, False),  # its depthwise convolutions are ours
        ("torchvision/mobilenet_v2", 32, True),
    ],
)
def test_convolutions_of_single_pixels_are_not_in_bfloat16_on_a_cpu(name, size, single):
    assert sees_one_pixel(Network(name), (1, size, size), 10) == single


def test_an_engine_says_that_it_has_float32_for_single_pixels():
    experiment = replace(small_experiment(), network=Network("resnet18"))
    assert experiment.data.shape[1] <= 16
    choice = runs.choose_engine(Engine(device="cpu"), experiment)
    assert choice.engine.precision == "float32"
    assert "reads single pixels" in choice.reason


def test_batch_norm_over_a_single_value_is_refused_and_over_two_images_is_not():
    zoo.require_fit("torchvision/resnet18", (1, 8, 8), 4, batch=8)
    with pytest.raises(InputError, match="more than 1 value per channel when training"):
        zoo.require_fit("torchvision/resnet18", (1, 8, 8), 4, batch=1)


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("resnet50", "unknown network 'resnet50'; .*; torchvision has it, as torchvision/resnet50"),
        ("torchvision.models.ResNet50", "has it, as torchvision/resnet50"),
        ("torchvision:resnet50", "named with a slash: torchvision/resnet50"),
        ("timm:resnet50", "named with a slash: timm/resnet50"),
        ("torchvision/resnet_50", "did you mean torchvision/resnet50"),
        ("torchvision/fcn_resnet50", "has no network 'fcn_resnet50' for images and classes"),
        ("timm/ResNet18", "did you mean timm/resnet18"),
        ("timm/resnet50.a1_in1k", "names trained weights, and a study draws its own; use timm/res"),
        ("timm/hf-hub:someone/network", "timm has no network 'hf-hub:someone/network'"),
        ("perceptron", "or any of torchvision's or timm's, such as torchvision/resnet50"),
    ],
)
def test_a_name_that_is_not_known_is_told_where_it_may_be_found(name, problem):
    with pytest.raises(InputError, match=problem):
        Study.read("digits").changed({"network.name": name})


def test_a_study_with_a_network_of_timm_is_read_without_timm_and_not_run(monkeypatch):
    monkeypatch.setattr(zoo, "find_spec", lambda name: None)
    monkeypatch.setitem(sys.modules, "timm", None)
    network = Study.read("digits").changed({"network.name": "timm/resnet18"}).network
    with pytest.raises(InputError, match="needs timm, which is not installed .*: pip install timm"):
        build(network, (1, 32, 32), 10)


def test_a_small_transformer_is_pruned_and_trained_end_to_end(local_client, tmp_path):
    study = Study.read("digits").changed(
        {
            "network.name": "timm/test_vit",
            "data.image_size": 32,
            "data.validation": 1200,
            "recipe.batch_size": 16,
            "recipe.epochs": 2,
            "pruning.score": "lamp",
            "grid.thresholds": [0.5],
            "grid.rewind_epochs": [0, 1],
            "grid.arms": ["ticket"],
        }
    )
    results = ran(study, local_client, tmp_path / "vit", options=Options(keep="all"))
    assert (results.status == Status.DONE).all()
    counted = results.counted_density.values.flatten().tolist()
    assert counted == pytest.approx([0.5, 0.5], abs=1e-4)
    of_layer = results.layer_density.sel(layer="blocks.3.attn.qkv.weight")
    assert ((of_layer > 0.01) & (of_layer < 0.99)).all()
    ticket = lthdask.load_ticket(tmp_path / "vit" / "tickets" / "ticket-r0-t0.5-k1.safetensors")
    pruned = ~ticket.mask["blocks.3.attn.qkv.weight"]
    assert not (ticket.network.blocks[3].attn.qkv.weight * pruned).any()
    said = CliRunner().invoke(main, ["report", "--methods", str(tmp_path / "vit")]).output
    assert "The network was test_vit of timm" in said
    assert f"timm {(used := version('timm'))}" in said
    assert ticket.about["versions"]["timm"] == used


RANDOM = """
import torch
import torch.nn.functional as F
from torch import nn
from torchvision.ops import StochasticDepth


class Dropping(nn.Module):
    def __init__(self, shape, classes):
        super().__init__()
        self.rows = nn.Linear(shape[-1], 16)
        self.mixed = nn.MultiheadAttention(16, 2, dropout=0.3, batch_first=True)
        self.depth = StochasticDepth(0.5, "row")
        self.last = nn.Linear(16, classes)

    def forward(self, images):
        rows = F.dropout(self.rows(images.flatten(1, 2)), 0.1, self.training)
        if self.training:
            rows = rows + 0.1 * torch.randn_like(rows)
        rows = rows + self.depth(self.mixed(rows, rows, rows)[0])
        return self.last(rows.mean(1))


network = Dropping
"""


@pytest.fixture
def dropping(tmp_path):
    """An experiment whose network draws random numbers in training, in every way."""
    (tmp_path / "dropping.py").write_text(RANDOM)
    own.allow(tmp_path / "dropping.py")
    return small_experiment(Network("dropping:network"), recipe=small_recipe(2))


def dense(experiment, start=None, replicate=0):
    return [s for s, _ in runs.train_dense(experiment, replicate, start, due=lambda: True)]


def test_a_network_that_draws_random_numbers_ends_in_the_same_bits_wherever_it_was_stopped(
    dropping,
):
    require_repeatable(dropping)
    states = dense(dropping)
    assert len(states) == 9
    for state in states[:-1]:
        assert equal(dense(dropping, state)[-1], states[-1])
    mask = {name: torch.rand(w.shape) > 0.5 for name, w in dropping.prunable().items()}
    ticket = Ticket(states[4], mask, {})
    tickets = [s for s, _ in runs.train_ticket(dropping, 0, ticket, due=lambda: True)]
    *_, (end, _) = runs.train_ticket(dropping, 0, ticket, tickets[1])
    assert equal(end, tickets[-1])


def test_each_step_epoch_replicate_and_child_draws_other_numbers():
    drawn = [
        tuple(seeds_of(3, replicate, epoch, 4, child))
        for replicate, epoch, child in itertools.product((0, 1), (1, 2), (0, 1))
    ]
    assert len({seed for of in drawn for seed in of}) == 8 * 4


def test_what_else_draws_between_two_steps_changes_nothing_and_is_not_disturbed(dropping):
    states, undisturbed = dense(dropping), []
    torch.manual_seed(0)
    wanted = [torch.rand(()).item() for _ in states]
    torch.manual_seed(0)
    for state, _ in runs.train_dense(dropping, 0, due=lambda: True):
        undisturbed.append(torch.rand(()).item())
    assert equal(state, states[-1])
    assert undisturbed == wanted


def test_gradients_at_the_initial_weights_and_errors_between_children_are_the_same_each_time(
    dropping,
):
    network, data = dropping.build(), dropping.data
    for score in (loss_gradients, hessian_gradients):
        one, other = (score(network, data, 8, seed=3, replicate=0) for _ in range(2))
        assert all(torch.equal(one[name], other[name]) for name in dropping.prunable())
    normed = nn.Sequential(nn.Dropout(), nn.BatchNorm2d(1), nn.Flatten(), nn.Linear(64, 4))
    recompute_batch_norm(normed, data, ENGINE)
    first = normed[1].running_mean.clone()
    recompute_batch_norm(normed, data, ENGINE)
    assert torch.equal(normed[1].running_mean, first)


def test_known_networks_are_not_seeded_and_others_are_trained_one_by_one(dropping):
    assert all(small_experiment(name).keeps_cells_apart for name in ("lenet_300_100", "resnet20"))
    for name in ("torchvision/mobilenet_v2", "torchvision/vgg11", "timm/resnet18"):
        assert not small_experiment(Network(name)).keeps_cells_apart
    choice = runs.choose_engine(replace(ENGINE, cohort="auto"), dropping)
    assert choice.engine.cohort == 1


TIED = {
    "an embedding": lambda: _tied(nn.ModuleDict({"a": nn.Linear(4, 9), "b": nn.Embedding(9, 4)})),
    "another layer": lambda: _tied(nn.ModuleDict({"a": nn.Linear(4, 4), "b": nn.Linear(4, 4)})),
    "spectral_norm": lambda: nn.utils.parametrizations.spectral_norm(nn.Linear(4, 4)),
    "weight_norm": lambda: nn.utils.parametrizations.weight_norm(nn.Linear(4, 4)),
    "attention": lambda: nn.utils.parametrizations.weight_norm(
        nn.MultiheadAttention(4, 2), "in_proj_weight"
    ),
    "frozen attention": lambda: nn.MultiheadAttention(4, 2).requires_grad_(False),
}


def _tied(layers):
    layers["b"].weight = layers["a"].weight
    return layers


@pytest.mark.parametrize("by", TIED)
def test_weights_that_are_tied_or_computed_are_refused(by):
    with pytest.raises(InputError, match="cannot be pruned: .* neither frozen, nor shared by two"):
        require_own_parameters(TIED[by]())
