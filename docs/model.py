"""Print the table of docs/model.md, computed from the shipped studies: python docs/model.py."""

from math import prod

import torch
from torch import nn

from lthdask.commands.completion import shipped
from lthdask.networks.build import on_meta
from lthdask.pruning.rule import prunable_weights
from lthdask.study import Study

CLASSES = {"folder": 1000}
"""Of a folder of images: as many as ImageNet has. The other shipped data sets have ten."""
GREY = {"digits", "mnist", "fashion_mnist"}


def table() -> str:
    """Return a row for each shipped study."""
    rows = [
        "| study | network | image | parameters | of which prunable | multiply-adds of an image |",
        "|---|---|---|---|---|---|",
    ]
    for name in shipped("studies"):
        study = Study.read(name)
        size, of = study.data.image_size, study.data.name
        shape = (1 if of in GREY else 3, size, size)
        network = on_meta(study.network, shape, CLASSES.get(of, 10))
        sizes = [weight.numel() for weight in network.parameters()]
        prunable = [weight.numel() for weight in prunable_weights(network).values()]
        called = study.network.name
        if called == "mobilenet_v2":
            called += f", form {study.network.form}"
        row = [f"`{name}`", called, "×".join(map(str, shape)), f"{sum(sizes):,}"]
        row += [f"{sum(prunable):,}", f"{multiply_adds(network, shape):,}"]
        rows.append(f"| {' | '.join(row)} |")
    return "\n".join(rows)


def multiply_adds(network: nn.Module, shape: tuple[int, ...]) -> int:
    """Return how many products of a weight and an input one image takes, biases left out."""
    counted = []

    def count(layer: nn.Module, _: object, features: torch.Tensor) -> None:
        places = features.numel() // layer.weight.shape[0]
        counted.append(places * prod(layer.weight.shape))

    for layer in network.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            layer.register_forward_hook(count)
    with torch.no_grad():
        network.eval()(torch.empty(1, *shape, device="meta"))
    return sum(counted)


if __name__ == "__main__":
    print(table())
