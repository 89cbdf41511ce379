"""What networks for images share: which images they take, and the first paper's initialisation."""

from torch import Tensor, nn

from lthdask.errors import InputError


def require_images(shape: tuple[int, ...], least: int = 1) -> None:
    """Refuse inputs that are no grey or coloured images, or have fewer than `least` pixels a side.

    Raises
    ------
    InputError
        Of which the network's name is the subject.
    """
    if len(shape) == 3 and shape[0] in (1, 3) and min(shape[1:]) >= least:
        return
    small = f", of at least {least}×{least} pixels" if least > 1 else ""
    raise InputError(
        f"takes images of 1 or 3 channels{small}; got inputs of shape "
        f"{'×'.join(map(str, shape))}: change data.image_size, or choose another network"
    )


def takes_grey_images(network: nn.Module) -> nn.Module:
    """Return `network`, which from now on shows a single channel to every channel of its stem."""
    network.register_forward_pre_hook(_as_three_channels)
    return network


def _as_three_channels(network: nn.Module, inputs: tuple[Tensor]) -> tuple[Tensor]:
    return (inputs[0].expand(-1, 3, -1, -1),)


def glorot_normal_(network: nn.Module) -> nn.Module:
    """Draw the weights Glorot-normal, as in Frankle & Carbin 2019, figure 2; biases are 0."""
    for layer in network.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            nn.init.xavier_normal_(layer.weight)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
    return network
