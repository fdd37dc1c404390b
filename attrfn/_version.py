"""Which attrfn this is."""

from functools import cache


@cache
def version() -> str:
    """The version that is installed; of a checkout that is not, `0+unknown`."""
    from importlib.metadata import PackageNotFoundError
    from importlib.metadata import version as installed  # loads the parsers of e-mail

    try:
        return installed("attrfn")
    except PackageNotFoundError:
        return "0+unknown"
