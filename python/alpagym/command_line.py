"""Options as they are given on the command line: `key=value`, composed by Hydra."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields
from enum import Enum
from functools import cache
from pathlib import Path
from typing import Any

QUOTED = (
    *("scenarios", "checkpoint", "output", "out", "name", "runs", "resume"),
    *("data.select", "data.hold_out", "compare", "token", "run", "vlm"),
    *("policy.kind", "policy.weights", "host", "tls_certificate", "tls_key", "tls_authority"),
    *("alpasim.tls_authority", "alpasim.tls_certificate", "alpasim.tls_key", "alpasim.renderer"),
)
"""Options whose values are taken as they are: paths may hold anything."""
POLICIES = "policies"
"""Group of presets that `policy=` chooses from; `alpagym eval` has an option of that name."""
GROUPS = {"train": ("observation",)}
"""Groups of presets that are no options besides."""


class UsageError(ValueError):
    """The command line asks for something that is not there; one sentence."""


def compose(command: str, overrides: Sequence[str]) -> Any:
    """The configuration of a command with overrides applied, by Hydra.

    Raises:
        UsageError: an override that is malformed, unknown, or of the wrong type.
    """
    from hydra import compose as hydra_compose
    from hydra import initialize
    from hydra.errors import HydraException
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    from alpagym.bench.options import PATHS_AND_LISTS

    choices = _register()
    quoted = PATHS_AND_LISTS if command.partition(" ")[0] == "bench" else QUOTED
    with initialize(version_base=None, config_path=None):
        for override in overrides:
            key, equals, value = override.partition("=")
            if not equals:
                raise UsageError(f"{override}: expected key=value, e.g. seed=1")
            known = _options(command)
            if key not in known:
                near = difflib.get_close_matches(key, known, 1)
                hint = (
                    f"; did you mean {near[0]}?"
                    if near
                    else f"; alpagym {command} --options lists all"
                )
                raise UsageError(f"{key}: no such option{hint}")
            if key in ("reward", "grpo", "observation") and value not in choices[key]:
                raise UsageError(f"{key}: expected one of {', '.join(choices[key])}, got {value}")
        if command == "train":
            overrides = [_policy(o, choices["policy"]) for o in overrides]
        if command == "eval":
            quoted = (*quoted, "policy")  # which has colons and slashes where it is an address
        try:
            node = hydra_compose(command, [_quoted(o, quoted) for o in overrides])
            OmegaConf.to_container(node, resolve=True)  # interpolations must lead somewhere
            return node
        except (HydraException, OmegaConfBaseException) as error:
            cause = error.__cause__ or error
            lines = [line.strip() for line in str(cause).splitlines() if line.strip()]
            raise UsageError(f"{' '.join(overrides)}: {lines[0]}") from error


def options_of(run: Path, option: str) -> Any:
    """The options of a run, as its directory has them.

    Raises:
        UsageError: no run there, or its options are not those of this version.
    """
    from omegaconf import OmegaConf

    file = run / "config.yaml"
    if not file.is_file():
        raise UsageError(f"{option}={run}: expected a run directory, found no config.yaml there")
    try:
        return OmegaConf.merge(compose("train", []), OmegaConf.load(file))
    except Exception as error:  # broken YAML has an error of its own, whose package is not ours
        raise UsageError(f"{file}: {str(error).splitlines()[0]}") from error


@cache
def _register() -> dict[str, list[str]]:
    """Tell Hydra once of all commands' options; returns names of presets by what they preset."""
    from hydra.core.config_store import ConfigStore
    from omegaconf import OmegaConf

    from alpagym.bench.options import SCHEMAS
    from alpagym.config import OBSERVATION_PRESETS, REWARD_PRESETS
    from alpagym.interop.alpamayo.options import CheckpointConfig
    from alpagym.interop.alpasim.options import DriverConfig
    from alpagym.interop.alpasim.runtime.options import RuntimeConfig
    from alpagym.render.options import RenderConfig
    from alpagym.store.options import ConvertConfig, DoctorConfig
    from alpagym.training_config import (
        GRPO_PRESETS,
        POLICY_PRESETS,
        EvalConfig,
        ExportConfig,
        TrainConfig,
    )

    store = ConfigStore.instance()
    store.store(name="train_schema", node=_writable(TrainConfig))
    presets: dict[str, Mapping[str, Any]] = {"reward": REWARD_PRESETS, "grpo": GRPO_PRESETS}
    choices = {name: list(named) for name, named in presets.items()}
    choices["policy"] = list(POLICY_PRESETS)
    choices["observation"] = list(OBSERVATION_PRESETS)
    dotted = {POLICIES: POLICY_PRESETS, "observation": OBSERVATION_PRESETS}
    chosen = [{group: next(iter(named))} for group, named in (presets | dotted).items()]
    store.store(name="train", node={"defaults": ["train_schema", *chosen, "_self_"]})
    store.store(name="eval", node=_writable(EvalConfig))
    store.store(name="render", node=_writable(RenderConfig))
    store.store(name="export", node=_writable(ExportConfig))
    store.store(name="convert", node=_writable(ConvertConfig))
    store.store(name="convert-checkpoint", node=_writable(CheckpointConfig))
    store.store(name="doctor data", node=_writable(DoctorConfig))
    store.store(name="serve driver", node=_writable(DriverConfig))
    store.store(name="serve runtime", node=_writable(RuntimeConfig))
    for what, schema in SCHEMAS.items():
        store.store(name="bench" if what == "all" else f"bench {what}", node=_writable(schema))
    for group, named in presets.items():
        for name, preset in named.items():
            store.store(group=group, name=name, node=_named(asdict(preset)))
    for group, sets in dotted.items():
        for name, options in sets.items():
            node = OmegaConf.create()
            for key, value in options.items():
                OmegaConf.update(node, key, value)
            store.store(group=group, name=name, node=node, package="_global_")
    return choices


@cache
def _options(command: str) -> list[str]:
    """Dotted names of all options of a command, inside of `hydra.initialize`."""
    from hydra import compose as hydra_compose

    return [*_leaves(hydra_compose(command)), *GROUPS.get(command, ())]


def _policy(override: str, presets: Sequence[str]) -> str:
    """`policy=NAME` as the group of presets, or as the kind that a user brings along.

    Raises:
        UsageError: no such policy.
    """
    from alpagym.policies.registry import known_policies

    key, equals, value = override.partition("=")
    if key != "policy" or not equals:
        return override
    if value in presets:
        return f"{POLICIES}={value}"
    known = known_policies()
    if ":" not in value and value not in known:
        names = ", ".join([*presets, *known])
        raise UsageError(f"policy: expected one of {names} or module:Class, got {value}")
    return f"policy.kind={value}"


def _named(values: dict[str, Any]) -> dict[str, Any]:
    """Enumerations by name, as options are given."""
    return {k: v.name if isinstance(v, Enum) else v for k, v in values.items()}


def _writable(schema: type) -> Any:
    """A typed node of a frozen dataclass that Hydra may merge overrides into."""
    from omegaconf import DictConfig, OmegaConf

    def thaw(node: Any) -> None:
        OmegaConf.set_readonly(node, None)
        if OmegaConf.get_type(node) is dict:
            OmegaConf.set_struct(node, False)  # its keys are the user's
        for value in node.values():
            if isinstance(value, DictConfig):
                thaw(value)

    node = OmegaConf.structured(schema)
    thaw(node)
    return node


def _quoted(override: str, keys: Sequence[str]) -> str:
    key, _, value = override.partition("=")
    if key not in keys:
        return override
    literal = re.sub(r"(\\*)\$\{", r"\1\1\\${", value)  # no interpolation
    escaped = re.sub(r"(\\*)('|\Z)", lambda m: 2 * m[1] + ("\\'" if m[2] else ""), literal)
    return f"{key}='{escaped}'"


def _leaves(node: Any, prefix: str = "") -> list[str]:
    """Dotted names of all options, and of the groups that take a name."""
    from omegaconf import DictConfig

    names = [name for name in ("reward", "grpo", "policy") if not prefix and name in node]
    for key, value in node.items():
        names += (
            _leaves(value, f"{prefix}{key}.")
            if isinstance(value, DictConfig) and len(value)
            else [f"{prefix}{key}"]
        )
    return names


def to_config(node: Any) -> Any:
    """Dataclasses from a composed configuration; lists become tuples."""
    from dataclasses import is_dataclass, replace

    from omegaconf import OmegaConf

    def tuples(value: Any) -> Any:
        if not is_dataclass(value) or isinstance(value, type):
            return tuple(value) if isinstance(value, list) else value
        return replace(value, **{f.name: tuples(getattr(value, f.name)) for f in fields(value)})

    return tuples(OmegaConf.to_object(node))
