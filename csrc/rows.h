// Rows of features in a format that the tensor chooses: float32, float16, bfloat16, or indices.
#pragma once
#include <cstdint>

#include "hd.h"

namespace alpagym {

enum class RowFormat : int32_t { kFloat32, kFloat16, kBfloat16, kIndex };

struct Rows {
  void* data;
  RowFormat format;
};

ALPAGYM_HD int bytes_of(RowFormat format) {
  return format == RowFormat::kFloat32 || format == RowFormat::kIndex ? 4 : 2;
}

ALPAGYM_HD uint32_t bits_of(float v) {
  union {
    float number;
    uint32_t bits;
  } u{v};
  return u.bits;
}

// To the nearest bfloat16, ties to even; NaN stays NaN.
ALPAGYM_HD uint16_t bfloat16_of(float v) {
#ifdef __CUDA_ARCH__
  uint16_t narrow;
  asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(narrow) : "f"(v));
  return narrow;
#endif
  const uint32_t b = bits_of(v);
  if ((b & 0x7fffffffu) > 0x7f800000u) return static_cast<uint16_t>((b >> 16) | 0x40u);
  return static_cast<uint16_t>((b + 0x7fffu + ((b >> 16) & 1u)) >> 16);
}

// To the nearest float16, ties to even; what is too large becomes infinite, NaN stays NaN.
ALPAGYM_HD uint16_t float16_of(float v) {
#ifdef __CUDA_ARCH__
  uint16_t narrow;
  asm("cvt.rn.f16.f32 %0, %1;" : "=h"(narrow) : "f"(v));
  return narrow;
#endif
  const uint32_t b = bits_of(v), sign = (b >> 16) & 0x8000u, a = b & 0x7fffffffu;
  if (a > 0x7f800000u) return static_cast<uint16_t>(sign | 0x7e00u);
  if (a >= 0x477ff000u) return static_cast<uint16_t>(sign | 0x7c00u);
  const uint32_t exponent = a >> 23;
  if (exponent >= 113u)  // normal: 10 bits of fraction are kept, 13 rounded away
    return static_cast<uint16_t>(sign | ((a - 0x38000000u + 0xfffu + ((a >> 13) & 1u)) >> 13));
  if (exponent < 102u) return static_cast<uint16_t>(sign);
  const uint32_t fraction = (a & 0x7fffffu) | 0x800000u, shift = 126u - exponent;
  const uint32_t kept = fraction >> shift, rest = fraction & ((1u << shift) - 1u);
  const uint32_t half = 1u << (shift - 1u);
  return static_cast<uint16_t>(sign | (kept + (rest > half || (rest == half && (kept & 1u)))));
}

// Write one row of `columns` values, at most kMax, the row-th of its tensor.
template <int kMax>
ALPAGYM_HD void write_row(const Rows& rows, int64_t row, const float (&values)[kMax], int columns) {
  const int64_t at = row * columns;
  for (int k = 0; k < kMax; ++k) {  // unrolled, so that a GPU keeps `values` in registers
    if (k >= columns) return;
    if (rows.format == RowFormat::kFloat32)
      static_cast<float*>(rows.data)[at + k] = values[k];
    else
      static_cast<uint16_t*>(rows.data)[at + k] =
          rows.format == RowFormat::kFloat16 ? float16_of(values[k]) : bfloat16_of(values[k]);
  }
}

// Zero rows first..first + count - 1.
ALPAGYM_HD void clear_rows(const Rows& rows, int64_t first, int count, int columns) {
  if (bytes_of(rows.format) == 4) {
    uint32_t* to = static_cast<uint32_t*>(rows.data) + first * columns;
    for (int64_t k = 0; k < static_cast<int64_t>(count) * columns; ++k) to[k] = 0;
  } else {
    uint16_t* to = static_cast<uint16_t*>(rows.data) + first * columns;
    for (int64_t k = 0; k < static_cast<int64_t>(count) * columns; ++k) to[k] = 0;
  }
}

}  // namespace alpagym
