"""Read thousands of mutated files in a process of its own, and tell what each did to it.

The process is this file as a program, so that a mutation that crashes, hangs or takes all memory
ends that process and not the tests. It prints a line of JSON before it reads a mutation and one
afterwards. By hand, `python tests/mutating.py SUBJECT[,SUBJECT...] COUNT FOLDER [FIRST]` reads that
many from a number on, and prints a row for the table of docs/readers.md and the faults.
"""

from __future__ import annotations

import json
import re
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

SECONDS = 5.0
"""Most processor time of one file [s]."""
MEGABYTES = 1000
"""Most memory that reading may add to what the process has after an intact file [MB]."""
KILLED_AFTER = 20.0
"""Processor time of one file after which the process is ended, wherever it is [s]."""
ADDRESS_SPACE = 4 * 2**30
"""Most that the process may ask for beyond what it has after an intact file [bytes]."""
FILE_SIZE = 256 * 2**20
"""Largest file that a mutation may write [bytes]: a row of megabytes, repeated, fills a disk."""
_FORBIDDEN = (
    "os.system", "os.exec", "os.posix_spawn", "os.spawn", "os.fork", "os.forkpty", "os.remove",
    "os.rename", "os.mkdir", "os.rmdir", "os.link", "os.symlink", "os.truncate", "os.chmod",
    "subprocess.Popen", "socket.connect", "socket.bind", "shutil.rmtree", "shutil.move",
    "shutil.copyfile", "tempfile.mkstemp", "tempfile.mkdtemp", "ctypes.dlopen", "pty.spawn",
)  # fmt: skip
_OUT_OF_MEMORY = re.compile(r"MemoryError|[Uu]nable to allocate|malloc|bad_alloc|out of memory")


@dataclass
class Outcome:
    """What became of all mutations of one subject."""

    count: int
    read: int
    """Files of which a scenario was read."""
    refused: int
    slowest: float
    """Processor time of the slowest file [s], and which it was."""
    slowest_number: int
    added: float
    """Memory that the process added to what it had after an intact file [MB]."""
    faults: list[str]

    def line(self, name: str) -> str:
        """For the table of docs/readers.md."""
        return (
            f"| {name} | {self.count} | {self.read} | {self.refused} | {self.slowest:.2f} "
            f"(number {self.slowest_number}) | {self.added:.0f} | {len(self.faults)} |"
        )


def run(subjects: Sequence[str], count: int, folder: Path, first: int = 0) -> dict[str, Outcome]:
    """Read `count` mutations of each subject in `folder`, from number `first` on.

    One process reads all of them; a mutation that ends it costs another one.
    """
    faults: dict[str, list[str]] = {name: [] for name in subjects}
    results: dict[str, list[dict[str, Any]]] = {name: [] for name in subjects}
    todo = [(name, first) for name in subjects]
    while todo:
        part = folder / f"{todo[0][0]}-{todo[0][1]}"
        part.mkdir(parents=True)
        tasks = [f"{name}:{begin}:{first + count - begin}" for name, begin in todo]
        command = [sys.executable, __file__, ",".join(tasks), str(part)]
        ended = subprocess.run(command, capture_output=True, text=True, check=False)
        lines = [json.loads(line) for line in ended.stdout.splitlines() if line.startswith("{")]
        for line in lines:
            if "seconds" in line:
                results[line["subject"]].append(line)
        shutil.rmtree(part)
        if ended.returncode == 0:
            break
        last = " | ".join(ended.stderr.strip().splitlines()[-8:])
        name, number = (lines[-1]["subject"], lines[-1]["number"]) if lines else (todo[0][0], -1)
        faults[name].append(f"{number}: the process ended with {ended.returncode}: {last}")
        del todo[: [subject for subject, _ in todo].index(name)]
        if 0 <= number < first + count - 1:
            todo[0] = (name, number + 1)  # and on with the next, in a new process
        else:
            del todo[0]
    return {name: _outcome(results[name], faults[name]) for name in subjects}


def _outcome(results: list[dict[str, Any]], faults: list[str]) -> Outcome:
    slowest = max(results, key=lambda r: r["seconds"], default={"seconds": 0.0, "number": -1})
    return Outcome(
        count=len(results),
        read=sum(r["read"] > 0 for r in results),
        refused=sum(r["read"] == 0 for r in results),
        slowest=slowest["seconds"],
        slowest_number=slowest["number"],
        added=max((r["added"] for r in results), default=0.0),
        faults=faults + [f"{r['number']}: {fault}" for r in results for fault in r["faults"]],
    )


class _Watch:
    """Notes what a reader does besides reading: files opened to be written, programs, sockets."""

    def __init__(self) -> None:
        self.on = False
        self.seen: list[str] = []

    def __call__(self, event: str, args: tuple[Any, ...]) -> None:
        if not self.on:
            return
        writes = event == "open" and isinstance(args[1], str) and set(args[1]) & set("wax+")
        if writes or event in _FORBIDDEN:
            self.seen.append(f"{event} {args[:2]!r}"[:200])


def _listing(folder: Path) -> dict[str, tuple[int, int]]:
    """Size and time of each file below a folder."""
    stats = {str(p): p.stat() for p in folder.rglob("*")}
    return {name: (s.st_size, s.st_mtime_ns) for name, s in stats.items()}


def _sentence_faults(sentence: str, folder: Path) -> list[str]:
    """What is wrong with the reason for which a file was refused."""
    faults = []
    if str(folder) not in sentence:
        faults.append(f"names no file: {sentence!r}"[:300])
    if any(c in sentence for c in "\n\r\0") or not sentence.isprintable():
        faults.append(f"is not one printable line: {sentence!r}"[:400])
    if len(sentence) > 1000:
        faults.append(f"is {len(sentence)} characters long: {sentence[:200]!r}")
    if _OUT_OF_MEMORY.search(sentence):
        faults.append(f"ran out of memory: {sentence!r}"[:300])
    return faults


def _memory(name: str) -> float:
    """What this process holds (`VmRSS`), or held at most since `_forget_peak` (`VmHWM`) [MB]."""
    status = Path("/proc/self/status").read_text()
    return int(status.partition(f"{name}:")[2].split()[0]) / 1024


def _forget_peak() -> None:
    Path("/proc/self/clear_refs").write_text("5")


def _attempt(path: Path, folder: Path) -> tuple[int, list[str]]:
    """Number of scenarios of a path, and faults in how it was read or refused."""
    from alpagym.scenarios.load import load_scenarios
    from alpagym.scenarios.scenario import ScenarioError

    try:
        scenarios, skipped = load_scenarios(path)
    except ScenarioError as error:
        return 0, _sentence_faults(str(error), folder)
    except Exception as error:  # whatever it is, it is a fault, and the next file is tried
        return 0, [f"{type(error).__name__}: {error}"[:500]]
    faults = [fault for s in skipped for fault in _sentence_faults(s.reason, folder)]
    for scenario in scenarios:
        try:
            scenario.validate()
        except ScenarioError as error:
            faults.append(f"read a scenario that is not valid: {error}")
    return len(scenarios), faults


def _main(tasks: str, folder: Path) -> None:
    sys.dont_write_bytecode = True
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (FILE_SIZE,) * 2)
    watch = _Watch()
    sys.addaudithook(watch)
    for task in tasks.split(","):
        subject, first, count = task.split(":")
        _read_all(subject, range(int(first), int(first) + int(count)), folder / subject, watch)


def _read_all(subject: str, numbers: range, folder: Path, watch: _Watch) -> None:
    import numpy as np

    import mutations

    folder.mkdir()
    hard = resource.getrlimit(resource.RLIMIT_AS)[1]
    resource.setrlimit(resource.RLIMIT_AS, (hard, hard))
    path, mutate = mutations.SUBJECTS[subject](folder)
    read, faults = _attempt(path, folder)
    if not read or faults:
        raise SystemExit(f"{subject}: the intact file is not read: {faults}")
    with suppress(ValueError):
        _attempt(folder / "absent", folder)
    intact = set(_listing(folder))
    size = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (size + ADDRESS_SPACE, hard))
    for number in numbers:
        print(json.dumps({"subject": subject, "number": number}), flush=True)
        mutate(number, np.random.default_rng([7, number]))
        _forget_peak()
        before = _memory("VmRSS")
        listed = _listing(folder)
        signal.setitimer(signal.ITIMER_PROF, KILLED_AFTER)
        begin = time.process_time()
        watch.on = True
        read, faults = _attempt(path, folder)
        watch.on = False
        seconds = time.process_time() - begin
        signal.setitimer(signal.ITIMER_PROF, 0.0)
        faults += watch.seen
        watch.seen.clear()
        added = max(_memory("VmHWM") - before, 0.0)
        if seconds > SECONDS:
            faults.append(f"took {seconds:.1f} s")
        if added > MEGABYTES:
            faults.append(f"took {added:.0f} MB")
        if _listing(folder) != listed:
            faults.append("wrote files")
        for name in sorted(set(_listing(folder)) - intact, reverse=True):  # what a mutation left
            Path(name).unlink()
        result = {"subject": subject, "number": number, "seconds": seconds, "added": added}
        print(json.dumps(result | {"read": read, "faults": faults}), flush=True)


if __name__ == "__main__":
    if ":" in sys.argv[1]:
        _main(sys.argv[1], Path(sys.argv[2]))
    else:
        names, begin = sys.argv[1].split(","), int(sys.argv[4]) if len(sys.argv) > 4 else 0
        for name, outcome in run(names, int(sys.argv[2]), Path(sys.argv[3]), begin).items():
            print(outcome.line(name), *outcome.faults, sep="\n", flush=True)
