"""What matrix products promise: float32's error, and a setting that is taken back."""

import threading

import pytest
import torch

from lthdask.errors import InputError
from lthdask.lottery import runs
from lthdask.training import products as module
from lthdask.training.engine import Engine
from lthdask.training.products import FLOAT32, largest_error, products
from tests.conftest import small_experiment

ONEDNN = Engine("cpu", "float32", matmul="onednn")
DEFAULT = Engine("cpu", "float32", matmul="default")
SETTING = torch.backends.mkldnn.matmul


@pytest.fixture
def rounds_to_bfloat16():
    """Make products round to bfloat16, as oneDNN may where the processor has units for it."""
    largest_error.cache_clear()
    with torch.autocast("cpu", torch.bfloat16):
        yield
    largest_error.cache_clear()


@pytest.fixture
def exact():
    if largest_error() > FLOAT32:
        pytest.skip("oneDNN rounds to bfloat16 here, so its products are refused")


def test_products_that_round_to_bfloat16_are_found(rounds_to_bfloat16):
    assert largest_error() > 100 * FLOAT32


def test_nothing_is_trained_on_products_that_round_to_bfloat16(rounds_to_bfloat16):
    experiment = small_experiment(engine=ONEDNN)
    states = runs.train_dense(experiment, 0)
    next(states)
    with pytest.raises(InputError, match=r"products by oneDNN have an error of .*matmul=default"):
        next(states)


def test_a_worker_whose_products_round_to_bfloat16_is_told_before_anything(rounds_to_bfloat16):
    with pytest.raises(InputError, match="have an error of"):
        runs.choose_engine(ONEDNN, small_experiment())
    free = Engine("cpu", "float32")
    assert runs.choose_engine(free, small_experiment()).engine.matmul == "default"


def test_the_setting_is_that_of_the_engine_for_a_step_and_then_taken_back(exact):
    SETTING.fp32_precision = "ieee"
    try:
        for engine, wanted in ((ONEDNN, "bf16"), (DEFAULT, "ieee"), (Engine("cpu"), "ieee")):
            with products(engine):
                assert SETTING.fp32_precision == wanted
            assert SETTING.fp32_precision == "ieee"
    finally:
        SETTING.fp32_precision = "none"


def test_a_training_leaves_the_setting_as_it_was(exact):
    for _ in runs.train_dense(small_experiment(engine=ONEDNN), 0):
        assert SETTING.fp32_precision == "none"


def test_a_thread_with_other_products_waits_for_those_inside(exact):
    seen = []

    def other():
        with products(DEFAULT):
            seen.append(SETTING.fp32_precision)

    thread = threading.Thread(target=other)
    with products(ONEDNN):
        thread.start()
        while not module._turn.locked() and thread.is_alive():
            pass
        seen.append("inside")
    thread.join()
    assert seen == ["inside", "none"]


def test_threads_with_the_same_products_compute_at_once(exact):
    both, seen = threading.Barrier(2, timeout=60), []

    def first():
        with products(ONEDNN):
            both.wait()
        both.wait()

    thread = threading.Thread(target=first)
    thread.start()
    with products(ONEDNN):
        both.wait()
        both.wait()
        seen.append(SETTING.fp32_precision)
    thread.join()
    assert (seen, SETTING.fp32_precision) == (["bf16"], "none")
