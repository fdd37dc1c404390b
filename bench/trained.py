"""Trained transformers that come inside packages of PyPI: those of the demonstrations."""

from attrfn.demo._transformers import minilm as minilm
from attrfn.demo._transformers import smollm2 as smollm2
