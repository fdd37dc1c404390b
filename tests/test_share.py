"""`--share K/N`: all tests are in one of N shares each, which is the same everywhere."""

from collections import Counter
from types import SimpleNamespace
from typing import Any

import pytest

from tests.conftest import belongs, pytest_collection_modifyitems, share

NAMES = [f"tests/test_one.py::test_it[{k}-ä]" for k in range(1000)]


def chosen(given: tuple[int, int] | None) -> tuple[list[str], list[str]]:
    """The names that run, in their order, and those that are reported as left out."""
    left: list[Any] = []
    hook = SimpleNamespace(pytest_deselected=lambda items: left.extend(items))
    config: Any = SimpleNamespace(getoption={"--share": given}.__getitem__, hook=hook)
    items: list[Any] = [SimpleNamespace(nodeid=name) for name in NAMES]
    pytest_collection_modifyitems(config, items)
    return [item.nodeid for item in items], [item.nodeid for item in left]


@pytest.mark.parametrize("n", [1, 2, 4, 7])
def test_every_test_is_in_one_share(n: int) -> None:
    shares = [chosen((k, n)) for k in range(1, n + 1)]
    assert Counter(name for run, _ in shares for name in run) == Counter(NAMES)
    assert min(len(run) for run, _ in shares) > 0.7 * len(NAMES) / n
    for run, left in shares:
        assert sorted(run + left) == sorted(NAMES)
        assert run == [name for name in NAMES if name in run]


def test_without_the_option_all_run() -> None:
    assert chosen(None) == (NAMES, [])


def test_a_share_is_the_same_everywhere() -> None:
    """CRC-32 of ISO 3309: of "123456789" it is 0xCBF43926, as the standard's check says."""
    assert [k for k in range(1, 5) if belongs("123456789", k, 4)] == [0xCBF43926 % 4 + 1]


@pytest.mark.parametrize("text", ["", "1", "0/4", "5/4", "1/0", "-1/4", "1/4/4", "a/b", "1.0/4", "1/4 "])
def test_what_is_no_share_is_a_usage_error(text: str, request: pytest.FixtureRequest) -> None:
    with pytest.raises(pytest.UsageError, match=r"argument --share: .* is no share K/N, with K from 1 to N: 1/4"):
        request.config._parser.parse([f"--share={text}"])


def test_a_share_is_two_numbers() -> None:
    assert share("2/4") == (2, 4)
