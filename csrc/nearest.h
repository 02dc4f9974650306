// The k nearest of a stream of candidates, exactly, in a fixed amount of memory.
#pragma once
#include "hd.h"

namespace alpagym {

constexpr int kMaxNearest = 256;  // slots an observation may ask for

// Keeps the k smallest (distance2, index) pairs in a binary max-heap; ties go to the smaller index,
// so the result does not depend on the order of the stream.
struct Nearest {
  int k, n = 0;
  float distance2[kMaxNearest];
  int index[kMaxNearest];

  ALPAGYM_HD explicit Nearest(int k) : k(k) {}
  ALPAGYM_HD bool before(int a, int b) const {
    return distance2[a] < distance2[b] || (distance2[a] == distance2[b] && index[a] < index[b]);
  }
  ALPAGYM_HD void swap(int a, int b) {
    const float d = distance2[a];
    const int i = index[a];
    distance2[a] = distance2[b];
    index[a] = index[b];
    distance2[b] = d;
    index[b] = i;
  }
  ALPAGYM_HD void sift_down(int i, int count) {
    for (int child = 2 * i + 1; child < count; child = 2 * i + 1) {
      if (child + 1 < count && before(child, child + 1)) ++child;
      if (!before(i, child)) return;
      swap(i, child);
      i = child;
    }
  }
  ALPAGYM_HD void add(float d2, int i) {
    if (n < k) {
      distance2[n] = d2;
      index[n] = i;
      for (int at = n++; at > 0 && before((at - 1) / 2, at); at = (at - 1) / 2)
        swap(at, (at - 1) / 2);
    } else if (k > 0 && (d2 < distance2[0] || (d2 == distance2[0] && i < index[0]))) {
      distance2[0] = d2;
      index[0] = i;
      sift_down(0, n);
    }
  }
  // Nearest first; nothing can be added after.
  ALPAGYM_HD void sort() {
    for (int count = n - 1; count > 0; --count) {
      swap(0, count);
      sift_down(0, count);
    }
  }
};

}  // namespace alpagym
