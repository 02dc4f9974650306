#include "se2.h"

#include "check.h"

using namespace alpagym;

TEST(wrap_angle_is_in_range_and_keeps_the_direction) {
  for (int i = -4000; i <= 4000; ++i) {
    const float angle = 0.01f * static_cast<float>(i);
    const float wrapped = wrap_angle(angle);
    CHECK(wrapped >= -kPi && wrapped < kPi);
    CHECK_NEAR(std::cos(wrapped), std::cos(angle), 1e-5);
    CHECK_NEAR(std::sin(wrapped), std::sin(angle), 1e-5);
  }
}

TEST(wrap_angle_at_the_ends_of_the_range) {
  CHECK(wrap_angle(kPi) == -kPi);
  CHECK(wrap_angle(-kPi) == -kPi);
  CHECK(wrap_angle(0.f) == 0.f);
  CHECK(std::isnan(wrap_angle(NAN)));
}

TEST(frames_have_x_forward_and_y_left) {
  const Frame north = frame_of({10.f, 20.f, 0.5f * kPi});
  const Vec2 ahead = to_local(north, {10.f, 23.f});
  CHECK_NEAR(ahead.x, 3.0, 1e-5);
  CHECK_NEAR(ahead.y, 0.0, 1e-5);
  const Vec2 west = to_local(north, {6.f, 20.f});
  CHECK_NEAR(west.x, 0.0, 1e-5);
  CHECK_NEAR(west.y, 4.0, 1e-5);
}

TEST(to_world_undoes_to_local) {
  for (int i = 0; i < 100; ++i) {
    const float t = static_cast<float>(i);
    const Frame frame = frame_of({7.f * t, -3.f * t, 0.37f * t});
    const Vec2 p{100.f - t, 2.f * t}, q = to_world(frame, to_local(frame, p));
    CHECK_NEAR(q.x, p.x, 1e-3);
    CHECK_NEAR(q.y, p.y, 1e-3);
  }
}
