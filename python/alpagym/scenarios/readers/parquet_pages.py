"""What the pages of a Parquet file unpack to, told from their headers before any is unpacked.

pyarrow allocates what the header of a page claims, whatever the file's own index says; so headers
are read here as pyarrow will find them: from the first page of each column chunk on, for as many
bytes as the index gives the chunk. Headers and index are structs of Thrift's compact protocol (the
field numbers are those of parquet-format, parquet.thrift).
"""

from __future__ import annotations

from typing import Any

MAX_NESTING, MAX_FIELDS = 16, 500_000
_DELTA_TEXTS = 7
"""The encoding in which a text of any length may be a copy of the one before."""
_FIXED = 7
"""The type of columns whose values have a length that the index gives."""
_STOP, _TRUE, _FALSE, _BYTE, _INTEGERS, _DOUBLE = 0, 1, 2, 3, (4, 5, 6), 7
_BINARY, _LIST, _SET, _STRUCT = 8, 9, 10, 12

Struct = dict[int, Any]
"""Fields by number."""


def check_pages(data: bytes, max_bytes: int, max_values: int) -> None:
    """Refuse a file whose pages claim to unpack to more than is read.

    Args:
        data: the whole file.
        max_bytes: of all pages unpacked.
        max_values: most values of all pages, nulls and items of lists included; a value of more
            than 16 bytes counts as several.

    Raises:
        ValueError: saying what they claim, or that headers are damaged.
    """
    if len(data) < 12 or data[-4:] != b"PAR1":
        raise ValueError("it does not end with the mark of Parquet")
    length = int.from_bytes(data[-8:-4], "little")
    if length > len(data) - 12:
        raise ValueError("its index is longer than the file")
    index = _Reader(data, len(data) - 8 - length, len(data) - 8).struct(0)
    # Of columns of fixed length, one value in a page may be repeated any number of times.
    fixed = [_number(leaf, 2) for leaf in _structs(index, 2) if _number(leaf, 1) == _FIXED]
    weight = -(-max([16, *fixed]) // 16)
    unpacked = values = 0
    for group in _structs(index, 4):
        for number, chunk in enumerate(_structs(group, 1)):
            meta = chunk.get(3, {})
            begin, packed = _number(meta, 9), _number(meta, 7)
            first = _number(meta, 11)
            begin = first if 0 < first < begin else begin
            end = begin + packed
            if not 0 <= begin <= end <= len(data):
                raise ValueError(f"column {number} lies outside the file")
            while begin < end:
                reader = _Reader(data, begin, end)
                page = reader.struct(0)
                size, body = _number(page, 2), _number(page, 3)
                about = page.get(5) or page.get(8) or page.get(7) or {}
                count = _number(about, 1)
                if min(size, body, count) < 0:
                    raise ValueError(f"a page of column {number} has a negative size")
                encoding = _number(about, 2 if 5 in page or 7 in page else 4)
                if encoding == _DELTA_TEXTS:
                    raise ValueError(f"column {number} is packed as differences of texts")
                unpacked += size
                if 7 not in page:
                    values += count * weight
                if unpacked > max_bytes or values > max_values:
                    raise ValueError(
                        f"its pages claim to unpack to at least {unpacked} bytes of {values} "
                        f"values, but {max_bytes} bytes of {max_values} values are the most"
                    )
                begin = reader.at + body
                if begin > end:
                    raise ValueError(f"a page of column {number} is cut off")


def _number(struct: Any, field: int) -> int:
    value = struct.get(field, 0) if isinstance(struct, dict) else 0
    if not isinstance(value, int):
        raise ValueError("a number in a header is none")
    return int(value)


def _structs(struct: Struct, field: int) -> list[Struct]:
    value = struct.get(field, [])
    if not isinstance(value, list) or not all(isinstance(v, dict) for v in value):
        raise ValueError("a list in the index is none")
    return value


class _Reader:
    """Reads Thrift's compact protocol within bounds."""

    def __init__(self, data: bytes, at: int, end: int) -> None:
        self._data, self.at, self._end = data, at, end
        self._fields = 0

    def struct(self, depth: int) -> Struct:
        """The struct that begins here; of fields that occur twice the last, as others do."""
        fields: Struct = {}
        number = 0
        while True:
            head = self._byte()
            kind = head & 15
            if kind == _STOP:
                return fields
            number = number + (head >> 4) if head >> 4 else self._zigzag()
            fields[number] = self._value(kind, depth + 1)

    def _byte(self) -> int:
        if self.at >= self._end:
            raise ValueError("a header is cut off")
        self.at += 1
        return self._data[self.at - 1]

    def _varint(self) -> int:
        value = shift = 0
        while shift < 70:
            byte = self._byte()
            value |= (byte & 127) << shift
            if byte < 128:
                return value
            shift += 7
        raise ValueError("a number in a header has too many bytes")

    def _zigzag(self) -> int:
        value = self._varint()
        return (value >> 1) ^ -(value & 1)

    def _value(self, kind: int, depth: int, *, in_list: bool = False) -> Any:
        self._fields += 1
        if depth > MAX_NESTING or self._fields > MAX_FIELDS:
            raise ValueError("a header is nested too deeply or has too many fields")
        if kind in (_TRUE, _FALSE):
            return self._byte() if in_list else int(kind == _TRUE)
        if kind == _BYTE:
            return self._byte()
        if kind in _INTEGERS:
            return self._zigzag()
        if kind in (_DOUBLE, _BINARY):
            self._skip(8 if kind == _DOUBLE else self._varint())
            return None
        if kind in (_LIST, _SET):
            head = self._byte()
            count = head >> 4 if head >> 4 < 15 else self._varint()
            if count > self._end - self.at:
                raise ValueError("a list in a header is longer than the file")
            return [self._value(head & 15, depth + 1, in_list=True) for _ in range(count)]
        if kind == _STRUCT:
            return self.struct(depth)
        raise ValueError(f"a field of unknown kind {kind} in a header")

    def _skip(self, length: int) -> None:
        self.at += length
        if self.at > self._end:
            raise ValueError("a header is cut off")
