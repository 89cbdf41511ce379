"""Networks of torchvision and of timm, by their names there, such as ``torchvision/resnet50``.

They have the study's number of classes, and random weights: nothing is ever downloaded. Those of
timm take the study's channels; those of torchvision are shown a single channel three times. A
network that is made for one size of images is told the study's, where it takes one. timm is only
imported for a study that names it.
"""

import warnings
from difflib import get_close_matches
from functools import cache
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor, nn

from lthdask.errors import InputError, first_sentence, listed
from lthdask.networks.images import takes_grey_images

Shape = tuple[int, ...]
LIBRARIES = ("torchvision", "timm")


def is_of_zoo(name: str) -> bool:
    """Return whether a name stands for a network of torchvision or timm.

    Examples
    --------
    >>> is_of_zoo("torchvision/resnet50"), is_of_zoo("resnet20"), is_of_zoo("mine:network")
    (True, False, False)
    """
    library, slash, _ = name.partition("/")
    return library in LIBRARIES and bool(slash)


def require_listed(name: str) -> None:
    """Refuse a name that its library does not have.

    Where timm is not installed, none is refused: a study can be read without it.

    Raises
    ------
    InputError
        If there is none of that name.
    """
    library, _, wanted = name.partition("/")
    if (library == "timm" and not find_spec("timm")) or wanted in _names(library):
        return
    names = _names(library)
    if (architecture := wanted.partition(".")[0]) in names:
        raise InputError(
            f"{name} names trained weights, and a study draws its own; use {library}/{architecture}"
        )
    near = [f"{library}/{other}" for other in get_close_matches(wanted.lower(), names, 3)]
    where = "torchvision.models" if library == "torchvision" else library
    raise InputError(
        f"{library} has no network {wanted!r} for images and classes; "
        f"{f'did you mean {listed(near)}? ' if near else ''}{where}.list_models() returns its names"
    )


def hint(wanted: str) -> str:
    """Return what is added to an error about an unknown network: where it may be found.

    Examples
    --------
    >>> hint("ResNet50")
    'torchvision has it, as torchvision/resnet50'
    """
    name = wanted.lower().replace("/", ".").rpartition(".")[2]
    if name in _names("torchvision"):
        return f"torchvision has it, as torchvision/{name}"
    return "or any of torchvision's or timm's, such as torchvision/resnet50 or timm/resnet50"


def build(name: str, shape: Shape, classes: int) -> nn.Module:
    """Return a network of a library, its weights drawn from torch's global random state.

    Parameters
    ----------
    name : str
    shape : tuple of int
        Channels, height and width of an image.
    classes : int

    Raises
    ------
    InputError
        If it cannot be built for such images, or timm is not installed.
    """
    library, _, plain = name.partition("/")
    if library == "timm" and not find_spec("timm"):
        raise InputError(
            f"the network {name} needs timm, which is not installed here: pip install timm"
        )
    require_listed(name)
    if len(shape) != 3 or (library == "torchvision" and shape[0] not in (1, 3)):
        wanted = "images of one or three channels" if library == "torchvision" else "images"
        raise InputError(f"{name} takes {wanted}; got inputs of shape {shape}")
    make = _of_torchvision if library == "torchvision" else _of_timm
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about the weights that others trained
            return make(plain, shape, classes)
    except Exception as error:
        raise _unfit(name, shape, error) from error


def _of_torchvision(name: str, shape: Shape, classes: int) -> nn.Module:
    import torchvision.models

    told = _told_torchvision(name, shape)
    network: nn.Module = torchvision.models.get_model(
        name, weights=None, num_classes=classes, **told
    )
    return takes_grey_images(network)


def _told_torchvision(name: str, shape: Shape) -> dict[str, Any]:
    if name.startswith("vit_") and shape[1] == shape[2]:
        return {"image_size": shape[1]}
    return {"input_size": tuple(shape[1:])} if name.startswith("maxvit") else {}


def _of_timm(name: str, shape: Shape, classes: int) -> nn.Module:
    return _made_by_timm(name, shape, classes)[0]


def _made_by_timm(name: str, shape: Shape, classes: int) -> tuple[nn.Module, dict[str, Any]]:
    """Return a network, and what it was told of the images."""
    import timm

    size = shape[1] if shape[1] == shape[2] else tuple(shape[1:])
    told, given = {"in_chans": shape[0]}, {"pretrained": False, "num_classes": classes}
    try:
        return timm.create_model(name, img_size=size, **told, **given), told | {"img_size": size}
    except TypeError as error:
        if "img_size" not in str(error):
            raise
        return timm.create_model(name, **told, **given), told


def told(name: str, shape: Shape, classes: int) -> dict[str, Any]:
    """Return what the library is told of the study's images when it makes the network.

    Raises
    ------
    InputError
        As :func:`build` does.
    """
    library, _, plain = name.partition("/")
    if library == "torchvision":
        return _told_torchvision(plain, shape)
    build(name, shape, classes)  # or it says why not
    return _made_by_timm(plain, shape, classes)[1]


def outline(name: str, shape: Shape, classes: int) -> nn.Module:
    """Return a network without storage: names and shapes only.

    Raises
    ------
    InputError
        As :func:`build` does.
    """
    try:
        with torch.device("meta"):
            return build(name, shape, classes)
    except InputError:  # it may ask for values, as torchvision's RegNets do
        with torch.random.fork_rng(devices=[]):
            return build(name, shape, classes).to("meta")


def require_fit(name: str, shape: Shape, classes: int, batch: int) -> nn.Module:
    """Refuse a network that cannot be trained on such images: a step without numbers is tried.

    Parameters
    ----------
    name : str
    shape : tuple of int
        Channels, height and width of an image.
    classes : int
    batch : int
        Images in a step.

    Returns
    -------
    Module
        Without storage; a parameter without a gradient takes no part.

    Raises
    ------
    InputError
        If the step fails, or gives something other than logits.
    """
    network, count = outline(name, shape, classes), min(batch, 2)
    for training in (False, True):
        try:
            with torch.device("meta"):
                logits = network.train(training)(torch.empty(count, *shape))
        except Exception as error:
            raise _unfit(name, shape, error) from error
        if not isinstance(logits, Tensor) or logits.shape != (count, classes):
            found = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
            raise InputError(
                f"{name} returns {found} for {count} images{' in training' if training else ''}, "
                f"in place of as many rows of {classes} logits; choose another network"
            )
    logits.sum().backward()
    return network


def _unfit(name: str, shape: Shape, error: Exception) -> InputError:
    size = "×".join(map(str, shape[1:]))
    return InputError(
        f"{name} cannot be trained on images of {size} pixels in {shape[0]} "
        f"channel{'s' if shape[0] > 1 else ''}: {first_sentence(error)}; choose another network, "
        f"or another data.image_size"
    )


@cache
def _names(library: str) -> list[str]:
    if library == "timm":
        import timm

        return list(timm.list_models())
    import torchvision.models  # here: it takes as long as torch

    return list(torchvision.models.list_models(module=torchvision.models))
