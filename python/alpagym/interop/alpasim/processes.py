"""Which process of this machine serves an address, and how much memory it took (Linux)."""

from __future__ import annotations

import os
import socket
from ipaddress import ip_address
from pathlib import Path

PROC = Path("/proc")
LISTENS = "0A"
"""The state of a socket that listens, in `/proc/net/tcp`."""


def listener(host: str, port: int) -> int | None:
    """The process that listens at a port of this machine; None where none can be seen.

    Of others' processes nothing is seen, nor through the bounds of a container.
    """
    try:
        if not ip_address(socket.gethostbyname(host)).is_loopback:
            return None
    except (OSError, ValueError):
        return None
    sockets = {f"socket:[{inode}]" for inode in _inodes(port)}
    for process in PROC.glob("[0-9]*"):
        try:
            files = list((process / "fd").iterdir())
        except OSError:
            continue  # another's, or gone
        for file in files:
            try:
                if os.readlink(file) in sockets:
                    return int(process.name)
            except OSError:
                continue  # closed meanwhile
    return None


def peak_memory(process: int) -> int | None:
    """The most resident memory that a process had [bytes]; None where it is gone."""
    try:
        lines = (PROC / str(process) / "status").read_text().splitlines()
    except OSError:
        return None
    peaks = [int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:")]
    return peaks[0] if peaks else None


def _inodes(port: int) -> set[str]:
    """Sockets that listen at a port."""
    found = set()
    for table in ("tcp", "tcp6"):
        try:
            lines = (PROC / "net" / table).read_text().splitlines()[1:]
        except OSError:
            continue
        for line in lines:
            fields = line.split()
            if fields[3] == LISTENS and int(fields[1].rpartition(":")[2], 16) == port:
                found.add(fields[9])
    return found
