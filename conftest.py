"""What the examples in docstrings see: `torch`, and attrfn's names without its own."""

from typing import Any

import pytest
import torch

import attrfn


@pytest.fixture(autouse=True)
def example_names(doctest_namespace: dict[str, Any]) -> None:
    doctest_namespace["torch"] = torch
    for name, value in vars(attrfn).items():
        if not name.startswith("_"):
            doctest_namespace.setdefault(name, value)
