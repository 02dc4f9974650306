// The k nearest of a stream of candidates, exactly, by a warp: what Nearest (nearest.h) finds.
#pragma once
#include "nearest.h"
#include "rows.h"
#include "warp.cuh"

namespace alpagym::cuda {

// A warp's shared memory.
struct Pool {
  static constexpr int kMax = 512;
  static constexpr int kStaged = kLanes * 8 * 4;  // bytes of a row for each lane

  alignas(16) char staged[kStaged];
  uint32_t distance2[kMax];  // the bits of a float; of numbers that are not negative their order
                             // is that of the numbers
  int32_t index[kMax];
};

// Candidates come by rising index. When the pool is full, all but the k nearest are dropped, which
// changes nothing: of those that are left, the k nearest are still the k nearest of all.
class WarpNearest {
 public:
  int n = 0;  // of them there are now

  // Distances are at most `reach2`.
  __device__ __forceinline__ WarpNearest(Pool& pool, int k, float reach2)
      : pool_(pool), k_(k), bound_(k > 0 ? bits_of(reach2) + 1 : 0) {
    __syncwarp();  // the pool may still be read for what was wanted before
  }

  // One candidate of each lane for which `there`.
  __device__ __forceinline__ void add(bool there, float distance2, int index) {
    const uint32_t d = bits_of(distance2);
    there = there && d < bound_;
    const uint32_t who = ballot(there);
    if (there) {
      const int at = n + __popc(who & lanes_before());
      pool_.distance2[at] = d;
      pool_.index[at] = index;
    }
    n += __popc(who);
    if (n > Pool::kMax - kLanes) keep();
  }

  // Ends the stream: the nearest are in the pool, by rising index, or sorted by distance.
  __device__ __forceinline__ void finish(bool sorted) {
    keep();
    if (sorted) sort();
  }

 private:
  static constexpr int kEach = Pool::kMax / kLanes;  // candidates of a lane

  // Drops all but the k nearest.
  //
  // Narrows the interval in which the bits of the last one wanted lie until as many are below as
  // are wanted: by where it would be if candidates lay evenly in the plane, and now and then by
  // half. Where distances are equal and nothing separates them, the smaller indices win.
  __device__ __forceinline__ void keep() {
    __syncwarp();
    if (n <= k_) return;
    uint32_t own[kEach];
#pragma unroll
    for (int j = 0; j < kEach; ++j) {
      const int at = j * kLanes + lane();
      own[j] = at < n ? pool_.distance2[at] : kNone;
    }
    uint32_t low = 0, high = bound_;  // of the last one wanted
    int below_low = 0, up_to_high = n;
    uint32_t limit = 0;  // those below are wanted, and of those that are at it some
    int ties = 0;
    for (int turn = 0;; ++turn) {
      if (low == high || up_to_high == k_) {
        limit = up_to_high == k_ ? high + 1 : high;
        ties = up_to_high == k_ ? 0 : k_ - below_low;
        break;
      }
      const uint32_t middle = turn % 4 == 3
                                  ? low + (high - low) / 2
                                  : between(low, high, k_ - below_low, up_to_high - below_low);
      const int count = count_up_to(own, middle);
      if (count >= k_) {
        high = middle;
        up_to_high = count;
      } else {
        low = middle + 1;
        below_low = count;
      }
    }
    drop(own, limit, ties);
    bound_ = limit;  // who comes later and is as far as the last one has a larger index
  }

  __device__ __forceinline__ static float number_of(uint32_t bits) {
    union {
      uint32_t bits;
      float number;
    } u{bits};
    return u.number;
  }
  // Bits from low to high - 1, about where `part` of `all` candidates lie below.
  __device__ __forceinline__ static uint32_t between(uint32_t low, uint32_t high, int part,
                                                     int all) {
    const float share = (static_cast<float>(part) + 0.5f) / static_cast<float>(all + 1);
    const uint32_t guess = bits_of(number_of(low) + share * (number_of(high) - number_of(low)));
    return guess < low ? low : guess >= high ? high - 1 : guess;
  }
  __device__ __forceinline__ static int count_up_to(const uint32_t (&own)[kEach], uint32_t limit) {
    int count = 0;
#pragma unroll
    for (int j = 0; j < kEach; ++j) count += own[j] <= limit;
    return __reduce_add_sync(kAllLanes, count);
  }

  // Keeps those below the limit and the first `ties` at it, in their order.
  __device__ __forceinline__ void drop(const uint32_t (&own)[kEach], uint32_t limit, int ties) {
    int kept = 0, tied = 0;
#pragma unroll
    for (int j = 0; j < kEach; ++j) {
      const uint32_t equal = ballot(own[j] == limit);
      const bool wanted =
          own[j] < limit || (own[j] == limit && tied + __popc(equal & lanes_before()) < ties);
      const uint32_t who = ballot(wanted);
      const int index = pool_.index[j * kLanes + lane()];
      __syncwarp();  // what is written now may be what another lane has just read
      if (wanted) {
        const int at = kept + __popc(who & lanes_before());
        pool_.distance2[at] = own[j];
        pool_.index[at] = index;
      }
      kept += __popc(who);
      tied += __popc(equal);
    }
    n = kept;
    __syncwarp();
  }

  // By distance, ties by index: a bitonic network over the next power of two.
  __device__ __forceinline__ void sort() {
    int size = 2;
    while (size < n) size *= 2;
    for (int at = n + lane(); at < size; at += kLanes) {
      pool_.distance2[at] = kNone;
      pool_.index[at] = INT32_MAX;
    }
    __syncwarp();
    for (int run = 2; run <= size; run *= 2) {
      for (int stride = run / 2; stride > 0; stride /= 2) {
        for (int pair = lane(); pair < size / 2; pair += kLanes) {
          const int a = 2 * pair - (pair & (stride - 1)), b = a + stride;
          if (before(b, a) == ((a & run) == 0)) swap(a, b);
        }
        __syncwarp();
      }
    }
  }
  __device__ __forceinline__ bool before(int a, int b) const {
    return pool_.distance2[a] < pool_.distance2[b] ||
           (pool_.distance2[a] == pool_.distance2[b] && pool_.index[a] < pool_.index[b]);
  }
  __device__ __forceinline__ void swap(int a, int b) {
    const uint32_t d = pool_.distance2[a];
    const int32_t i = pool_.index[a];
    pool_.distance2[a] = pool_.distance2[b];
    pool_.index[a] = pool_.index[b];
    pool_.distance2[b] = d;
    pool_.index[b] = i;
  }

  static constexpr uint32_t kNone = 0xffffffffu;  // no distance has these bits

  Pool& pool_;
  int k_;
  uint32_t bound_;  // those at it and farther need not be looked at
};
static_assert(kMaxNearest <= Pool::kMax - kLanes);

}  // namespace alpagym::cuda
