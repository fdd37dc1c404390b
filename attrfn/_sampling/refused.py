"""What a user is told of a model that no `vmap` takes."""

from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from typing import Any


@contextmanager
def pointing_to_loops(f: Callable[..., Any], rows: Sequence[Any]) -> Generator[None]:
    """What torch says of a model that no transform takes, and the way around it.

    A model that fails in an ordinary call too, of wrong dtypes say, is let speak for itself.
    """
    try:
        yield
    except RuntimeError as error:
        if "vectorize=False" in str(error) or "randomness error mode" in str(error):
            raise
        if (own := _error_of(f, [column[0] for column in rows])) is not None:
            raise own from None
        raise RuntimeError(
            f"the model failed under torch.func.vmap: {error}\nIf it runs in an ordinary call, pass vectorize=False: "
            'one ordinary call for each step; or vectorize="fold": one for many steps, each a part of its batch, if '
            "the examples do not look at each other"
        ) from error


def _error_of(f: Callable[..., Any], row: Sequence[Any]) -> Exception | None:
    """What `f` raises in an ordinary call, if it does."""
    try:
        f(*row)
    except Exception as error:
        return error
    return None
