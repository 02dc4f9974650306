// Oriented rectangles: corners, overlap by separating axes, time to collision at constant velocity.
#pragma once
#include "se2.h"

namespace alpagym {

struct Box {
  Frame frame;  // center and heading
  float half_length, half_width;
};

ALPAGYM_HD Box box_at(Pose p, float length, float width) {
  return {frame_of(p), 0.5f * length, 0.5f * width};
}

// Corner k of 4, counter-clockwise from front left.
ALPAGYM_HD Vec2 corner(const Box& b, int k) {
  const float sx = (k == 0 || k == 3) ? 1.f : -1.f, sy = k < 2 ? 1.f : -1.f;
  return to_world(b.frame, {sx * b.half_length, sy * b.half_width});
}

ALPAGYM_HD float radius(const Box& b) { return norm({b.half_length, b.half_width}); }

// Half the extent of `b` along direction `axis` (unit).
ALPAGYM_HD float extent_along(const Box& b, Vec2 axis) {
  return b.half_length * fabsf(b.frame.cos * axis.x + b.frame.sin * axis.y) +
         b.half_width * fabsf(b.frame.cos * axis.y - b.frame.sin * axis.x);
}

// Two rectangles overlap unless one of their four edge directions separates them. Touching counts.
ALPAGYM_HD bool overlap(const Box& a, const Box& b) {
  const Vec2 d{b.frame.x - a.frame.x, b.frame.y - a.frame.y};
  const Vec2 axes[4] = {{a.frame.cos, a.frame.sin},
                        {-a.frame.sin, a.frame.cos},
                        {b.frame.cos, b.frame.sin},
                        {-b.frame.sin, b.frame.cos}};
  for (const Vec2& axis : axes)
    if (fabsf(dot(d, axis)) > extent_along(a, axis) + extent_along(b, axis)) return false;
  return true;
}

// Smallest t in [0, horizon] at which the boxes overlap when `b` moves at `velocity` relative to
// `a` and neither turns; INFINITY if none. On each axis the projections overlap during one interval
// of time: |d + v t| <= r; the boxes overlap in the intersection of the four.
ALPAGYM_HD float time_to_collision(const Box& a, const Box& b, Vec2 velocity, float horizon) {
  const Vec2 d{b.frame.x - a.frame.x, b.frame.y - a.frame.y};
  const Vec2 axes[4] = {{a.frame.cos, a.frame.sin},
                        {-a.frame.sin, a.frame.cos},
                        {b.frame.cos, b.frame.sin},
                        {-b.frame.sin, b.frame.cos}};
  float enter = 0.f, leave = horizon;
  for (const Vec2& axis : axes) {
    const float p = dot(d, axis), v = dot(velocity, axis);
    const float r = extent_along(a, axis) + extent_along(b, axis);
    if (fabsf(v) < 1e-6f) {
      if (fabsf(p) > r) return INFINITY;
      continue;
    }
    const float t0 = (-r - p) / v, t1 = (r - p) / v;
    enter = fmaxf(enter, fminf(t0, t1));
    leave = fminf(leave, fmaxf(t0, t1));
  }
  return enter <= leave ? enter : INFINITY;
}

}  // namespace alpagym
