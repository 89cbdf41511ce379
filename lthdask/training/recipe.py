"""The recipe: how a network is trained, the same for the dense run and for every ticket."""

import math
from dataclasses import dataclass, replace

from lthdask.arguments import block
from lthdask.errors import InputError
from lthdask.own import chosen, function, is_own, plain

OPTIMIZERS = ("sgd", "adam", "adamw")
SCHEDULES = ("constant", "step", "cosine", "linear", "one_cycle", "cosine_restarts")
MOST_EPOCHS = 100_000
"""Every cell has a curve of so many values."""
FALLING = ("cosine", "linear", "one_cycle", "cosine_restarts")
"""Schedules that end at 0."""
WITH_MILESTONES = ("step", "cosine_restarts")
ADAM_BETAS = (0.9, 0.999)


@block
@dataclass(frozen=True)
class Optimizer:
    """How weights are updated.

    Parameters
    ----------
    name : str
        ``sgd``, ``adam``, ``adamw``, or a function of one's own, of (parameters, rate, momentum,
        weight_decay), which returns a `torch.optim.Optimizer`.
    rate : float
        Highest learning rate, more than 0.
    momentum : float
        SGD momentum, in [0, 1).
    weight_decay : float
        At least 0. It is added to the gradient as ``weight_decay * w``; ``adamw`` multiplies w by
        ``1 - rate * weight_decay`` in place of that, at the rate of the step (Loshchilov & Hutter
        2019, algorithm 2).
    nesterov : bool
        Whether SGD's momentum is Nesterov's (Sutskever et al. 2013), as PyTorch has it.
    decay_norm_and_bias : bool
        Whether weights decay everywhere. If not, the parameters with fewer than two dimensions do
        not: those of batch norm, and biases.
    """

    name: str
    rate: float
    momentum: float = 0.0
    weight_decay: float = 0.0
    nesterov: bool = False
    decay_norm_and_bias: bool = True

    def __post_init__(self) -> None:
        object.__setattr__(self, "name", chosen("optimizer", self.name, OPTIMIZERS))
        if not 0 < self.rate < math.inf:
            raise ValueError(f"rate must be above 0; got {self.rate}")
        if not 0 <= self.momentum < 1:
            raise ValueError(f"momentum must be at least 0 and below 1; got {self.momentum}")
        if self.name in ("adam", "adamw") and self.momentum:
            raise ValueError(f"momentum belongs to sgd; {self.name} keeps its own, {ADAM_BETAS[0]}")
        if self.nesterov and not (self.name == "sgd" and self.momentum):
            raise ValueError("nesterov belongs to sgd, and needs a momentum above 0")
        if is_own(self.name) and not self.decay_norm_and_bias:
            raise ValueError(
                f"decay_norm_and_bias belongs to {', '.join(OPTIMIZERS)}; {plain(self.name)} "
                f"decides itself what decays"
            )
        if not 0 <= self.weight_decay < math.inf:
            raise ValueError(f"weight_decay must be at least 0; got {self.weight_decay}")

    @property
    def buffers(self) -> int:
        """How many numbers it remembers of each weight."""
        return int(self.momentum > 0) if self.name == "sgd" else 2


@block
@dataclass(frozen=True)
class Schedule:
    """The learning rate as a function of the absolute epoch.

    Parameters
    ----------
    name : str
        What follows the warm-up. ``constant`` is the highest rate throughout; ``step``, that rate
        times `factor` at each milestone; ``cosine``, half a cosine down to 0 at the last epoch;
        ``linear``, a straight line down to 0 there; ``cosine_restarts``, half a cosine down to 0 at
        each milestone, where the next begins, and at the last epoch (Loshchilov & Hutter 2017,
        equation 5); or a function of one's own, of the epochs that are done, as a float, and of
        all epochs, which returns the share of the highest rate. ``one_cycle`` rises from `factor`
        times the highest rate over the epochs of the warm-up, falls back over as many, and then
        to 0 at the last epoch, in straight lines (Smith & Topin 2019; Smith 2018, section 4.1).
    warmup_epochs : int
        Epochs over which the rate rises from 0, step by step.
    milestones : tuple of int
        Epochs after which the rate of ``step`` drops, or ``cosine_restarts`` restarts.
    factor : float
        What the rate of ``step`` is multiplied by, or ``one_cycle`` begins with, in (0, 1).
    """

    name: str = "constant"
    warmup_epochs: int = 0
    milestones: tuple[int, ...] = ()
    factor: float = 0.1

    def __post_init__(self) -> None:
        object.__setattr__(self, "name", chosen("schedule", self.name, SCHEDULES))
        if self.warmup_epochs < 0:
            raise ValueError(f"warmup_epochs must be 0 or more; got {self.warmup_epochs}")
        if bool(self.milestones) != (self.name in WITH_MILESTONES):
            raise ValueError(
                f"milestones belong to the schedules {' and '.join(WITH_MILESTONES)}, which need "
                f"them: got {list(self.milestones)} with {self.name!r}"
            )
        if self.name == "cosine_restarts" and self.milestones[0] <= self.warmup_epochs:
            raise ValueError(
                f"milestones of cosine_restarts must lie after the {self.warmup_epochs} epochs of "
                f"warm-up; got {self.milestones[0]}"
            )
        if self.name == "one_cycle" and not self.warmup_epochs:
            raise ValueError("one_cycle rises over warmup_epochs, which must be 1 or more; got 0")
        if list(self.milestones) != sorted(set(self.milestones)):
            raise ValueError(f"milestones must increase; got {list(self.milestones)}")
        if not 0 < self.factor < 1:
            raise ValueError(f"factor must be above 0 and below 1; got {self.factor}")


@block
@dataclass(frozen=True)
class Recipe:
    """How a network is trained: the same for the dense run and for every ticket.

    Parameters
    ----------
    epochs : int
        T, 1 to 100,000.
    batch_size : int
        Images in a step, at least 2. An epoch leaves out an incomplete last batch.
    optimizer : Optimizer
    schedule : Schedule
    label_smoothing : float
        Strength of label smoothing, in [0, 1) (Szegedy et al. 2016).
    fine_tune_rate : float, optional
        Learning rate of the arm ``fine_tune``; by default the last level of the schedule
        (Renda et al. 2020, section 2.3). A schedule that falls to 0 has no such level.
    measure_every : int
        Steps between two measurements inside an epoch; with 0, only epochs' ends are measured.
    """

    epochs: int
    batch_size: int
    optimizer: Optimizer
    schedule: Schedule = Schedule()
    label_smoothing: float = 0.0
    fine_tune_rate: float | None = None
    measure_every: int = 0

    def __post_init__(self) -> None:
        if not 1 <= self.epochs <= MOST_EPOCHS:
            raise ValueError(f"epochs must be 1 to {MOST_EPOCHS:,}; got {self.epochs}")
        if self.batch_size < 2:
            raise ValueError(f"batch_size must be 2 or more; got {self.batch_size}")
        if not self.schedule.warmup_epochs < self.epochs:
            raise ValueError(
                f"warmup_epochs must be fewer than the {self.epochs} epochs; "
                f"got {self.schedule.warmup_epochs}"
            )
        if self.schedule.name == "one_cycle" and 2 * self.schedule.warmup_epochs > self.epochs:
            raise ValueError(
                f"warmup_epochs of one_cycle must be at most half of the {self.epochs} epochs, "
                f"because the rate falls back over as many; got {self.schedule.warmup_epochs}"
            )
        late = [m for m in self.schedule.milestones if not 0 < m < self.epochs]
        if late:
            raise ValueError(
                f"schedule.milestones must lie between 0 and {self.epochs} epochs; got {late[0]}"
            )
        if not 0 <= self.label_smoothing < 1:
            raise ValueError(
                f"label_smoothing must be at least 0 and below 1; got {self.label_smoothing}"
            )
        if self.fine_tune_rate is not None and not 0 < self.fine_tune_rate < math.inf:
            raise ValueError(f"fine_tune_rate must be above 0; got {self.fine_tune_rate}")
        if self.measure_every < 0:
            raise ValueError(f"measure_every must be 0 or more; got {self.measure_every}")

    def looks(self, steps: int) -> float:
        """Return how often an epoch of so many steps is measured inside, on average."""
        if not (every := self.measure_every):
            return 0.0
        whole = self.epochs * steps
        return (whole // every - whole // math.lcm(every, steps)) / self.epochs

    def fine_tuning(self) -> "Recipe":
        """Return the recipe of the arm ``fine_tune``: one rate throughout.

        Raises
        ------
        ValueError
            If the schedule falls to 0 or is one's own, and `fine_tune_rate` is not given.
        """
        rate = self.fine_tune_rate
        if rate is None:
            if self.schedule.name in FALLING or is_own(self.schedule.name):
                why = "falls to 0" if self.schedule.name in FALLING else "need not have one"
                raise ValueError(
                    f"the arm fine_tune trains at the last level of the schedule, but "
                    f"{plain(self.schedule.name)} {why}; give recipe.fine_tune_rate"
                )
            rate = self.rate(self.epochs - 1, 0, 1)
        return replace(
            self, optimizer=replace(self.optimizer, rate=rate), schedule=Schedule("constant")
        )

    def rate(self, epoch: int, step: int, steps: int) -> float:
        """Return the learning rate of one step.

        Parameters
        ----------
        epoch : int
            Number of finished epochs, 0..T - 1.
        step : int
            Number of finished steps in the current epoch, 0..steps - 1.
        steps : int
            Steps in an epoch.
        """
        schedule, height = self.schedule, self.optimizer.rate
        done, warmup = epoch + step / steps, schedule.warmup_epochs
        if schedule.name == "one_cycle":
            return height * _one_cycle(done, warmup, self.epochs, schedule.factor)
        if done < warmup:
            return height * (done + 1 / steps) / warmup
        share = (done - warmup) / (self.epochs - warmup)
        match schedule.name:
            case "step":
                return height * schedule.factor ** sum(m <= epoch for m in schedule.milestones)
            case "cosine":
                return height * (1 + math.cos(math.pi * share)) / 2
            case "cosine_restarts":
                begun = max((m for m in schedule.milestones if m <= epoch), default=warmup)
                ends = min((m for m in schedule.milestones if m > epoch), default=self.epochs)
                return height * (1 + math.cos(math.pi * (done - begun) / (ends - begun))) / 2
            case "linear":
                return height * (1 - share)
            case "constant":
                return height
        return height * _own_share(schedule.name, done, self.epochs)


def _one_cycle(done: float, rising: int, epochs: int, lowest: float) -> float:
    """Return the share of the highest rate: up from `lowest`, down to it, and on to 0."""
    if done < 2 * rising:
        return lowest + (1 - lowest) * (1 - abs(done - rising) / rising)
    return lowest * (epochs - done) / (epochs - 2 * rising)


def _own_share(name: str, done: float, epochs: int) -> float:
    """Return what a schedule of one's own makes of the highest rate, once it is known to be one."""
    share = float(function(name)(done, epochs))
    if not 0 <= share < math.inf:
        raise InputError(
            f"the schedule {plain(name)} must return a share of the rate, 0 or more; got {share} "
            f"after {done:g} epochs"
        )
    return share
