// Vehicle models and their inverses: pure functions on values.
#pragma once
#include "se2.h"

namespace alpagym {

struct Control {
  float accel, curvature;  // [m/s^2, 1/m]
};
struct Kinematics {
  Pose pose;  // of the reference point: the rear axle
  float speed;
};
struct Bounds {
  float min_accel, max_accel, max_curvature, max_lateral_accel;
};

// Within bounds: curvature also such that speed^2 * curvature stays below the lateral limit. NaN
// gives 0.
ALPAGYM_HD Control bounded(Control u, float speed, const Bounds& b) {
  const float limit = fminf(b.max_curvature, b.max_lateral_accel / fmaxf(speed * speed, 1e-3f));
  const float accel = u.accel == u.accel ? u.accel : 0.f,
              curvature = u.curvature == u.curvature ? u.curvature : 0.f;
  return {fminf(fmaxf(accel, b.min_accel), b.max_accel), fminf(fmaxf(curvature, -limit), limit)};
}

// Unicycle of Alpamayo's action space: v' = v + a dt, yaw' = yaw + k (v dt + a dt^2 / 2), position
// by the trapezoid rule. Braking stops at standstill: nobody reverses by braking.
ALPAGYM_HD Kinematics unicycle_step(Kinematics k, Control u, float dt) {
  const float asked = k.speed + u.accel * dt, half_dt = 0.5f * dt;
  const float speed = k.speed >= 0.f ? fmaxf(asked, 0.f) : asked;
  const float yaw = k.pose.yaw + u.curvature * (k.speed + speed) * half_dt;
  return {{k.pose.x + half_dt * (k.speed * cosf(k.pose.yaw) + speed * cosf(yaw)),
           k.pose.y + half_dt * (k.speed * sinf(k.pose.yaw) + speed * sinf(yaw)), wrap_angle(yaw)},
          speed};
}

// The control that takes `from` to the speed and heading of `to`; curvature 0 where the way is too
// short (below 1 mm) to tell one.
ALPAGYM_HD Control unicycle_inverse(Kinematics from, Kinematics to, float dt) {
  const float accel = (to.speed - from.speed) / dt;
  const float way = from.speed * dt + 0.5f * accel * dt * dt;
  return {accel, fabsf(way) < 1e-3f ? 0.f : wrap_angle(to.pose.yaw - from.pose.yaw) / way};
}

// The control that a record amounts to; no curvature where noise makes one that no car can drive.
ALPAGYM_HD Control replayed_control(Kinematics from, Kinematics to, float dt, float max_curvature) {
  const Control u = unicycle_inverse(from, to, dt);
  return {u.accel, fabsf(u.curvature) < 2.f * max_curvature ? u.curvature : 0.f};
}

// Kinematic bicycle about the rear axle: curvature = tan(steering angle) / wheelbase.
ALPAGYM_HD float curvature_of(float steering_angle, float wheelbase) {
  return tanf(steering_angle) / wheelbase;
}
ALPAGYM_HD float steering_angle_of(float curvature, float wheelbase) {
  return atanf(curvature * wheelbase);
}

// The rear axle lies rear_axle behind the center and half a wheelbase behind mid-wheelbase; agents
// without a rear axle get 0.6 of their length.
ALPAGYM_HD float wheelbase_of(float length, float rear_axle) {
  return fmaxf(rear_axle > 0.f ? 2.f * rear_axle : 0.6f * length, 0.3f);
}

ALPAGYM_HD Pose ahead(Pose p, float distance) {
  return {p.x + distance * cosf(p.yaw), p.y + distance * sinf(p.yaw), p.yaw};
}

// A displacement given in the agent's own frame, and its inverse.
ALPAGYM_HD Pose delta_step(Pose p, Pose delta) {
  const Vec2 q = to_world(frame_of(p), {delta.x, delta.y});
  return {q.x, q.y, wrap_angle(p.yaw + delta.yaw)};
}
ALPAGYM_HD Pose delta_inverse(Pose from, Pose to) {
  const Vec2 q = to_local(frame_of(from), {to.x, to.y});
  return {q.x, q.y, wrap_angle(to.yaw - from.yaw)};
}

// Signed speed of a displacement: along the mean heading, over dt.
ALPAGYM_HD float speed_of(Pose from, Pose to, float dt) {
  const float mean_yaw = from.yaw + 0.5f * wrap_angle(to.yaw - from.yaw);
  const Vec2 d{to.x - from.x, to.y - from.y};
  return (dot(d, {cosf(mean_yaw), sinf(mean_yaw)}) < 0.f ? -1.f : 1.f) * norm(d) / dt;
}

}  // namespace alpagym
