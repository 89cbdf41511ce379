"""Loading a kept ticket: its network, its mask and its weights, wherever its file was taken."""

from collections.abc import Iterable, Mapping
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from lthdask.arguments import checked
from lthdask.errors import InputError, as_path, first_sentence, permitted
from lthdask.networks.build import Network, build, is_known, on_meta
from lthdask.own import allow, explained, file_of, is_own, require_given
from lthdask.storage.ticket_file import REWOUND, SUFFIX, read, read_rewound


@dataclass(frozen=True, eq=False, repr=False)
class LoadedTicket:
    """A trained sparse network, as :func:`lthdask.load_ticket` returns it.

    Attributes
    ----------
    network : nn.Module
        With the trained weights, on the CPU, in evaluation mode. Its inputs are normalised:
        ``(inputs - mean) / std``, by ``about["preprocessing"]``.
    mask : dict of str to Tensor
        Name of each prunable weight → ``True`` where it survives; empty where the arm has no mask.
    weights : dict of str to Tensor
        The trained state of the network, batch-norm statistics included; zero where pruned.
    rewound : dict of str to Tensor or None
        The state that it was trained from, zero where pruned; None where it was not kept.
    about : dict
        What the file says: ``network``, ``input`` (shape of one), ``classes``, ``preprocessing``,
        ``metrics``, and where it comes from: ``name`` and ``cell``, ``study``, ``engine``,
        ``versions``.
    """

    network: nn.Module
    mask: dict[str, Tensor]
    weights: dict[str, Tensor]
    rewound: dict[str, Tensor] | None
    about: Mapping[str, Any]

    @property
    def density(self) -> float:
        """Share of the prunable weights that survive."""
        sizes = sum(kept.numel() for kept in self.mask.values())
        return sum(int(kept.sum()) for kept in self.mask.values()) / sizes if sizes else 1.0

    def __repr__(self) -> str:
        """Return in a line what it is."""
        network = self.about["network"]["name"]
        return f"<{self.about.get('name')} of {network}, density {self.density:.3g}>"


@checked
def load_ticket(path: str | Path, code: Iterable[str | Path] = ()) -> LoadedTicket:
    """Load a ticket that a run kept, with its network.

    The file is enough, wherever it lies. Where the weights that it was trained from were kept, they
    are read from the file beside it, whose name ends with ``.rewound.safetensors``.

    Parameters
    ----------
    path : str or Path
        A file in the folder ``tickets`` of a study, or a copy of it.
    code : iterable of path
        Files whose functions the study names, as in :meth:`Study.read`: they are run. Without
        them, a network of one's own is refused.

    Returns
    -------
    LoadedTicket
        With ``network``, ``mask``, ``weights``, ``rewound`` and ``about``.

    Raises
    ------
    InputError
        If it is no ticket, is damaged, or does not fit its network. Nothing in a file is run, no
        name in it is imported, and nothing is allocated that it cannot hold.

    Examples
    --------
    >>> ticket = load_ticket("runs/digits/tickets/ticket-r0-t0.5-k0.safetensors")
    >>> ticket
    <ticket-r0-t0.5-k0 of lenet_300_100, density 0.5>
    >>> ticket.network(torch.zeros(1, *ticket.about["input"])).shape  # after: import torch
    torch.Size([1, 10])
    >>> all((ticket.weights[name][~kept] == 0).all() for name, kept in ticket.mask.items())
    True
    """
    for file in code:
        allow(file)
    path = as_path(path)
    with permitted(path):
        ticket, about = read(path)
    weights = ticket.origin.weights
    network = _network(path, about, weights)
    beside = path.with_name(path.name.removesuffix(SUFFIX) + REWOUND)
    with permitted(beside):
        rewound = read_rewound(beside, ticket.mask)[0] if beside.exists() else None
    return LoadedTicket(network, ticket.mask, weights, rewound, about)


def require_valid(path: Path, about: Mapping[str, Any], weights: Mapping[str, Tensor]) -> None:
    """Refuse weights that do not fit the network that a file names.

    Raises
    ------
    InputError
        If they do not, or it names none, or one of one's own whose code was not given.
    """
    _require_fit(path, _outline(path, about)[1], weights)


def _network(path: Path, about: Mapping[str, Any], weights: Mapping[str, Tensor]) -> nn.Module:
    """Return the network that a file names, with its weights, once they are seen to fit."""
    kind, outline = _outline(path, about)
    _require_fit(path, outline, weights)
    network = outline
    if not is_own(kind.name):
        network = _filled(kind, tuple(about["input"]), about["classes"], outline)
    network.load_state_dict(dict(weights))
    return network.eval()


def _outline(path: Path, about: Mapping[str, Any]) -> tuple[Network, nn.Module]:
    """Return the network that a file names, without storage; one of one's own as it is built."""
    try:
        shape, classes = tuple(about["input"]), about["classes"]
        if not all(type(size) is int and size > 0 for size in (*shape, classes)):
            raise ValueError("shape of an input and number of classes must be whole numbers")
        kind = Network(**about["network"])
    except (TypeError, ValueError, LookupError) as error:
        raise InputError(f"{path} is not a valid ticket: {first_sentence(error)}") from None
    if is_own(kind.name):
        require_given([kind.name])
        with explained(f"{file_of(kind.name)} cannot be run"), torch.random.fork_rng(devices=[]):
            return kind, build(kind, shape, classes)
    try:
        return kind, on_meta(kind, shape, classes)  # which takes no memory, whatever is said
    except Exception as error:
        raise InputError(f"{path} is not a valid ticket: {first_sentence(error)}") from None


def _filled(kind: Network, shape: tuple[int, ...], classes: int, outline: nn.Module) -> nn.Module:
    """Return the network whose outline is known, with any weights."""
    if is_known(kind):
        return deepcopy(outline).to_empty(device="cpu")
    with torch.random.fork_rng(devices=[]):  # it may hold more than weights
        return build(kind, shape, classes)


def _require_fit(path: Path, network: nn.Module, weights: Mapping[str, Tensor]) -> None:
    wanted, found = (
        {name: (tuple(tensor.shape), _exact_in(tensor.dtype)) for name, tensor in tensors.items()}
        for tensors in (network.state_dict(), weights)
    )
    if odd := [name for name in {**wanted, **found} if wanted.get(name) != found.get(name)]:
        raise InputError(f"{path} does not fit the network that it names: {odd[0]} differs")


def _exact_in(kind: torch.dtype) -> torch.dtype:
    """Return the type that holds all values of a type; an export may have 16 bits."""
    return torch.float32 if kind in (torch.float16, torch.bfloat16) else kind
