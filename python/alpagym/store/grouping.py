"""Which files are converted together: where a file begins a group hangs on its own name and size.

So a file that comes or goes changes the group around it and, where groups are cut for being full,
those up to the next file that begins one by itself; all others stay as they were.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

GROUP_BYTES = 1 << 30
"""Files of one group are this large together at most, unless one alone is larger."""
SHARDS = 4
"""So many shards' worth of files are in a group at most, if each holds one scenario."""


def grouped(files: Sequence[tuple[str, int]], shard_scenarios: int) -> list[list[str]]:
    """Files in their order, in groups.

    Args:
        files: name and size [bytes] of each.
        shard_scenarios: that a shard holds at most.

    Returns:
        The names in each group.
    """
    most = SHARDS * shard_scenarios
    groups: list[list[str]] = []
    room = 0
    for name, size in files:
        # Half a group's worth of files or bytes begins a group, on average.
        share = max(2 / most, 2 * size / GROUP_BYTES)
        full = size > room or not groups or len(groups[-1]) == most
        if full or _chance(name) < share:
            groups.append([])
            room = GROUP_BYTES
        groups[-1].append(name)
        room -= size
    return groups


def _chance(name: str) -> float:
    """A number from 0 to 1 that only the name decides on."""
    digest = hashlib.sha256(name.encode(errors="surrogateescape")).digest()
    return int.from_bytes(digest[:8], "big") / 2**64
