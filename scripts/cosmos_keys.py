"""Write which keys the installed Cosmos-RL has in its TOML, and the types of their values.

    python scripts/cosmos_keys.py [--check]

The table lies in the package, so that configurations are checked where Cosmos-RL is not installed;
`--check` only compares it with the installed version, and fails where they differ.
"""

from __future__ import annotations

import json
import sys
import typing
from importlib.metadata import version
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
TABLE = ROOT / "python" / "alpagym" / "interop" / "cosmos" / "keys.json"
sys.path.insert(0, str(Path(__file__).parent / "cosmos_cpu"))

PLAIN = {bool: "bool", int: "int", float: "float", str: "str"}


def kinds(annotation: object) -> list[str]:
    """What TOML values a field takes: bool, int, float, str, list, dict, or any."""
    args = typing.get_args(annotation)
    origin = typing.get_origin(annotation)
    if annotation in PLAIN:
        return [PLAIN[annotation]]
    if origin is typing.Literal:
        return sorted({PLAIN[type(value)] for value in args if type(value) in PLAIN})
    if origin in (list, tuple, set) or annotation in (list, tuple):
        return ["list"]
    if origin is dict or annotation is dict:
        return ["dict"]
    if annotation is type(None):
        return []
    if args:
        return sorted({kind for arg in args for kind in kinds(arg)})
    if isinstance(annotation, type) and issubclass(annotation, str):  # enumerations of words
        return ["str"]
    return ["any"]


def table() -> dict[str, object]:
    from stubs import install_packages

    install_packages()
    from cosmos_rl.policy.config import Config, GrpoConfig
    from pydantic import BaseModel

    def models(annotation: object) -> list[type[BaseModel]]:
        if isinstance(annotation, type):
            return [annotation] if issubclass(annotation, BaseModel) else []
        return [model for arg in typing.get_args(annotation) for model in models(arg)]

    def walk(model: type[BaseModel], prefix: str) -> dict[str, list[str]]:
        found: dict[str, list[str]] = {}
        for name, field in sorted(model.model_fields.items()):
            inner = models(field.annotation)
            if GrpoConfig in inner:
                inner = [GrpoConfig]
            if len(inner) == 1 and typing.get_origin(field.annotation) not in (list, dict):
                found |= walk(inner[0], f"{prefix}{name}.")
            else:
                found[f"{prefix}{name}"] = kinds(field.annotation)
        return found

    return {"cosmos_rl": version("cosmos-rl"), "keys": walk(Config, "")}


def main() -> None:
    text = json.dumps(table(), indent=1, sort_keys=True).replace("[\n   ", "[")
    text = text.replace("\n  ]", "]").replace(",\n   ", ", ") + "\n"
    if "--check" in sys.argv:
        if json.loads(TABLE.read_text()) != json.loads(text):
            sys.exit(f"{TABLE}: not the keys of the installed cosmos-rl {version('cosmos-rl')}")
        print(f"{TABLE.name}: the keys of cosmos-rl {version('cosmos-rl')}")
    else:
        TABLE.write_text(text)


if __name__ == "__main__":
    main()
