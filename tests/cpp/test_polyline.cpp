#include "polyline.h"

#include <vector>

#include "check.h"

using namespace alpagym;

namespace {

RoutePoint point_at(float x, float y, float z, float speed_limit) {
  RoutePoint p{};
  p.x = x;
  p.y = y;
  p.z = z;
  p.speed_limit = speed_limit;
  return p;
}

// Twenty meters north from (5, 0), climbing 1 m in 10.
std::vector<RoutePoint> north() {
  std::vector<RoutePoint> points;
  for (int i = 0; i <= 10; ++i) {
    const float s = kRouteSpacing * static_cast<float>(i);
    points.push_back(point_at(5.f, s, 0.1f * s, 13.f));
  }
  return points;
}

}  // namespace

TEST(sample_interpolates_position_and_height) {
  const auto points = north();
  const Route route{points.data(), static_cast<int>(points.size())};
  CHECK_NEAR(route.length(), 20.0, 1e-6);
  const RouteSample at = sample(route, 7.f);
  CHECK_NEAR(at.position.x, 5.0, 1e-6);
  CHECK_NEAR(at.position.y, 7.0, 1e-5);
  CHECK_NEAR(at.z, 0.7, 1e-5);
  CHECK_NEAR(at.direction.x, 0.0, 1e-6);
  CHECK_NEAR(at.direction.y, 1.0, 1e-6);
  CHECK_NEAR(at.speed_limit, 13.0, 1e-6);
}

TEST(sample_stays_on_the_route) {
  const auto points = north();
  const Route route{points.data(), static_cast<int>(points.size())};
  CHECK_NEAR(sample(route, -3.f).position.y, 0.0, 1e-6);
  CHECK_NEAR(sample(route, 20.f).position.y, 20.0, 1e-5);
  CHECK_NEAR(sample(route, 1e9f).position.y, 20.0, 1e-5);
}

TEST(projection_gives_arc_length_and_left_positive_offset) {
  const auto points = north();
  const Route route{points.data(), static_cast<int>(points.size())};
  const Projection left = project(route, {3.5f, 9.f}, 0, 100);  // west of a road to the north
  CHECK_NEAR(left.s, 9.0, 1e-5);
  CHECK_NEAR(left.d, 1.5, 1e-5);
  CHECK_NEAR(left.distance2, 2.25, 1e-5);
  CHECK_NEAR(left.direction.y, 1.0, 1e-6);
  CHECK_NEAR(project(route, {6.f, 9.f}, 0, 100).d, -1.0, 1e-5);
  CHECK_NEAR(project(route, {5.f, -4.f}, 0, 100).s, 0.0, 1e-6);
  CHECK_NEAR(project(route, {5.f, 30.f}, 0, 100).s, 20.0, 1e-5);
}

TEST(projection_undoes_sample_on_a_circle) {
  constexpr float kRadius = 30.f;
  std::vector<RoutePoint> points;
  for (int i = 0; i < 40; ++i) {
    const float angle = kRouteSpacing * static_cast<float>(i) / kRadius;
    points.push_back(point_at(kRadius * std::sin(angle), kRadius * (1 - std::cos(angle)), 0, 10));
  }
  const Route route{points.data(), static_cast<int>(points.size())};
  for (int i = 1; i < 75; ++i) {
    const float s = static_cast<float>(i) + 0.25f;
    const RouteSample at = sample(route, s);
    const Vec2 offset{-1.f * at.direction.y, at.direction.x};
    const Projection p = project_near(route, at.position + 0.5f * offset, s - 3.f);
    CHECK_NEAR(p.s, s, 0.02);  // chords, not arcs
    CHECK_NEAR(p.d, 0.5, 0.02);
  }
}

TEST(a_crossing_route_is_followed_in_order) {
  // East along y = 0, a detour north, then south along x = 20 across the beginning.
  std::vector<RoutePoint> points;
  for (int i = 0; i <= 20; ++i) points.push_back(point_at(2.f * i, 0, 0, 10));
  for (int i = 1; i <= 10; ++i) points.push_back(point_at(40, 2.f * i, 0, 10));
  for (int i = 1; i <= 10; ++i) points.push_back(point_at(40 - 2.f * i, 20, 0, 10));
  for (int i = 1; i <= 20; ++i) points.push_back(point_at(20, 20 - 2.f * i, 0, 10));
  const Route route{points.data(), static_cast<int>(points.size())};
  CHECK_NEAR(project_near(route, {20.f, 0.f}, 18.f).s, 20.0, 1e-4);
  CHECK_NEAR(project_near(route, {20.f, 0.f}, 98.f).s, 100.0, 1e-4);
}
