"""Pruning: which weights of a network can be pruned, and the rule that decides."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from typing import Literal

from torch import Tensor, nn

from lthdask.arguments import block
from lthdask.errors import InputError
from lthdask.own import chosen, is_given, is_own, plain
from lthdask.pruning.scores import SCORES, Weights, score_of

MOST_ROUNDS = 1000


@block
@dataclass(frozen=True)
class Pruning:
    """How a mask is taken from the weights of a network.

    Parameters
    ----------
    score : str
        What weights are ranked by. These use the final weights: ``global``, ``|w|`` over the
        whole network; ``layerwise``, ``|w|`` within each layer; ``lamp``, the layer-adaptive
        score of Lee et al. (ICLR 2021). These use the final and the initial weights:
        ``magnitude_increase`` and ``movement``, after Zhou et al. (NeurIPS 2019), who rank them
        within each layer; ``movement`` is not the movement pruning of Sanh et al. (NeurIPS
        2020). These use the initial weights and their gradients: ``snip`` (Lee et al., ICLR
        2019), ``synflow`` (Tanaka et al., NeurIPS 2020), ``grasp`` (Wang et al., ICLR 2020).
        ``random`` uses none. Or a function of one's own, whose
        parameters are some of ``final``, ``initial`` and ``gradient`` (that of the loss by the
        initial weights): the weights of a layer that are not pruned yet, flat.
    allocation : {"uniform", "erk", "balanced"}, optional
        What each layer keeps, where weights are ranked within each: ``uniform``, the same
        share; ``erk``, Erdős–Rényi-Kernel (Evci et al., ICML 2020); ``balanced``, the same
        number (Gadhikar et al., ICML 2023). By default, ``layerwise`` is uniform, and all other
        scores rank over the whole network.
    by : {"share", "cutoff"}
        Whether a threshold is the share of weights to prune, in (0, 1), or the cutoff
        itself: the lowest score that survives, more than 0.
    schedule : {"one_shot", "iterative"}
        Whether all weights are pruned at once, or in rounds, each from the trained weights of
        the round before (Frankle & Carbin, ICLR 2019, section 1).
    spare : tuple of str
        What is never pruned: ``stem``, ``depthwise``, ``classifier``, or names of weights,
        which can contain ``*``.
    rate : float
        Share of the remaining weights that a round prunes, in (0, 1).
    rounds : int
        Rounds of iterative pruning, at least 1; 0 with ``one_shot``.
    layer_rates : mapping of str to float
        Where layers are pruned uniformly, the rates of those that differ from `rate`, each in
        (0, 1), by name as in `spare`. Frankle & Carbin 2019 prune the output layer at half the
        rate of the others. In one shot, a layer loses what it would in the rounds that lead there.
    masks : tuple of str
        Files of masks that are laid over the checkpoints, in place of such a rule: what
        :func:`lthdask.given.named` takes. The thresholds are the shares that they prune.
    """

    score: str = "global"
    by: Literal["share", "cutoff"] = "share"
    schedule: Literal["one_shot", "iterative"] = "one_shot"
    spare: tuple[str, ...] = ()
    rate: float = 0.2
    rounds: int = 0
    layer_rates: Mapping[str, float] = field(default_factory=dict, hash=False)
    allocation: Literal["uniform", "erk", "balanced"] | None = None
    masks: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.score in ("uniform", "erk", "balanced"):
            raise ValueError(
                f"{self.score} is an allocation; give it as allocation, with a score such as random"
            )
        object.__setattr__(self, "score", chosen("score", self.score, SCORES))
        if self.masks and replace(self, masks=()) != Pruning():
            raise ValueError(
                "masks are given, so nothing else of pruning means anything; leave it out"
            )
        if not 0 < self.rate < 1:
            raise ValueError(f"rate must be above 0 and below 1; got {self.rate}")
        for name, rate in self.layer_rates.items():
            if not 0 < rate < 1:
                raise ValueError(f"layer_rates.{name} must be above 0 and below 1; got {rate}")
        if self.score == "global" and self.allocation:
            raise ValueError(
                f"the score global ranks |w| over the whole network; with the allocation "
                f"{self.allocation}, use the score layerwise"
            )
        if self.layer_rates and self.allocated != "uniform":
            raise ValueError(
                f"layer_rates belong to the score layerwise, or to the allocation uniform; got "
                f"{plain(self.score)!r}"
            )
        in_rounds = self.schedule == "iterative" or self.score == "synflow"
        if self.by == "cutoff" and (in_rounds or self.layer_rates or self.allocation):
            raise ValueError(
                "rounds, layer_rates, an allocation and synflow need by: share; got by: cutoff"
            )
        if self.schedule == "one_shot" and self.rounds:
            raise ValueError(f"rounds belong to the iterative schedule; got {self.rounds}")
        known = not is_own(self.score) or is_given(self.score)
        if self.schedule == "iterative" and known and self.before_training:
            raise ValueError(
                f"{plain(self.score)} scores weights before training, so rounds of it teach it "
                f"nothing; prune in one shot"
            )
        if self.schedule == "iterative":
            if not 1 <= self.rounds <= MOST_ROUNDS:
                raise ValueError(f"rounds must be 1 to {MOST_ROUNDS}; got {self.rounds}")
            if len({*self.thresholds(), 1.0}) <= self.rounds:
                raise ValueError(
                    f"{self.rounds} rounds at rate {self.rate} continue after nothing is left "
                    f"to prune; use fewer"
                )

    def thresholds(self) -> tuple[float, ...]:
        """Return the share that is pruned after each round of iterative pruning."""
        return tuple(round(1 - (1 - self.rate) ** n, 12) for n in range(1, self.rounds + 1))

    @property
    def needs_initial(self) -> bool:
        """Whether the score looks at the initial weights."""
        return "initial" in score_of(self.score).needs

    @property
    def needs_gradients(self) -> bool:
        """Whether the score looks at gradients at the initial weights."""
        return "gradients" in score_of(self.score).needs

    @property
    def before_training(self) -> bool:
        """Whether masks are known before training: given, or by chance, or by gradients there."""
        return bool(self.masks) or self.needs_gradients or self.score == "random"

    @property
    def allocated(self) -> str | None:
        """What says how much each layer keeps; None where the whole network is one ranking."""
        return self.allocation or ("uniform" if self.score == "layerwise" else None)

    @property
    def meaning(self) -> tuple[str, str]:
        """Units and description of a threshold."""
        if self.by == "cutoff":
            return f"{plain(self.score)} score", "lowest score that survives pruning"
        return "1", "share of the prunable weights that is pruned"

    def check(self, thresholds: Sequence[float]) -> None:
        """Refuse thresholds that are outside the range of `by`."""
        for value in thresholds:
            if self.by == "share" and not 0 < value < 1:
                raise InputError(
                    f"a threshold is the share to prune, between 0 and 1; got {value:g}"
                )
            if self.by == "cutoff" and not 0 < value < float("inf"):
                raise InputError(f"a cutoff is a score, a number above 0; got {value:g}")


LAYERS = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Linear)
"""Whose `weight` is prunable; subclasses, too."""
ATTENTION = ("in_proj_weight", "q_proj_weight", "k_proj_weight", "v_proj_weight")
"""What torch's attention has: query, key and value as one matrix, or three where sizes differ."""


def prunable_weights(network: nn.Module) -> dict[str, Tensor]:
    """Return the convolution and linear weights by name, in the network's order.

    Those of attention are among them. Biases, norms, embeddings and positions are never prunable.
    The layer's type decides, because these, too, have a parameter named "weight".
    """
    return {
        f"{name}.{own}" if name else own: getattr(layer, own).detach()
        for name, layer in network.named_modules()
        for own in _matrices(layer)
    }


def _matrices(layer: nn.Module) -> Sequence[str]:
    """Return the names of a layer's own prunable weights."""
    if isinstance(layer, LAYERS):
        return ("weight",)
    if isinstance(layer, nn.MultiheadAttention):
        return [name for name in ATTENTION if getattr(layer, name, None) is not None]
    return ()


def require_own_parameters(network: nn.Module) -> None:
    """Refuse prunable weights that are frozen, shared by layers, or computed from others.

    Raises
    ------
    InputError
        If there is one.
    """
    parameters = dict(network.named_parameters())
    held = Counter(id(w) for layer in network.modules() for w in layer._parameters.values())
    for name in prunable_weights(network):
        weight = parameters.get(name)
        if weight is None or not weight.requires_grad or held[id(weight)] > 1:
            raise InputError(
                f"{name} cannot be pruned: the weights of convolutions and linear layers must be "
                f"trained parameters of their own, neither frozen, nor shared by two layers, nor "
                f"computed from others, as by weight_norm"
            )


def spared_weights(weights: Weights, spare: Sequence[str]) -> frozenset[str]:
    """Return the names of those of the prunable `weights` that `spare` keeps whole.

    Raises
    ------
    InputError
        If an entry of `spare` matches nothing, or nothing is left to prune.
    """
    spared = {name for entry in spare for name in _named(weights, entry, "spare")}
    if len(spared) == len(weights):
        raise InputError(f"spare keeps every layer, so nothing can be pruned: {', '.join(spare)}")
    return frozenset(spared)


def rates_by_layer(weights: Weights, pruning: Pruning) -> dict[str, float]:
    """Return the share of its remaining weights that each layer loses in a round.

    Raises
    ------
    InputError
        If an entry of `pruning.layer_rates` matches nothing, or two match one layer.
    """
    rates: dict[str, float] = {}
    for entry, rate in pruning.layer_rates.items():
        for name in _named(weights, entry, "layer_rates"):
            if name in rates:
                raise InputError(
                    f"layer_rates gives {name!r} a second rate through {entry!r}; keep one"
                )
            rates[name] = rate
    return dict.fromkeys(weights, pruning.rate) | rates


def _named(weights: Weights, entry: str, key: str) -> list[str]:
    """Return the names of the weights that an entry of `spare` or `layer_rates` stands for."""
    names = list(weights)
    # One input channel per filter; in the stem, that would be an image of one channel.
    depthwise = [n for n in names[1:] if weights[n].ndim == 4 and weights[n].shape[1] == 1]
    kinds = {"stem": names[:1], "depthwise": depthwise, "classifier": names[-1:]}
    found = kinds.get(entry) or [name for name in names if fnmatchcase(name, entry)]
    if not found:
        raise InputError(
            f"{key} names {entry!r}, which this network does not have; "
            f"use stem, depthwise, classifier, or a weight such as {names[0]!r}"
        )
    return found
