"""TFRecord framing: length, its checksum, data, its checksum; read without TensorFlow."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from alpagym.scenarios.scenario import ScenarioError

MAX_RECORD = 256 << 20
"""A longer record is a data fault: real ones are below 20 MB [bytes]."""


def _byte_table() -> np.ndarray:
    """CRC-32C of each single byte (reflected polynomial 0x82F63B78), uint32 [256]."""
    table = np.arange(256, dtype=np.uint32)
    for _ in range(8):
        table = np.where(table & 1, (table >> 1) ^ np.uint32(0x82F63B78), table >> 1)
    return table.astype(np.uint32)


_TABLE = _byte_table()


def crc32c(data: bytes) -> int:
    """CRC-32C (Castagnoli) of `data`.

    The checksum is linear over GF(2), so the data are cut into equal lanes whose checksums advance
    side by side in one array and are then joined pairwise: 1 MB takes milliseconds, not a second.
    """
    if len(data) < 1024:
        crc = 0xFFFFFFFF
        for byte in data:
            crc = int(_TABLE[(crc ^ byte) & 0xFF]) ^ (crc >> 8)
        return crc ^ 0xFFFFFFFF
    lanes = 256 if len(data) < 1 << 16 else 4096
    width = -(-len(data) // lanes)
    padded = np.zeros(lanes * width, np.uint8)
    # Leading zeros leave a checksum that starts at 0 alone; the usual start value, all ones, is the
    # same as inverting the first four bytes.
    padded[len(padded) - len(data) :] = np.frombuffer(data, np.uint8)
    padded[len(padded) - len(data) :][:4] ^= 0xFF
    columns = np.ascontiguousarray(padded.reshape(lanes, width).T)
    state = np.zeros(lanes, np.uint32)
    for column in columns:
        state = _TABLE[(state ^ column) & 0xFF] ^ (state >> np.uint32(8))
    shift = _shift_matrix(width)
    while len(state) > 1:
        state = _apply(shift, state[0::2]) ^ state[1::2]
        shift = _apply(shift, shift)
    return int(state[0]) ^ 0xFFFFFFFF


def _apply(matrix: np.ndarray, values: np.ndarray) -> np.ndarray:
    """A 32 x 32 bit matrix, given by its columns uint32 [32], times bit vectors uint32 [n]."""
    result = np.zeros_like(values)
    for bit in range(32):
        result ^= np.where((values >> np.uint32(bit)) & np.uint32(1), matrix[bit], np.uint32(0))
    return result


def _shift_matrix(count: int) -> np.ndarray:
    """The matrix that advances a checksum over `count` zero bytes, uint32 [32]."""
    unit = np.uint32(1) << np.arange(32, dtype=np.uint32)
    power = _TABLE[unit & np.uint32(0xFF)] ^ (unit >> np.uint32(8))
    result = unit
    while count:
        if count & 1:
            result = _apply(power, result)
        power = _apply(power, power)
        count >>= 1
    return result


def masked_crc32c(data: bytes) -> int:
    """The checksum as TFRecord stores it: rotated and offset."""
    crc = crc32c(data)
    return (((crc >> 15) | (crc << 17)) + 0xA282EAD8) & 0xFFFFFFFF


def looks_like_tfrecord(head: bytes) -> bool:
    """Whether the first 12 bytes are a length and its checksum."""
    return len(head) >= 12 and masked_crc32c(head[:8]) == struct.unpack_from("<I", head, 8)[0]


def read_records(path: Path) -> Iterator[tuple[int, bytes]]:
    """Byte offset and data of each record.

    Raises:
        ScenarioError: at a truncated record or a wrong checksum, naming file and byte offset.
    """
    with path.open("rb") as file:
        offset = 0
        while head := file.read(12):
            if len(head) < 12:
                raise ScenarioError(
                    f"{path}: truncated at byte {offset}: {len(head)} of 12 header bytes"
                )
            length, length_crc = struct.unpack("<QI", head)
            if masked_crc32c(head[:8]) != length_crc:
                raise ScenarioError(
                    f"{path}: the checksum of the record length at byte {offset} is wrong"
                )
            if length > MAX_RECORD:
                raise ScenarioError(
                    f"{path}: the record at byte {offset} claims {length} bytes, "
                    f"at most {MAX_RECORD} are plausible"
                )
            body = file.read(length + 4)
            if len(body) < length + 4:
                raise ScenarioError(
                    f"{path}: truncated at byte {offset}: "
                    f"the record has {len(body)} of {length + 4} bytes"
                )
            data = body[:length]
            if masked_crc32c(data) != struct.unpack_from("<I", body, length)[0]:
                raise ScenarioError(f"{path}: the checksum of the record at byte {offset} is wrong")
            yield offset, data
            offset += 16 + length
