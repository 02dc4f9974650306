// Stage: fork. Copy worlds of one state into worlds of another.
#pragma once
#include "../state.h"

namespace alpagym::kernels {

// One thread per agent of the target, which share what a world has more of. World w becomes world
// from[w] of the source; -1 leaves it alone. Walks the list of fields, so a new field is forked as
// soon as it is listed.
struct Fork {
  State source, target;
  const int32_t* from;  // [target.W]
  ALPAGYM_HD int size() const { return target.W * target.A; }

  ALPAGYM_HD void operator()(int i) const {
    const int w = i / target.A, a = i % target.A, v = from[w];
    if (v < 0 || v >= source.W) return;
    State::fields([&](const char*, auto member, const char*, auto... inner) {
      auto* to = target.*member;
      const auto* of = source.*member;
      const int64_t size = (size_of(inner) * ... * 1);
      for (int n = a; n < size; n += target.A) to[w * size + n] = of[v * size + n];
    });
  }

  ALPAGYM_HD int64_t size_of(const char* symbol) const {
    return symbol[0] == 'A' ? target.A : symbol[0] == 'E' ? target.E : target.M;
  }
};

}  // namespace alpagym::kernels
