#include "vehicle.h"

#include "check.h"
#include "rng.h"

using namespace alpagym;

namespace {

constexpr float kDt = 0.1f;
constexpr Bounds kBounds{-8.f, 4.f, 0.3f, 5.f};

float between(uint64_t key, float low, float high) { return low + (high - low) * uniform(key); }

}  // namespace

TEST(constant_curvature_closes_the_circle) {
  // 200 steps of 1 m around a circle of circumference 200 m. The trapezoid rule turns the circle
  // into a closed polygon, so the error is rounding only.
  Kinematics k{{0.f, 0.f, 0.f}, 10.f};
  const float curvature = kTwoPi / 200.f;
  double farthest = 0;
  for (int i = 0; i < 200; ++i) {
    k = unicycle_step(k, {0.f, curvature}, kDt);
    farthest = std::fmax(farthest, std::hypot(k.pose.x, k.pose.y));
  }
  CHECK_NEAR(k.pose.x, 0.0, 1e-3);
  CHECK_NEAR(k.pose.y, 0.0, 1e-3);
  CHECK_NEAR(wrap_angle(k.pose.yaw), 0.0, 1e-4);
  CHECK_NEAR(farthest, 200.0 / kTwoPi * 2.0, 0.02);
}

TEST(stopping_distance_is_half_the_speed_squared_over_the_deceleration) {
  Kinematics k{{0.f, 0.f, 0.f}, 20.f};
  for (int i = 0; i < 60; ++i) k = unicycle_step(k, {-4.f, 0.f}, kDt);
  CHECK_NEAR(k.pose.x, 50.0, 1e-3);
  CHECK(k.speed == 0.f);  // and stays: braking does not reverse
}

TEST(the_last_braking_step_ends_at_standstill) {
  const Kinematics k = unicycle_step({{0.f, 0.f, 0.f}, 0.3f}, {-8.f, 0.f}, kDt);
  CHECK_NEAR(k.speed, 0.0, 1e-7);
  CHECK_NEAR(k.pose.x, 0.015, 1e-6);
}

TEST(unicycle_inverse_recovers_the_control) {
  for (uint64_t i = 0; i < 1000; ++i) {
    const uint64_t key = combine(3, i);
    const Kinematics from{{10.f, -5.f, between(combine(key, 0), -kPi, kPi)},
                          between(combine(key, 1), 2.f, 30.f)};
    const Control u{between(combine(key, 2), -8.f, 4.f), between(combine(key, 3), -0.3f, 0.3f)};
    const Control back = unicycle_inverse(from, unicycle_step(from, u, kDt), kDt);
    CHECK_NEAR(back.accel, u.accel, 1e-4);
    CHECK_NEAR(back.curvature, u.curvature, 1e-5);
  }
}

TEST(unicycle_inverse_of_standing_still_is_zero) {
  const Kinematics still{{1.f, 2.f, 3.f}, 0.f};
  const Control u = unicycle_inverse(still, still, kDt);
  CHECK(u.accel == 0.f && u.curvature == 0.f);
}

TEST(bounds_hold_and_nan_becomes_zero) {
  const Control fast = bounded({100.f, 1.f}, 20.f, kBounds);
  CHECK_NEAR(fast.accel, 4.0, 1e-6);
  CHECK_NEAR(fast.curvature, 5.0 / 400.0, 1e-7);  // lateral acceleration binds
  const Control slow = bounded({-100.f, -1.f}, 0.f, kBounds);
  CHECK_NEAR(slow.accel, -8.0, 1e-6);
  CHECK_NEAR(slow.curvature, -0.3, 1e-6);
  const Control nan = bounded({NAN, NAN}, 10.f, kBounds);
  CHECK(nan.accel == 0.f && nan.curvature == 0.f);
  const Control inside = bounded({1.f, 0.01f}, 10.f, kBounds);
  CHECK(inside.accel == 1.f && inside.curvature == 0.01f);
}

TEST(steering_angle_and_curvature_are_inverses) {
  for (const float angle : {-0.6f, -0.1f, 0.f, 0.3f})
    CHECK_NEAR(steering_angle_of(curvature_of(angle, 2.8f), 2.8f), angle, 1e-6);
  CHECK_NEAR(curvature_of(std::atan(2.8f / 10.f), 2.8f), 0.1, 1e-6);
}

TEST(delta_inverse_undoes_delta_step) {
  for (uint64_t i = 0; i < 100; ++i) {
    const uint64_t key = combine(4, i);
    const Pose from{between(combine(key, 0), -50.f, 50.f), 3.f,
                    between(combine(key, 1), -kPi, kPi)};
    const Pose delta{between(combine(key, 2), -2.f, 2.f), 0.4f,
                     between(combine(key, 3), -1.f, 1.f)};
    const Pose back = delta_inverse(from, delta_step(from, delta));
    CHECK_NEAR(back.x, delta.x, 2e-5);
    CHECK_NEAR(back.y, delta.y, 2e-5);
    CHECK_NEAR(back.yaw, delta.yaw, 2e-6);
  }
}

TEST(speed_is_negative_when_moving_backward) {
  CHECK_NEAR(speed_of({0.f, 0.f, 0.f}, {1.f, 0.f, 0.f}, kDt), 10.0, 1e-5);
  CHECK_NEAR(speed_of({0.f, 0.f, 0.f}, {-0.5f, 0.f, 0.f}, kDt), -5.0, 1e-5);
  CHECK_NEAR(speed_of({0.f, 0.f, 3.1f}, {-1.f, 0.f, -3.1f}, kDt), 10.0, 1e-5);  // across pi
}
