"""How the docstrings' own headings are read: `Example:` holds code that runs, `References:` a list."""

import re

import griffe


class Headings(griffe.Extension):
    def on_object(self, *, obj: griffe.Object, **_: object) -> None:
        if obj.docstring:
            obj.docstring.value = _read(obj.docstring.value)


def _read(text: str) -> str:
    text = re.sub(r"^Example:$", "Examples:", text, flags=re.MULTILINE)
    head, heading, references = text.partition("\nReferences:\n")
    return head + heading + re.sub(r"^ {4}(?=\S)", "    - ", references, flags=re.MULTILINE)
