"""`alpagym train | eval | serve | render | convert | ...`, and `key=value` options."""

from __future__ import annotations

import json
import sys
import traceback
import warnings
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from alpagym.command_line import UsageError, compose, options_of, to_config

if TYPE_CHECKING:
    from alpagym.ranks import Ranks

USAGE = """\
alpagym: closed-loop reinforcement learning for driving policies at simulator speed

  alpagym train [key=value ...]   imitate, evaluate, improve by GRPO, evaluate, report
  alpagym eval  [key=value ...]   drive scenarios with a checkpoint or a baseline
  alpagym render [key=value ...]  drives to look at: a page, a picture or a video
  alpagym export scenarios=PATH out=DIR format=gpudrive|scenarionet   for other programs
  alpagym serve driver checkpoint=runs/<name> port=6789   a policy for AlpaSim to drive with
  alpagym serve runtime scenarios=PATH port=50051   the simulator for AlpaSim's trainers
  alpagym bench [what] [key=value ...]   measure; what: step, train, binding, load, learning
  alpagym bench compare A.json B.json    what changed between two measurements

  alpagym convert PATH out=FOLDER        recordings into shards that load at memory speed
  alpagym convert-checkpoint PATH out=FOLDER to=LAYOUT   Alpamayo's weights for other programs
  alpagym doctor data scenarios=PATH     what in recordings looks wrong

  scenarios=procedural            or a file or folder of recordings or shards
  reward=dense                    or progress_safety, metrics, distance_to_gt     (train)
  policy=small                    or large, trajectory, flow_matching, module:Class   (train)
  grpo=grpo                       or deepseek, dr_grpo, rloo, dapo, gspo, alpagym, ppo   (train)
  backend=cosmos                  GRPO run by Cosmos-RL                             (train)
  resume=runs/<name>              goes on with a run that was cut short             (train)
  checkpoint=runs/<name>          or policy=log|idm|constant_velocity|grpc://host:port (eval)
  compare=runs/<other>            or a driver's name: the difference, with intervals (eval)
  suite=challenge                 AlpaSim's challenge; asl=FOLDER scores its logs (eval)
  out=drive.html                  or .png, .gif, .mp4, .webm, .rrd             (render)
  --token TOKEN run=runs/<name>   a rollout of training, as flight.jsonl names it (render)
  --metrics all                   or alpasim|nuplan|navsim|waymax|ttc|alpagym     (eval)
  device=auto                     or cpu, cuda, cuda:1
  sim.traffic=log                 or idm, constant_velocity
  seed=0  grpo.group_size=16  data.train=512 ...
  case=womd4 threads=1 json=FILE                                                  (bench)
  --workers 4  --check  max_agents=64  shard_scenarios=256                        (convert)

  torchrun --standalone --nproc-per-node gpu -m alpagym train ...   a process for each GPU

  alpagym train --options         lists every option with its default and meaning
"""

INTERRUPTED = 130
"""Exit status after Ctrl-C, as shells have it."""
FAILED = 2
"""Exit status after a sentence that says why."""
UNREADABLE = 1
"""Exit status of a look at data of which something of a known format could not be read."""
MAY_CHANGE = {
    *("resume", "threads", "device", "save_every", "num_replays", "data.workers"),
    *("grpo.iterations", "grpo.capture", "grpo.shard", "keep_policies", "final"),
    *("cosmos.port", "cosmos.command", "cosmos.launch"),
}
"""Options with which a run may be gone on with otherwise."""
TERMINATED = 143
"""Exit status after SIGTERM."""
COMMANDS = (
    *("train", "eval", "serve", "render", "convert", "convert-checkpoint", "export"),
    *("doctor", "bench"),
)
DASHED = ("metrics", "workers", "token")
"""Options that may also be given as `--name value`; `--check` stands for `check=true`."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point of the `alpagym` command; returns the exit status."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    if not given or given[0] in ("-h", "--help", "help"):
        print(USAGE, end="")
        return 0
    if given[0] == "--version":
        import alpagym

        print(f"alpagym {alpagym.__version__}")
        return 0
    command, overrides = given[0], _without_dashes(given[1:])
    if command not in COMMANDS:
        known = f"{', '.join(COMMANDS[:-1])} or {COMMANDS[-1]}"
        return _fail(f"{command}: expected {known}; alpagym --help shows how")
    ranks = None
    try:
        match command:
            case "bench":
                return _bench(overrides)
            case "convert-checkpoint":
                return _convert_checkpoint(overrides)
            case "convert" | "doctor":
                return _store(command, overrides)
            case "serve":
                return _serve(overrides)
            case "train":
                from alpagym.ranks import Ranks

                ranks = Ranks.of_environment()
                return _train(overrides, ranks)
            case _:
                return _run(command, overrides)
    except KeyboardInterrupt as error:
        with nullcontext(True) if ranks is None else ranks.speaking() as speaks:
            if speaks:
                _fail(str(error) or "interrupted")
        return TERMINATED if str(error) else INTERRUPTED
    except Exception as error:
        if ranks is not None and not ranks.alone:
            with ranks.speaking() as speaks:
                if speaks and _is_told(error):
                    _fail(" ".join(str(error).split()))
                elif speaks:
                    traceback.print_exc()
            return FAILED
        if _is_told(error):
            return _fail(" ".join(str(error).split()))
        raise


def _is_told(error: Exception) -> bool:
    """Whether its message is a sentence for the user."""
    from alpagym.checkpoint import CheckpointError
    from alpagym.grpo.faults import TrainingError
    from alpagym.ranks import RankError
    from alpagym.scenarios.scenario import ScenarioError

    told = ScenarioError, CheckpointError, TrainingError, RankError, UsageError, ValueError, OSError
    return isinstance(error, told)


def _without_dashes(arguments: Sequence[str]) -> list[str]:
    """`--metrics nuplan` and `--metrics=nuplan` as `metrics=nuplan`."""
    result: list[str] = []
    for argument in arguments:
        if result and result[-1] in [f"--{name}" for name in DASHED]:
            result[-1] = f"{result[-1][2:]}={argument}"
        elif argument == "--check":
            result.append("check=true")
        elif argument.startswith(tuple(f"--{name}=" for name in DASHED)):
            result.append(argument[2:])
        else:
            result.append(argument)
    return result


def _fail(sentence: str) -> int:
    print(f"alpagym: {sentence}", file=sys.stderr)
    return FAILED


def _train(overrides: Sequence[str], ranks: Ranks) -> int:
    from omegaconf import OmegaConf

    from alpagym.option_docs import describe
    from alpagym.train import train

    if "--options" in overrides or "--help" in overrides or "-h" in overrides:
        print(describe(compose("train", [])))
        return 0
    if not ranks.first:
        warnings.simplefilter("ignore")  # the first rank gives them
    node = compose("train", overrides)
    config = to_config(node)
    if config.resume:
        node = _continued(node, Path(config.resume), overrides)
        config = to_config(node)
    train(config, OmegaConf.to_yaml(node), ranks=ranks)
    return 0


def _run(command: str, overrides: Sequence[str]) -> int:
    from alpagym.config import SimConfig
    from alpagym.eval import evaluate_command
    from alpagym.option_docs import describe

    if "--options" in overrides or "--help" in overrides or "-h" in overrides:
        print(describe(compose(command, [])))
        return 0
    config = to_config(compose(command, overrides))
    keys = {override.partition("=")[0] for override in overrides}
    given = [f.name for f in fields(SimConfig) if f"sim.{f.name}" in keys]
    if command == "render":
        from alpagym.render.command import render_command

        both = config.token and config.run
        run = to_config(options_of(Path(config.run), "run")) if both else None
        print(render_command(config, run, given))
        return 0
    if command == "export":
        from alpagym.scenarios.export.command import export_command

        export_command(config, print)
        return 0
    if config.output and not Path(config.output).parent.is_dir():
        raise UsageError(f"output={config.output}: no such folder: {Path(config.output).parent}")
    value = evaluate_command(config, given)
    text = json.dumps(value, indent=2)
    if config.output:
        Path(config.output).write_text(text + "\n")
    else:
        print(text)
    return 0


def _continued(given: Any, run: Path, overrides: Sequence[str]) -> Any:
    """The options of a run that is gone on with, but for those that are given anew.

    Raises:
        UsageError: as of `options_of`, or an option is given that may not change.
    """
    from omegaconf import OmegaConf

    node = options_of(run, "resume")
    for key in (override.partition("=")[0] for override in overrides):
        if key not in MAY_CHANGE:
            known = ", ".join(sorted(MAY_CHANGE - {"resume"}))
            raise UsageError(
                f"resume={run}: expected no other options than {known}, got {key}: what a run "
                "learns from and how cannot change in its middle"
            )
        OmegaConf.update(node, key, OmegaConf.select(given, key))
    return node


def _bench(arguments: Sequence[str]) -> int:
    from alpagym.bench.compare import compare
    from alpagym.bench.options import SCHEMAS
    from alpagym.bench.runner import run
    from alpagym.option_docs import describe

    named = bool(arguments) and "=" not in arguments[0] and not arguments[0].startswith("-")
    what, overrides = (arguments[0], arguments[1:]) if named else ("all", arguments)
    if what == "compare":
        if len(overrides) != 2:
            raise UsageError(f"bench compare: expected two JSON files, got {len(overrides)}")
        print("\n".join(compare(Path(overrides[0]), Path(overrides[1]))))
        return 0
    if what not in SCHEMAS:
        raise UsageError(f"bench {what}: expected step, train, binding, load, learning or compare")
    command = f"bench {what}" if named else "bench"
    if "--options" in overrides or "--help" in overrides or "-h" in overrides:
        print(describe(compose(command, [])))
        return 0
    config = to_config(compose(command, overrides))
    keys = [override.partition("=")[0] for override in overrides]
    run(what, config, [key.removeprefix("sim.") for key in keys if key.startswith("sim.")])
    return 0


def _serve(arguments: Sequence[str]) -> int:
    from alpagym.interop.alpasim.wire import require
    from alpagym.option_docs import describe
    from alpagym.option_ranges import check

    if not arguments or arguments[0] not in ("driver", "runtime"):
        got = arguments[0] if arguments else "nothing"
        raise UsageError(
            "serve: expected driver or runtime, as in serve driver checkpoint=PATH or serve "
            f"runtime scenarios=PATH, got {got}"
        )
    what, overrides = arguments[0], arguments[1:]
    if "--options" in overrides or "--help" in overrides or "-h" in overrides:
        print(describe(compose(f"serve {what}", [])))
        return 0
    config = to_config(compose(f"serve {what}", overrides))
    check(config)
    require()
    if what == "driver":
        from alpagym.interop.alpasim.driver.command import serve_driver

        serve_driver(config, lambda line: print(line, flush=True))
    else:
        from alpagym.interop.alpasim.runtime.command import serve_runtime

        serve_runtime(config, lambda line: print(line, flush=True))
    return 0


def _convert_checkpoint(arguments: Sequence[str]) -> int:
    from alpagym.option_docs import describe

    overrides = _with_path(arguments, "checkpoint")
    if "--options" in overrides or "--help" in overrides or "-h" in overrides:
        print(describe(compose("convert-checkpoint", [])))
        return 0
    config = to_config(compose("convert-checkpoint", overrides))
    for name in ("checkpoint", "out"):
        if not getattr(config, name):
            raise UsageError(f"{name}: expected a folder, got nothing")
    from alpagym.interop.alpamayo.conversion import convert

    done = convert(
        config.checkpoint, config.out, config.to, vlm=config.vlm or None, link=config.link
    )
    print(
        f"{config.out}: {done.source} as {done.target}, {done.tensors} tensors of "
        f"{done.nbytes / 1e9:.2f} GB in {done.files} files"
        f"{', with a tokenizer' if done.tokenizer else ', without a tokenizer'}"
    )
    if config.check:
        from alpagym.devices import choose_device
        from alpagym.interop.alpamayo.trial import try_out

        for line in try_out(config.out, config.vlm or None, str(choose_device(config.device))):
            print(line, flush=True)
    return 0


def _with_path(arguments: Sequence[str], name: str) -> list[str]:
    """Arguments whose first, if it is no option, is that of this name."""
    overrides = list(arguments)
    if overrides and "=" not in overrides[0] and not overrides[0].startswith("-"):
        overrides[0] = f"{name}={overrides[0]}"
    return overrides


def _store(command: str, arguments: Sequence[str]) -> int:
    from alpagym.option_docs import describe
    from alpagym.store.commands import convert_command, doctor_command

    overrides = list(arguments)
    if command == "doctor":
        if overrides[:1] != ["data"]:
            got = overrides[0] if overrides else "nothing"
            raise UsageError(f"doctor: expected data, as in doctor data scenarios=PATH, got {got}")
        command, overrides = "doctor data", overrides[1:]
    overrides = _with_path(overrides, "scenarios")
    if "--options" in overrides or "--help" in overrides or "-h" in overrides:
        print(describe(compose(command, [])))
        return 0
    config = to_config(compose(command, overrides))
    if command == "convert":
        health = convert_command(config).get("health", {})
        return UNREADABLE if health.get("unreadable") else 0
    if config.output and not Path(config.output).parent.is_dir():
        raise UsageError(f"output={config.output}: no such folder: {Path(config.output).parent}")
    found = doctor_command(config)
    text = json.dumps(found, indent=2)
    if config.output:
        Path(config.output).write_text(text + "\n")
    else:
        print(text)
    return UNREADABLE if found["unreadable"] else 0
