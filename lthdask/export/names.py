"""Names of weights in other libraries' networks of the same structure."""

from collections.abc import Iterator, Mapping

from torch import Tensor

from lthdask.errors import InputError
from lthdask.networks.build import Network, on_meta
from lthdask.networks.mobilenet import SEVEN_STAGES

WIDTHS = {0.5: "mobilenetv2_050", 1.0: "mobilenetv2_100", 1.4: "mobilenetv2_140"}
"""Width of MobileNetV2 → what timm calls it."""


def timm_name(network: Network) -> str | None:
    """Return what timm calls a network; None where it has none that computes the same."""
    if network.name.startswith("timm/"):
        return network.name.removeprefix("timm/")
    if network.name == "mobilenet_v2" and network.form == "imagenet":
        return WIDTHS.get(network.width)
    return None


def as_timm(network: Network, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the weights under timm's names.

    Both have the same layers in the same order.

    Raises
    ------
    InputError
        If timm has no such network.
    """
    if timm_name(network) is None:
        raise InputError(f"timm has no network that computes the same as this {network.name}")
    if network.name.startswith("timm/"):
        return dict(weights)
    names = on_meta(network, (3, 32, 32), 10).state_dict()  # a file has them in any order
    layers = dict.fromkeys(name.rpartition(".")[0] for name in names)
    renamed = dict(zip(layers, _mobilenet_v2(), strict=True))
    return {
        f"{renamed[layer]}.{last}": tensor
        for name, tensor in weights.items()
        for layer, _, last in (name.rpartition("."),)
    }


def _mobilenet_v2() -> Iterator[str]:
    yield from ("conv_stem", "bn1")
    for stage, (expansion, _, blocks, _) in enumerate(SEVEN_STAGES):
        layers = ["conv_dw", "bn1", "conv_pw", "bn2"]
        if expansion > 1:
            layers = ["conv_pw", "bn1", "conv_dw", "bn2", "conv_pwl", "bn3"]
        yield from (f"blocks.{stage}.{i}.{layer}" for i in range(blocks) for layer in layers)
    yield from ("conv_head", "bn2", "classifier")
