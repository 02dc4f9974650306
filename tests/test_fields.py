"""One list of fields: C++ structs, dataclasses, documentation and typed stub agree."""

from __future__ import annotations

import ast
import inspect
import re
from dataclasses import fields
from itertools import pairwise
from pathlib import Path

import pytest

from alpagym import _core, types
from alpagym.config import ActionType, RewardConfig, RewardTerm

STRUCTS = [types.Scenarios, types.State, types.Outcome, types.Observation]
STUB = Path(types.__file__).with_name("_core.pyi")


def documentation(cls: type) -> dict[str, str]:
    """The string under each field of a dataclass."""
    body = ast.parse(inspect.getsource(cls)).body[0].body
    return {
        node.target.id: ast.literal_eval(after.value)
        for node, after in pairwise(body)
        if isinstance(node, ast.AnnAssign) and isinstance(after, ast.Expr)
    }


@pytest.mark.parametrize("cls", STRUCTS, ids=lambda cls: cls.__name__)
def test_python_and_core_list_the_same_fields_in_the_same_order(cls) -> None:
    assert [f.name for f in fields(cls)] == [name for name, _, _ in _core.fields[cls.__name__]]


@pytest.mark.parametrize("cls", STRUCTS, ids=lambda cls: cls.__name__)
def test_documentation_ends_with_dtype_and_shape(cls) -> None:
    documented = documentation(cls)
    for name, dtype, dims in _core.fields[cls.__name__]:
        shape = f"[{', '.join(dims)}]"
        ending = shape if dtype == "float32" else f"{dtype} {shape}"
        text = documented[name]
        assert text.endswith(ending), f"{cls.__name__}.{name}: {text!r} should end with {ending!r}"
        if dtype == "float32":
            assert not re.search(r"(int32|int64|uint8|bool|rows) \[[^\]]*\]$", text), name


def test_every_struct_of_the_core_has_a_dataclass() -> None:
    assert set(_core.fields) == {cls.__name__ for cls in STRUCTS}


def test_reward_terms_are_the_cores_in_its_order_and_each_has_a_weight() -> None:
    assert tuple(t.name.lower() for t in RewardTerm) == _core.reward_terms
    assert {f.name for f in fields(RewardConfig)} == set(_core.reward_terms)


def test_kinds_of_actions_are_the_cores() -> None:
    assert {t.name for t in ActionType} == set(_core.actions)


def core_columns(name: str) -> list[str]:
    """The columns of an enumeration of `csrc/observation.h`, as Python spells them."""
    header = Path(__file__).resolve().parents[1] / "csrc" / "observation.h"
    (body,) = re.findall(rf"enum {name} : int {{(.*?)}};", header.read_text(), flags=re.DOTALL)
    columns = re.findall(rf"^\s*k{name.removesuffix('Feature')}(\w+),", body, flags=re.MULTILINE)
    return [re.sub(r"(?<=[a-z])(?=[A-Z])", "_", column).upper() for column in columns]


@pytest.mark.parametrize("field", ["ego", "agents", "road", "route", "lights"])
def test_columns_of_observations_are_the_cores_in_its_order(field) -> None:
    columns = getattr(types, f"{field.removesuffix('s').capitalize()}Feature")
    assert [c.name for c in columns] == core_columns(columns.__name__)
    assert [c.value for c in columns] == list(range(len(columns)))
    shapes = {name: dims for name, _, dims in _core.fields["Observation"]}
    wide = {"ego": "CE", "agents": "CA", "road": "CR"}
    assert shapes[field][-1] == wide.get(field, str(len(columns)))


def stub() -> dict[str, ast.stmt]:
    named = {}
    for node in ast.parse(STUB.read_text()).body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef):
            named[node.name] = node
        elif isinstance(node, ast.AnnAssign):
            named[node.target.id] = node
    return named


def test_stub_names_everything_in_the_module() -> None:
    assert set(stub()) == {name for name in dir(_core) if not name.startswith("_")}


@pytest.mark.parametrize("name", ["Controller", "EndOn", "Collision"])
def test_stub_lists_the_members_of_enumerations(name) -> None:
    members = {
        n.targets[0].id: n.value.value for n in stub()[name].body if isinstance(n, ast.Assign)
    }
    assert members == {m.name: m.value for m in getattr(_core, name)}


@pytest.mark.parametrize("name", ["reset", "step", "observe", "fork", "noise"])
def test_stub_names_the_arguments_of_functions(name) -> None:
    given = re.match(r"\w+\((.*)\) -> None", getattr(_core, name).__doc__).group(1)
    arguments = [argument.split(":")[0] for argument in given.split(", ")]
    assert [a.arg for a in stub()[name].args.args] == arguments


def test_stub_lists_the_scalars_of_params() -> None:
    init = next(n for n in stub()["Params"].body if isinstance(n, ast.FunctionDef))
    names = [a.arg for a in init.args.kwonlyargs]
    _core.Params(**dict.fromkeys(names, 1))
    for missing in names:
        rest = {name: 1 for name in names if name != missing}
        with pytest.raises(TypeError, match=f"^Params: missing {missing}$"):
            _core.Params(**rest)
    with pytest.raises(
        TypeError, match=rf"^Params: got {len(names) + 1} values, expected {len(names)}$"
    ):
        _core.Params(**dict.fromkeys([*names, "other"], 1))
