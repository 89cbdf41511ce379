"""How large a study's network is, before any worker has looked at the data."""

from dataclasses import replace
from pathlib import Path

from lthdask.data.inputs import inputs_of
from lthdask.driver.opening import Opened
from lthdask.lottery.experiment import Experiment
from lthdask.lottery.size import Size, size_of
from lthdask.networks.build import is_known
from lthdask.own import is_own
from lthdask.worker.work import Work


def own_experiment(opened: Opened, data: str | Path | None) -> Experiment | None:
    """Return the experiment where its data must be read to know the network, else None."""
    if is_known(opened.study.network) and not is_own(opened.study.data.name):
        return None
    engine = replace(opened.engine, device="cpu").chosen()
    return Work(opened.study, engine, opened.folder, data).experiment()


def known_size(opened: Opened, data: str | Path | None) -> Size | None:
    """Return the size of a known network on known data; None if only reading them tells."""
    source, recorded = opened.study.data, opened.data
    known = (recorded.shape, recorded.classes) if recorded else inputs_of(source, data)
    return size_of(opened.study.network, *known) if known else None
