// Stage: fork. Copy worlds of one state into worlds of another.
#pragma once
#include "../state.h"

namespace alpagym::kernels {

// One thread per agent of the target. World w becomes world from[w] of the source; -1 leaves it
// alone. Walks the list of fields, so a new field is forked as soon as it is listed.
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
      if constexpr (sizeof...(inner) == 0) {  // [W]
        if (a == 0) to[w] = of[v];
      } else if (inner_is_agents(inner...)) {  // [W, A]
        to[w * target.A + a] = of[v * target.A + a];
      } else if (a == 0) {  // [W, E]
        for (int e = 0; e < target.E; ++e) to[w * target.E + e] = of[v * target.E + e];
      }
    });
  }

  ALPAGYM_HD static bool inner_is_agents(const char* symbol) { return symbol[0] == 'A'; }
};

}  // namespace alpagym::kernels
