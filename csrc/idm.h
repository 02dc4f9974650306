// Intelligent driver model (Treiber, Hennecke, Helbing 2000) and what it needs to look ahead.
#pragma once
#include "params.h"
#include "se2.h"

namespace alpagym {

// a [1 - (v / v0)^4 - (s* / gap)^2] with s* = s0 + max(0, v T + v dv / (2 sqrt(a b))), within the
// hardest braking. `closing` is own speed minus the leader's; an infinite gap means a free road.
ALPAGYM_HD float idm_accel(const Params& p, float speed, float desired, float gap, float closing) {
  const float ratio = speed / fmaxf(desired, 0.1f), free_road = ratio * ratio * ratio * ratio;
  const float dynamic =
      speed * p.idm_headway + speed * closing / (2.f * sqrtf(p.idm_accel * p.idm_decel));
  const float interaction = (p.idm_gap + fmaxf(dynamic, 0.f)) / fmaxf(gap, 0.1f);
  return fmaxf(p.idm_accel * (1.f - free_road - interaction * interaction), -p.idm_max_decel);
}

// Time to cover `distance` from `speed` with acceleration `accel`.
ALPAGYM_HD float time_to_cover(float distance, float speed, float accel) {
  const float d = fmaxf(distance, 0.f), v = fmaxf(speed, 0.f);
  return (sqrtf(v * v + 2.f * accel * d) - v) / accel;
}

}  // namespace alpagym
