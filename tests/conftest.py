"""Every test starts from the same random state and leaves the process's as it was."""

import argparse
import gc
import random
import re
import zlib
from collections.abc import Iterator

import numpy as np
import pytest
import torch

torch.set_num_threads(1)  # the tensors are small: threads would wait for each other


def pytest_collection_finish() -> None:
    """What was collected stays: the collector of garbage need not look through it again and again."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 50)


@pytest.fixture(autouse=True)
def fixed_seeds() -> Iterator[None]:
    """Seed Python, NumPy (Captum draws from its old global state) and torch; put all three back after.

    `torch.manual_seed` would note the stack once for each kind of device that is not there.
    """
    python, numpy, torchs = random.getstate(), np.random.get_state(), torch.get_rng_state()  # noqa: NPY002
    random.seed(0)
    np.random.seed(0)  # noqa: NPY002
    torch.default_generator.manual_seed(0)
    with torch.random.fork_rng(enabled=torch.cuda.is_initialized()):
        if torch.cuda.is_initialized():
            torch.cuda.manual_seed_all(0)
        yield
    random.setstate(python)
    np.random.set_state(numpy)  # noqa: NPY002
    torch.set_rng_state(torchs)


@pytest.fixture(autouse=True)
def same_process_state() -> Iterator[None]:
    """Fail a test that leaves the default dtype, the gradient mode or a function mode changed."""
    yield
    assert torch.get_default_dtype() is torch.float32
    assert torch.is_grad_enabled()
    assert torch.overrides._get_current_function_mode_stack() == []


# ---------------------------------------------------------------- devices


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--device", help="where tests make their tensors, by torch.set_default_device: cuda, cpu")
    parser.addoption(
        "--share", type=share, metavar="K/N", help="run the K-th of N shares of the tests, told by their names: 1/4"
    )


def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("cuda") and not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")


@pytest.fixture(autouse=True)
def default_device(request: pytest.FixtureRequest, same_process_state: None) -> Iterator[None]:
    """The device of `--device` for a test and its fixtures; that of torch itself where none is given."""
    device = request.config.getoption("--device")
    if device is None:
        yield
        return
    torch.set_default_device(device)
    yield
    torch.set_default_device(None)


# ---------------------------------------------------------------- shares


def share(text: str) -> tuple[int, int]:
    """K and N of "K/N"."""
    found = re.fullmatch(r"([0-9]+)/([0-9]+)", text)
    k, n = map(int, found.groups()) if found else (0, 0)
    if not 1 <= k <= n:
        raise argparse.ArgumentTypeError(f"{text!r} is no share K/N, with K from 1 to N: 1/4")
    return k, n


def belongs(name: str, k: int, n: int) -> bool:
    """Whether a test is in the K-th of N shares: the same everywhere, and whatever else is collected."""
    return zlib.crc32(name.encode()) % n == k - 1


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    given = config.getoption("--share")
    if given is not None:
        config.hook.pytest_deselected(items=[item for item in items if not belongs(item.nodeid, *given)])
        items[:] = [item for item in items if belongs(item.nodeid, *given)]
