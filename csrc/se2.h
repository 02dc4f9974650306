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

ALPAGYM_HD Frame frame_of(Pose p) { return {p.x, p.y, cosf(p.yaw), sinf(p.yaw)}; }
ALPAGYM_HD Vec2 rotate_into(Frame f, Vec2 v) {
  return {f.cos * v.x + f.sin * v.y, f.cos * v.y - f.sin * v.x};
}
ALPAGYM_HD Vec2 rotate_out(Frame f, Vec2 v) {
  return {f.cos * v.x - f.sin * v.y, f.sin * v.x + f.cos * v.y};
}
ALPAGYM_HD Vec2 to_local(Frame f, Vec2 p) { return rotate_into(f, {p.x - f.x, p.y - f.y}); }
ALPAGYM_HD Vec2 to_world(Frame f, Vec2 p) { return Vec2{f.x, f.y} + rotate_out(f, p); }

}  // namespace alpagym
