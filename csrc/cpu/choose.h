// The m smallest of a list of squared distances, exactly, without sorting them.
#pragma once
#include <algorithm>

#include "simd.h"

namespace alpagym::cpu {

// Candidates whose squared distance is known; room for whole vectors.
struct Candidates {
  static constexpr int kMax = 2048;

  int n = 0;
  alignas(32) float distance2[kMax + simd::kLanes];
  int32_t index[kMax + simd::kLanes];

  void add(float d2, int32_t i) {
    distance2[n] = d2;
    index[n++] = i;
  }
};

inline int count_below(const Candidates& c, float limit) {
  simd::Int8 sum{};
  for (int k = 0; k < c.n; k += simd::kLanes) sum -= simd::load(c.distance2 + k) <= limit;
  int total = 0;
  for (int k = 0; k < simd::kLanes; ++k) total += sum[k];
  return total;
}

// The smallest and the largest squared distance. Fills the list up to whole vectors.
struct Range {
  float low, high;
};
inline Range range_of(Candidates& c) {
  std::fill_n(c.distance2 + c.n, simd::kLanes, c.distance2[0]);
  simd::Float8 low = simd::load(c.distance2), high = low;
  for (int k = 0; k < c.n; k += simd::kLanes) {
    const simd::Float8 d = simd::load(c.distance2 + k);
    low = simd::min(low, d);
    high = simd::max(high, d);
  }
  Range all{low[0], high[0]};
  for (int k = 1; k < simd::kLanes; ++k) {
    all.low = std::min(all.low, low[k]);
    all.high = std::max(all.high, high[k]);
  }
  return all;
}

// Writes the indices of the m candidates with the smallest (distance2, index) in the order of the
// list, and returns how many: all of them if there are no more than m.
//
// Narrows the interval in which the limit lies until as many are below it as are wanted: by turns
// where it would be if distances were even, and by half. Where distances are equal and no limit
// separates them, the smaller indices win. Distances are finite.
inline int choose(Candidates& c, int m, int32_t* out) {
  if (c.n <= m) {
    std::copy(c.index, c.index + c.n, out);
    return c.n;
  }
  if (m <= 0) return 0;
  auto [low, high] = range_of(c);
  std::fill_n(c.distance2 + c.n, simd::kLanes, INFINITY);
  low = std::nextafter(low, -1.f);
  int below_low = 0, below_high = c.n;  // up to low: fewer than m; up to high: m or more
  int ties = 0;  // how many with a distance of exactly `high` are wanted; 0 for all
  for (bool guess = true;; guess = !guess) {
    const float share =
        static_cast<float>(m - below_low) / static_cast<float>(below_high - below_low);
    const float middle = low + (guess ? share : 0.5f) * (high - low);
    if (!(middle > low && middle < high)) {
      if (guess) continue;
      ties = m - below_low;
      break;
    }
    const int below = count_below(c, middle);
    if (below == m) {
      high = middle;
      break;
    }
    (below < m ? low : high) = middle;
    (below < m ? below_low : below_high) = below;
  }
  int n = 0;
  if (!ties) {
    for (int k = 0; k < c.n; ++k) {
      out[n] = c.index[k];
      n += c.distance2[k] <= high;
    }
    return n;
  }
  int32_t equal[Candidates::kMax];
  int num_equal = 0;
  for (int k = 0; k < c.n; ++k) {
    if (c.distance2[k] <= low)
      out[n++] = c.index[k];
    else if (c.distance2[k] <= high)
      equal[num_equal++] = c.index[k];
  }
  std::sort(equal, equal + num_equal);
  for (int k = 0; k < ties; ++k) out[n++] = equal[k];
  return n;
}

}  // namespace alpagym::cpu
