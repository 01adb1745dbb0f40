"""Prints the reference of a schema: `python -m monktalk.common.config package.module:function`."""

from __future__ import annotations

import sys
from importlib import import_module

from monktalk.common.config.reference import reference
from monktalk.common.config.schema import Schema

_PAGE = """\
# Configuration

<!-- Written by `make docs` from the options that the code declares: change those, not this page. -->

{reference}"""


def page(name: str) -> str:
    """Return the reference page of the schema that `name`, "package.module:function", returns.

    Raises:
        ValueError: `name` has no colon, or what it names returns no schema.
        ImportError, AttributeError: there is no such module or function.
    """
    module, colon, function = name.partition(":")
    if not colon:
        raise ValueError(f"{name!r} is not of the form package.module:function.")
    schema = getattr(import_module(module), function)()
    if not isinstance(schema, Schema):
        raise ValueError(f"{name} returns no configuration schema.")
    return _PAGE.format(reference=reference(schema))


def main(arguments: list[str]) -> int:
    """Print the page of the schema named in `arguments`; returns the exit status."""
    if len(arguments) != 1:
        sys.stderr.write("usage: python -m monktalk.common.config package.module:function\n")
        return 2
    sys.stdout.write(page(arguments[0]))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
