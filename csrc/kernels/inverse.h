// Stage: inverse. Two successive states -> the action that leads from one to the other.
#pragma once
#include "../actions.h"
#include "../params.h"
#include "../world.h"

namespace alpagym::kernels {

// One thread per ego of `before`. Zeros for a slot without an ego, and for an ego that is absent
// before or after. A plan has no inverse: two states do not tell what lies further ahead.
struct Inverse {
  Scenarios c;
  State before, after;
  float* action;  // [W, E, element_size]
  Params p;
  ALPAGYM_HD int size() const { return before.W * before.E; }

  ALPAGYM_HD void operator()(int k) const {
    const int w = k / before.E, a = before.ego[k], columns = element_size(p.action);
    float* u = action + static_cast<int64_t>(k) * columns;
    for (int d = 0; d < columns; ++d) u[d] = 0.f;
    const World world = world_of(c, before, w);
    if (a < 0 || a >= world.agents) return;
    const int i = w * before.A + a;
    if (!before.valid[i] || !after.valid[i]) return;
    write_inverse(p.action, u, subject_of(c, before, world.first + a, i, p.dt), pose_of(after, i),
                  after.speed[i]);
  }
};

}  // namespace alpagym::kernels
