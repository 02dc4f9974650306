// What opening a store asks of every byte: the sum of its words, and whether its values are
// allowed. One pass over memory, which is what it costs.
#pragma once
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <limits>
#include <type_traits>

namespace alpagym {

// Values that are allowed: from low to high, and NaN where it stands for what is not known.
template <class T>
struct Allowed {
  T low, high;
  bool nan;
};

// The values of T inside of [low, high], so that nothing is let in by rounding.
template <class T>
Allowed<T> inside(double low, double high, bool nan) {
  using Limits = std::numeric_limits<T>;
  if constexpr (std::is_floating_point_v<T>) {
    T least = static_cast<T>(low), most = static_cast<T>(high);
    if (least < low) least = std::nextafter(least, Limits::infinity());
    if (most > high) most = std::nextafter(most, -Limits::infinity());
    return {least, most, nan};
  } else {
    const auto clamped = [](double x) {
      if (x <= static_cast<double>(Limits::lowest())) return Limits::lowest();
      return x >= static_cast<double>(Limits::max()) ? Limits::max() : static_cast<T>(x);
    };
    return {clamped(std::ceil(low)), clamped(std::floor(high)), nan};
  }
}

struct Scanned {
  uint64_t sum;  // of 64-bit words modulo 2^64, the last one filled up with zeros
  bool fits;
};

// Both at once, 64 bytes a turn: any CPU does that as fast as memory gives them. The values may
// begin at any byte.
template <bool kNan, class T>
Scanned scan(const unsigned char* values, size_t count, const Allowed<T>& allowed) {
  constexpr size_t kTurn = 64, kAhead = 2048;
  typedef T Lanes __attribute__((vector_size(16)));
  typedef uint64_t Words __attribute__((vector_size(16)));
  using Mask = decltype(Lanes{} < Lanes{});
  const Lanes low = Lanes{} + allowed.low, high = Lanes{} + allowed.high;
  const size_t size = count * sizeof(T);
  Words sums[4] = {};
  Mask outside = {};
  // NaN is neither inside nor outside of anything.
  const auto is_outside = [&](auto x, auto least, auto most) {
    if constexpr (kNan)
      return (x < least) | (x > most);
    else
      return ~((x >= least) & (x <= most));
  };
  size_t at = 0;
  for (; at + kTurn <= size; at += kTurn) {
    Lanes x[4];
    std::memcpy(x, values + at, sizeof x);
    __builtin_prefetch(values + at + kAhead);
    for (int i = 0; i < 4; ++i) {
      sums[i] += reinterpret_cast<Words>(x[i]);
      outside |= is_outside(x[i], low, high);
    }
  }
  Lanes last = low;  // a value that is allowed, but in the first place
  for (size_t i = at; i < size; i += sizeof(T)) {
    T value;
    std::memcpy(&value, values + i, sizeof value);
    last[0] = value;
    outside |= is_outside(last, low, high);
  }
  Scanned found{0, true};
  for (const Words& sum : sums) found.sum += sum[0] + sum[1];
  for (size_t i = 0; i < sizeof(Lanes) / sizeof(T); ++i) found.fits &= !outside[i];
  for (; at < size; at += sizeof(uint64_t)) {
    uint64_t word = 0;
    std::memcpy(&word, values + at, size - at < sizeof word ? size - at : sizeof word);
    found.sum += word;
  }
  return found;
}

template <class T>
Scanned scan(const unsigned char* values, size_t count, const Allowed<T>& allowed) {
  return allowed.nan ? scan<true>(values, count, allowed) : scan<false>(values, count, allowed);
}

}  // namespace alpagym
