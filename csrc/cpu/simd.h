// Eight floats at a time, for any CPU: GCC's and Clang's vector types, which the compiler maps to
// what the target has. Every operation is the scalar one lane by lane, so results are the same bits
// whatever the width of the machine.
#pragma once
#include <cmath>
#include <cstdint>
#include <cstring>

namespace alpagym::simd {

constexpr int kLanes = 8;
typedef float Float8 __attribute__((vector_size(32)));
typedef int32_t Int8 __attribute__((vector_size(32)));  // of a comparison: -1 where it holds, or 0
typedef uint32_t UInt8 __attribute__((vector_size(32)));

inline Float8 load(const float* from) {
  Float8 v;
  std::memcpy(&v, from, sizeof v);
  return v;
}
inline void store(float* to, Float8 v) { std::memcpy(to, &v, sizeof v); }
inline Float8 splat(float v) { return Float8{v, v, v, v, v, v, v, v}; }
inline Float8 min(Float8 a, Float8 b) { return a < b ? a : b; }
inline Float8 max(Float8 a, Float8 b) { return a > b ? a : b; }
inline Float8 abs(Float8 a) {
  return reinterpret_cast<Float8>(reinterpret_cast<UInt8>(a) & 0x7fffffffu);
}
inline Float8 sqrt(Float8 a) {
  Float8 r;
  for (int k = 0; k < kLanes; ++k) r[k] = sqrtf(a[k]);
  return r;
}
inline Float8 swap_pairs(Float8 a) { return __builtin_shufflevector(a, a, 1, 0, 3, 2, 5, 4, 7, 6); }

// The lanes where a comparison holds: a byte of ones for each, the first lane lowest.
inline uint64_t lanes_of(Int8 mask) {
  typedef int8_t Bytes __attribute__((vector_size(8)));
  const Bytes bytes = __builtin_convertvector(mask, Bytes);
  uint64_t bits;
  std::memcpy(&bits, &bytes, sizeof bits);
  return bits;
}
inline int first_lane(uint64_t lanes) { return __builtin_ctzll(lanes) / 8; }
inline uint64_t without_first(uint64_t lanes) {
  return lanes & ~(uint64_t{0xff} << (__builtin_ctzll(lanes) & ~7));
}
inline int count(uint64_t lanes) { return __builtin_popcountll(lanes) / 8; }

// Eight records of eight floats, turned: column k of all of them in columns[k].
struct Columns {
  Float8 column[8];
};
inline Columns turned(const Float8 (&r)[8]) {
  Float8 a[8], b[8];
  for (int k = 0; k < 8; k += 2) {
    a[k] = __builtin_shufflevector(r[k], r[k + 1], 0, 8, 1, 9, 4, 12, 5, 13);
    a[k + 1] = __builtin_shufflevector(r[k], r[k + 1], 2, 10, 3, 11, 6, 14, 7, 15);
  }
  for (int k = 0; k < 8; k += 4) {
    b[k] = __builtin_shufflevector(a[k], a[k + 2], 0, 1, 8, 9, 4, 5, 12, 13);
    b[k + 1] = __builtin_shufflevector(a[k], a[k + 2], 2, 3, 10, 11, 6, 7, 14, 15);
    b[k + 2] = __builtin_shufflevector(a[k + 1], a[k + 3], 0, 1, 8, 9, 4, 5, 12, 13);
    b[k + 3] = __builtin_shufflevector(a[k + 1], a[k + 3], 2, 3, 10, 11, 6, 7, 14, 15);
  }
  Columns c;
  for (int k = 0; k < 4; ++k) {
    c.column[k] = __builtin_shufflevector(b[k], b[k + 4], 0, 1, 2, 3, 8, 9, 10, 11);
    c.column[k + 4] = __builtin_shufflevector(b[k], b[k + 4], 4, 5, 6, 7, 12, 13, 14, 15);
  }
  return c;
}
// Records named by indices; those beyond `n` repeat the last.
template <class Record>
inline Columns gather(const Record* records, const uint16_t* index, int n) {
  static_assert(sizeof(Record) == 32);
  Float8 rows[8];
  for (int k = 0; k < 8; ++k)
    rows[k] = load(reinterpret_cast<const float*>(records + index[k < n ? k : n - 1]));
  return turned(rows);
}

}  // namespace alpagym::simd
