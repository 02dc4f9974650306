"""The look at every byte of a store: `_core.scan` against NumPy."""

import numpy as np
import pytest

from alpagym import _core


def sum_of_words(data: bytes) -> int:
    data += bytes(-len(data) % 8)
    return int(np.frombuffer(data, "<u8").sum(dtype=np.uint64))


@pytest.mark.parametrize("dtype", ["<f4", "<i4", "u1"])
@pytest.mark.parametrize("offset", [0, 1, 5])
def test_sums_of_any_length_and_place(dtype: str, offset: int) -> None:
    rng = np.random.default_rng(0)
    size = np.dtype(dtype).itemsize
    for count in [*range(70), 1000]:
        raw = rng.integers(0, 256, offset + count * size, np.uint8)
        array = np.frombuffer(raw.tobytes(), dtype, count, offset)
        total, _ = _core.scan(array, -np.inf, np.inf, False)
        assert total == sum_of_words(array.tobytes())


def test_any_bit_that_flips_changes_the_sum() -> None:
    data = bytearray(np.random.default_rng(1).integers(0, 256, 203, np.uint8))
    whole = _core.scan(np.frombuffer(bytes(data), np.uint8), 0, 255, False)[0]
    for bit in range(8 * len(data)):
        data[bit // 8] ^= 1 << bit % 8
        assert _core.scan(np.frombuffer(bytes(data), np.uint8), 0, 255, False)[0] != whole
        data[bit // 8] ^= 1 << bit % 8


@pytest.mark.parametrize(
    ("dtype", "low", "high", "inside", "outside"),
    [
        (
            "<f4",
            -3.1416,
            3.1416,
            [-3.1415, 3.1415, 0.0],
            [3.1417, -3.1417, np.inf, -np.inf, np.nan],
        ),
        ("<f4", 0.0, 1e6, [0.0, 1e6, -0.0], [-1e-30, 1.1e6]),
        ("<i4", 0, np.inf, [0, 2**31 - 1], [-1, -(2**31)]),
        ("<i4", -1, 5, [-1, 5], [-2, 6, -(2**31), 2**31 - 1]),
        ("u1", 0, 6, [0, 6], [7, 255, 128]),
    ],
)
def test_one_value_out_of_bounds_is_found_wherever_it_lies(
    dtype: str, low: float, high: float, inside: list, outside: list
) -> None:
    for count in range(1, 70):
        array = np.resize(np.array(inside, dtype), count)
        assert _core.scan(array, low, high, False)[1]
        for k, wrong in enumerate(outside):
            changed = array.copy()
            changed[(7 * k + 3 * count) % count :: count] = wrong
            assert not _core.scan(changed, low, high, False)[1], (count, wrong)
    for at in range(69):
        changed = array.copy()
        changed[at] = outside[0]
        assert not _core.scan(changed, low, high, False)[1], at


def test_bounds_let_nothing_in_by_rounding() -> None:
    for x in np.float32([0.1, 1 / 3, 20_001.3, -0.7]):
        above, below = np.nextafter(x, np.float32(np.inf)), np.nextafter(x, np.float32(-np.inf))
        between = (float(x) + float(above)) / 2
        assert _core.scan(np.array([x]), -np.inf, between, False)[1]
        assert not _core.scan(np.array([above]), -np.inf, between, False)[1]
        between = (float(x) + float(below)) / 2
        assert _core.scan(np.array([x]), between, np.inf, False)[1]
        assert not _core.scan(np.array([below]), between, np.inf, False)[1]


def test_nan_is_let_in_where_it_stands_for_unknown() -> None:
    array = np.full(40, np.nan, np.float32)
    assert _core.scan(array, -1.0, 1.0, True)[1]
    array[17] = 1.5
    assert not _core.scan(array, -1.0, 1.0, True)[1]


def test_arrays_that_it_cannot_read_are_refused() -> None:
    with pytest.raises(ValueError, match="expected one dimension without gaps"):
        _core.scan(np.zeros((2, 3), np.uint8), 0, 1, False)
    with pytest.raises(ValueError, match="expected one dimension without gaps"):
        _core.scan(np.zeros(8, np.uint8)[::2], 0, 1, False)
    with pytest.raises(ValueError, match="expected float32, int32 or uint8, got d"):
        _core.scan(np.zeros(3), 0, 1, False)
