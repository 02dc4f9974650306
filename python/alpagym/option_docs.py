"""What options mean: the docstrings under the fields of configuration classes."""

from __future__ import annotations

import ast
import inspect
import re
from enum import Enum
from functools import cache
from typing import Any

from omegaconf import DictConfig, OmegaConf

VALUE_WIDTH = 44


@cache
def meanings(schema: type) -> dict[str, str]:
    """The first sentence of what stands under each field of a dataclass, by field.

    Nothing where the source is not installed.
    """
    found: dict[str, str] = {}
    for base in reversed(schema.__mro__[:-1]):
        try:
            tree = ast.parse(inspect.getsource(base)).body[0]
        except OSError:
            continue
        assert isinstance(tree, ast.ClassDef)
        for field, text in zip(tree.body, tree.body[1:], strict=False):
            if not isinstance(field, ast.AnnAssign) or not isinstance(field.target, ast.Name):
                continue
            if isinstance(text, ast.Expr) and isinstance(text.value, ast.Constant):
                found[field.target.id] = " ".join(str(text.value.value).split())
    return {name: _first_sentence(text) for name, text in found.items()}


def describe(node: DictConfig, prefix: str = "") -> str:
    """One line an option, as it is given on the command line: `key=value  # meaning`."""
    schema: Any = OmegaConf.get_type(node)
    docs = {} if schema is None or schema is dict else meanings(schema)
    lines = []
    for key in map(str, node):
        value: Any = node._get_node(key)
        if isinstance(value, DictConfig) and len(value):
            lines.append(describe(value, f"{prefix}{key}."))
            continue
        given = f"{prefix}{key}={_shown(node[key])}"
        meaning = docs.get(key, "")
        if isinstance(node[key], Enum):
            choices = ", ".join(choice.name for choice in type(node[key]))
            meaning = f"{meaning} Any of {choices}.".lstrip()
        lines.append(f"{given:<{VALUE_WIDTH}}  # {meaning}" if meaning else given)
    return "\n".join(lines)


def _shown(value: Any) -> str:
    if OmegaConf.is_config(value):
        value = OmegaConf.to_container(value, enum_to_str=True)
    if isinstance(value, list):
        return "[" + ",".join(_shown(v) for v in value) + "]"
    if isinstance(value, bool) or value is None:
        return "null" if value is None else str(value).lower()
    return str(getattr(value, "name", value))


def _first_sentence(text: str) -> str:
    return re.split(r"(?<=\.)(?<!e\.g\.)(?<!i\.e\.)(?<!Dr\.) ", text, maxsplit=1)[0]
