"""Mutations of AlpaSim's logs: bytes, sizes, the order of entries, and what messages hold."""

from __future__ import annotations

import copy
import struct
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from google.protobuf.descriptor import FieldDescriptor

from alpagym.interop.alpasim.wire.messages import log
from mutations import draw, mutated

NUMBERS = [0, 1, 2**31, 2**63 - 1, 2**63, 2**64 - 1]
REALS = [float("nan"), float("inf"), -1.0, 0.0, 1e30, -1e-30, 1e7]
WORDS = ["", "EGO", "../../evil", "a\nb", "\0", "\u202e", "x" * 100_000, "1"]
SIZES = [0, 1, 3, 2**16, 2**24, 2**31, 2**32 - 1]


def intact() -> list[Any]:
    """Entries of a drive of 4 s, the ego and another."""
    about = log.RolloutMetadata(force_gt_duration=1_000_000)
    about.session_metadata.session_uuid, about.session_metadata.scene_id = "s-1", "clipgt-1"
    about.session_metadata.control_timestep_us = 100_000
    for name, size in (("EGO", (5.0, 2.0, 1.5)), ("17", (4.0, 1.8, 1.4))):
        actor = about.actor_definitions.actor_aabb.add(actor_id=name, actor_label="automobile")
        actor.aabb.size_x, actor.aabb.size_y, actor.aabb.size_z = size
    place = about.transform_ego_coords_rig_to_aabb
    place.vec.x, place.quat.w = 1.4, 1.0
    entries = [log.LogEntry(rollout_metadata=about)]
    for k in range(40):
        time = 100_000 * k
        _pose(about.ego_rig_recorded_ground_truth_trajectory.poses.add(timestamp_us=time), 0.8 * k)
        step = log.LogEntry()
        step.actor_poses.timestamp_us = time
        for name, ahead in (("17", 20.0), ("EGO", 1.4)):
            actor = step.actor_poses.actor_poses.add(actor_id=name)
            actor.actor_pose.vec.x, actor.actor_pose.quat.w = ahead + 0.8 * k, 1.0
        asked, answer = log.LogEntry(), log.LogEntry()
        asked.driver_request.time_now_us, asked.driver_request.time_query_us = time, time + 100_000
        for i in range(25):
            trajectory = answer.driver_return.trajectory
            _pose(trajectory.poses.add(timestamp_us=time + 100_000 * i), 0.8 * (k + i))
        entries += [step, asked, answer]
    entries[0] = log.LogEntry(rollout_metadata=about)
    return entries


def _pose(entry: Any, x: float) -> None:
    entry.pose.vec.x, entry.pose.quat.w = x, 1.0


def packed(entries: list[Any]) -> bytes:
    blobs = [e if isinstance(e, bytes) else e.SerializeToString() for e in entries]
    return b"".join(struct.pack(">I", len(blob)) + blob for blob in blobs)


def subject(folder: Path):
    path, entries = folder / "rollout.asl", intact()
    whole = packed(entries)
    path.write_bytes(whole)

    def mutate(number: int, rng: np.random.Generator) -> None:
        kind = number % 5
        if kind == 0:
            path.write_bytes(mutated(whole, int(rng.integers(4)), rng))
        elif kind == 1:
            path.write_bytes(_sizes(entries, rng))
        elif kind == 2:
            path.write_bytes(packed(_order(entries, rng)))
        else:
            path.write_bytes(packed(_fields(entries, rng)))

    return path, mutate


def _sizes(entries: list[Any], rng: np.random.Generator) -> bytes:
    """A size that is not that of its entry, or a bomb of empty messages."""
    at = int(rng.integers(len(entries)))
    if rng.random() < 0.3:
        count = int(draw(rng, [10_000, 2**21 - 100, 2**22]))
        field = int(draw(rng, [0x12, 0x0A]))
        bomb = bytes([field, 0]) * count
        size = bytearray()
        length = len(bomb)
        while length >= 0x80:
            size.append(length & 0x7F | 0x80)
            length >>= 7
        return packed([*entries[:at], bytes([0x12]) + bytes(size) + bytes([length]) + bomb])
    head, blob = packed(entries[:at]), entries[at].SerializeToString()
    return head + struct.pack(">I", draw(rng, SIZES)) + blob + packed(entries[at + 1 :])


def _order(entries: list[Any], rng: np.random.Generator) -> list[Any]:
    """Entries gone, twice, in another order, or of kinds that are not known."""
    entries, i, j = list(entries), *(int(rng.integers(len(entries))) for _ in range(2))
    kind = int(rng.integers(6))
    if kind == 0:
        del entries[i]
    elif kind == 1:
        entries.insert(i, entries[j])
    elif kind == 2:
        entries[i], entries[j] = entries[j], entries[i]
    elif kind == 3:
        entries = entries[: 1 + i // 4]
    elif kind == 4:
        entries.insert(i, draw(rng, [b"", b"\xda\x02\x01x", b"\x5a\x00", b"\xff" * 8]))
    else:
        entries = [
            e for e in entries if not e.HasField(draw(rng, ["actor_poses", "driver_return"]))
        ]
    return entries


def _fields(entries: list[Any], rng: np.random.Generator) -> list[Any]:
    """One to three fields with odd values, messages gone, parts repeated."""
    entries = list(entries)
    for _ in range(int(rng.integers(1, 4))):
        at = 0 if rng.random() < 0.4 else int(rng.integers(len(entries)))
        entries[at] = copy.deepcopy(entries[at])
        _odd(entries[at], rng)
    return entries


def _odd(message: Any, rng: np.random.Generator) -> None:
    held = [field for field, _ in message.ListFields()]
    fields = held if held and rng.random() < 0.9 else message.DESCRIPTOR.fields
    if not fields:
        return
    field = draw(rng, fields)
    value = getattr(message, field.name)
    if field.type == FieldDescriptor.TYPE_MESSAGE:
        repeated = isinstance(value, list) or hasattr(value, "add")
        if repeated and len(value) and rng.random() < 0.3:
            for _ in range(int(draw(rng, [1, 200, 6000]))):
                value.add().CopyFrom(value[0])
        elif rng.random() < 0.1:
            message.ClearField(field.name)
        elif not repeated:
            _odd(value, rng)
        elif len(value):
            _odd(draw(rng, value), rng)
    elif hasattr(value, "extend"):
        return
    elif isinstance(value, str):
        setattr(message, field.name, draw(rng, WORDS))
    elif isinstance(value, float):
        setattr(message, field.name, draw(rng, REALS))
    elif isinstance(value, int) and not isinstance(value, bool):
        with suppress(ValueError):  # too large for a field of 32 bits
            setattr(message, field.name, draw(rng, NUMBERS))
