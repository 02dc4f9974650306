// Poses and frames in the plane: values in, values out.
#pragma once
#include <cmath>

#include "hd.h"

namespace alpagym {

constexpr float kPi = 3.14159265358979323846f;
constexpr float kTwoPi = 6.28318530717958647692f;

struct Vec2 {
  float x, y;
};
struct Pose {
  float x, y, yaw;  // [m, m, rad]
};
struct Frame {
  float x, y, cos, sin;  // origin and direction of the x axis
};

ALPAGYM_HD Vec2 operator+(Vec2 a, Vec2 b) { return {a.x + b.x, a.y + b.y}; }
ALPAGYM_HD Vec2 operator-(Vec2 a, Vec2 b) { return {a.x - b.x, a.y - b.y}; }
ALPAGYM_HD Vec2 operator*(float k, Vec2 a) { return {k * a.x, k * a.y}; }
ALPAGYM_HD float dot(Vec2 a, Vec2 b) { return a.x * b.x + a.y * b.y; }
ALPAGYM_HD float cross(Vec2 a, Vec2 b) { return a.x * b.y - a.y * b.x; }
ALPAGYM_HD float norm(Vec2 a) { return sqrtf(dot(a, a)); }

// Into [-pi, pi). Angles so large that float32 cannot tell them apart give some angle in range.
ALPAGYM_HD float wrap_angle(float a) {
  const float wrapped = a - kTwoPi * floorf((a + kPi) / kTwoPi);
  return wrapped >= kPi ? wrapped - kTwoPi : (wrapped < -kPi ? -kPi : wrapped);
}

// Sine and cosine, at most 1e-7 off for angles up to some thousand turns; NaN and infinity give
// NaN. The same operations for a number and for a vector of numbers, on any machine: multiples of a
// quarter turn are taken away in three steps (Cody and Waite), and minimax polynomials do the rest
// (coefficients of S. Moshier's Cephes library).
template <class F>
ALPAGYM_HD void sincos(F angle, F& sin, F& cos) {
  constexpr float kRound = 12582912.f;  // 1.5 * 2^23: added and taken away, it rounds
  const F shifted = angle * 0.636619772f + kRound, quarters = shifted - kRound;
  const F r = ((angle - quarters * 1.5703125f) - quarters * 4.837512969970703125e-4f) -
              quarters * 7.549789948768648e-8f;
  const F r2 = r * r;
  const F s = ((r2 * -1.9515295891e-4f + 8.3321608736e-3f) * r2 - 1.6666654611e-1f) * r2 * r + r;
  const F c = ((r2 * 2.443315711809948e-5f - 1.388731625493765e-3f) * r2 + 4.166664568298827e-2f) *
                  r2 * r2 -
              0.5f * r2 + 1.f;
  // quarters modulo 4, by which the quadrants take turns
  const F turns = quarters * 0.25f, whole = (turns + kRound) - kRound;
  const F quadrant = quarters - whole * 4.f;  // -2, -1, 0, 1 or 2
  const auto odd = quadrant * quadrant == 1.f;
  const F one = F{} + 1.f, sign = quadrant * quadrant == 4.f ? -one : one;
  sin = odd ? quadrant * c : sign * s;
  cos = odd ? -quadrant * s : sign * c;
}

ALPAGYM_HD Frame frame_of(Pose p) {
  Frame f{p.x, p.y, 0.f, 0.f};
  sincos(p.yaw, f.sin, f.cos);
  return f;
}
ALPAGYM_HD Vec2 rotate_into(Frame f, Vec2 v) {
  return {f.cos * v.x + f.sin * v.y, f.cos * v.y - f.sin * v.x};
}
ALPAGYM_HD Vec2 rotate_out(Frame f, Vec2 v) {
  return {f.cos * v.x - f.sin * v.y, f.sin * v.x + f.cos * v.y};
}
ALPAGYM_HD Vec2 to_local(Frame f, Vec2 p) { return rotate_into(f, {p.x - f.x, p.y - f.y}); }
ALPAGYM_HD Vec2 to_world(Frame f, Vec2 p) { return Vec2{f.x, f.y} + rotate_out(f, p); }

}  // namespace alpagym
