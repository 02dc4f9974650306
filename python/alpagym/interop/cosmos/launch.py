"""GRPO by Cosmos-RL's processes, begun, followed and ended by `alpagym train backend=cosmos`."""

from __future__ import annotations

import os
import re
import shlex
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from shutil import rmtree
from typing import Any

from alpagym.checkpoint import CheckpointError, load_policy
from alpagym.grpo.diagnosis import diagnose
from alpagym.grpo.faults import TrainingError
from alpagym.interop.cosmos.config import build, to_toml
from alpagym.interop.cosmos.engine import STEPS_FILE
from alpagym.interop.cosmos.entry import search_path
from alpagym.policies.policy import Policy
from alpagym.resume import FLIGHT_FILE, Lock
from alpagym.run_directory import read_rows
from alpagym.tables import plain_printer
from alpagym.training_config import TrainConfig
from alpagym.training_job import Job

ENTRY = "alpagym.interop.cosmos.entry"
LOG_FILE, TOML_FILE = "log.txt", "run.toml"
"""In the folder `cosmos` of a run."""
EVERY_S, GRACE_S = 0.2, 45.0
"""How often it is looked what there is to tell; how long processes may take to end, which is more
than the 30 s that torchrun gives its workers."""


def command_of(config: TrainConfig, toml: Path) -> list[str]:
    """What starts the replicas of a run."""
    cosmos = config.cosmos
    counts = ["--policy", str(cosmos.policies)]
    if cosmos.mode != "colocated":
        counts += ["--rollout", str(cosmos.rollouts)]
    return [cosmos.command, "--config", str(toml), "--port", str(cosmos.port), *counts, ENTRY]


def improve(job: Job, policy: Policy) -> dict[str, float] | None:
    """GRPO on Cosmos-RL; `policy` is what came of it then.

    Iterations that are all done already, since somebody started the command, are only told.

    Returns:
        Steps, and steps per second from one iteration's end to another's; None where the run waits
        for somebody to start the command.

    Raises:
        TrainingError: Cosmos-RL ended before its time.
        CheckpointError: Cosmos-RL, started by somebody, is at work on the run.
        Stopped: SIGTERM.
        OSError: it cannot be started, or the configuration cannot be written.
    """
    config, folder = job.config, job.run.path / "cosmos"
    say = plain_printer(job.console)
    steps, toml = folder / STEPS_FILE, folder / TOML_FILE
    wanted = config.grpo.iterations
    rows: list[dict[str, Any]] = []
    noted: list[dict[str, Any]] = []
    told: set[str] = set()

    def tell() -> None:
        """Log the iterations that were not told yet."""
        for row in read_rows(steps)[len(rows) :]:
            rows.append(row["values"])
            noted.append(row)
            row["values"]["agent_steps_per_s"] = _pace(noted[-2:])
            job.run.log("grpo", row["step"], row["values"])
            findings = diagnose(rows, config.grpo, row["flight"])
            for name in findings.keys() - told:
                say(f"iteration {row['step']}: {findings[name]}")
            told.update(findings)
            flight = {"iteration": row["step"], **row["flight"], "findings": findings}
            job.run.note(FLIGHT_FILE, flight)

    if not _complete(read_rows(steps), wanted):
        folder.mkdir(parents=True, exist_ok=True)
        with closing(_idle(folder, wanted)):
            for stale in (steps, job.checkpoint("policy")):
                stale.unlink(missing_ok=True)
            rmtree(folder / "groups", ignore_errors=True)  # of a run that was cut short
            toml.write_text(to_toml(build(config, job.run.path)))
        command = command_of(config, toml)
        if not config.cosmos.launch:
            say(f"start Cosmos-RL by: {shlex.join(command)}")
            say(f"then go on by: alpagym train resume={job.run.path}")
            return None
        say(f"GRPO on Cosmos-RL, whose log is {folder / LOG_FILE}")
        idle = {"eval_every": config.eval_every, "grpo.resample_dead": config.grpo.resample_dead}
        for name in (name for name, value in idle.items() if value):
            say(f"{name} has no effect there")
        with _started(command, folder / LOG_FILE) as process:
            status = _follow(process, tell, job)
        tell()
        if status or not _complete(read_rows(steps), wanted):
            raise TrainingError(
                f"Cosmos-RL ended with status {status} after {len(rows)} of {wanted} iterations: "
                f"{folder / LOG_FILE} tells why{_last_error(folder / LOG_FILE)}"
            )
    tell()
    trained, _, _ = load_policy(job.checkpoint("policy"))
    policy.load_state_dict(trained.state_dict())
    policy.eval()
    return {"agent_steps": float(rows[-1]["agent_steps"]), "agent_steps_per_s": _pace(noted)}


def _pace(rows: Sequence[dict[str, Any]]) -> float:
    """Steps per second from the first of some rows to the last, with all that Cosmos-RL does."""
    first, last = rows[0], rows[-1]
    seconds = last["at"] - first["at"]
    if seconds <= 0.0:
        return float(last["values"]["agent_steps_per_s"])
    return float(last["values"]["agent_steps"] - first["values"]["agent_steps"]) / seconds


def _complete(rows: Sequence[dict[str, Any]], wanted: int) -> bool:
    """Whether rows are of all iterations, and of no others."""
    return {row["step"] for row in rows} == set(range(wanted))


def _idle(folder: Path, wanted: int) -> Lock:
    """The folder of a run, in which no replica learns.

    Raises:
        CheckpointError: one does.
    """
    try:
        return Lock(folder)
    except CheckpointError as error:
        done = len(read_rows(folder / STEPS_FILE))
        raise CheckpointError(
            f"{folder}: Cosmos-RL is at work, {done} of {wanted} iterations are done: go on when "
            "it has ended"
        ) from error


@contextmanager
def _started(command: list[str], log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Its processes are a group, none of which outlives the end of the context."""
    env = os.environ | {"PATH": search_path()}
    with log.open("wb") as file:
        process = subprocess.Popen(
            command, stdout=file, stderr=subprocess.STDOUT, env=env, start_new_session=True
        )
    try:
        yield process
    finally:
        _end(process)


def _end(process: subprocess.Popen[bytes]) -> None:
    """Have a group of processes end: in their own time at first, since they end others in turn.

    Those that they have begun in sessions of their own end with them.
    """
    apart = _apart(process.pid)
    deadline = time.monotonic() + GRACE_S
    left = _signal(process.pid, apart, signal.SIGTERM)
    while left and time.monotonic() < deadline:
        time.sleep(EVERY_S / 4)
        process.poll()
        left = _signal(process.pid, apart, 0)
    if left:
        _signal(process.pid, apart, signal.SIGKILL)
    process.wait()


def _signal(group: int, apart: Mapping[int, str], number: int) -> bool:
    """Send a signal to a group and to processes apart from it; whether any of them is left."""
    left = False
    with suppress(ProcessLookupError):
        os.killpg(group, number)
        left = True
    for pid, began in apart.items():
        state, *_, now = _stat(pid)
        if state != "Z" and now == began:  # otherwise its number may be another's by now
            with suppress(ProcessLookupError):
                os.kill(pid, number)
                left = True
    return left


def _apart(group: int) -> dict[int, str]:
    """Descendants of the leader of a group that are not in it, and when they began."""
    children: dict[str, list[int]] = {}
    stats = {int(path.name): _stat(int(path.name)) for path in Path("/proc").glob("[0-9]*")}
    for pid, (_, parent, _, _) in stats.items():
        children.setdefault(parent, []).append(pid)
    found, ahead = {}, [group]
    while ahead:
        for pid in children.get(str(ahead.pop()), []):
            ahead.append(pid)
            _, _, own_group, began = stats[pid]
            if own_group != str(group):
                found[pid] = began
    return found


def _stat(pid: int) -> tuple[str, str, str, str]:
    """State, parent, group and beginning of a process as /proc has them; "Z" if it is gone."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return "Z", "", "", ""
    return fields[0], fields[1], fields[2], fields[19]


def _follow(process: subprocess.Popen[bytes], tell: Callable[[], None], job: Job) -> int:
    """Tell what happens until the process ends; returns its status."""
    with job.stop.deferred():
        while (status := process.poll()) is None:
            tell()
            job.stop.check()
            time.sleep(EVERY_S)
    return status


def _last_error(log: Path) -> str:
    """The last line of a log that begins as an exception does, after a colon; empty for none."""
    named = re.findall(
        r"(?m)^(?:\[\w+\]: )*([\w.]*(?:Error|Exception): .+)$", log.read_text("utf-8", "replace")
    )
    return f": {named[-1][:1000]}" if named else ""
