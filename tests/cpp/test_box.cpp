#include "box.h"

#include "check.h"
#include "rng.h"

using namespace alpagym;

namespace {

float between(uint64_t key, float low, float high) { return low + (high - low) * uniform(key); }

// How deep a point lies in a box: distance to the nearest side, negative outside.
float depth(const Box& b, Vec2 p) {
  const Vec2 q = to_local(b.frame, p);
  return std::fmin(b.half_length - fabsf(q.x), b.half_width - fabsf(q.y));
}

// The depth in `b` of the point of `a` that lies deepest, among points 1/32 of its sides apart.
float deepest(const Box& a, const Box& b) {
  float best = -INFINITY;
  for (int i = -32; i <= 32; ++i)
    for (int k = -32; k <= 32; ++k) {
      const Vec2 p = to_world(a.frame, {static_cast<float>(i) / 32.f * a.half_length,
                                        static_cast<float>(k) / 32.f * a.half_width});
      best = std::fmax(best, depth(b, p));
    }
  return best;
}

}  // namespace

TEST(corners_run_counter_clockwise_from_front_left) {
  const Box b = box_at({1.f, 2.f, 0.f}, 4.f, 2.f);
  const Vec2 expected[4] = {{3.f, 3.f}, {-1.f, 3.f}, {-1.f, 1.f}, {3.f, 1.f}};
  for (int k = 0; k < 4; ++k) {
    CHECK_NEAR(corner(b, k).x, expected[k].x, 1e-6);
    CHECK_NEAR(corner(b, k).y, expected[k].y, 1e-6);
  }
  CHECK_NEAR(radius(b), std::sqrt(5.0), 1e-6);
}

TEST(touching_boxes_overlap_and_parted_ones_do_not) {
  const Box a = box_at({0.f, 0.f, 0.f}, 4.f, 2.f);
  CHECK(overlap(a, box_at({4.f, 0.f, 0.f}, 4.f, 2.f)));
  CHECK(!overlap(a, box_at({4.001f, 0.f, 0.f}, 4.f, 2.f)));
  CHECK(overlap(a, box_at({0.f, 2.f, 0.f}, 4.f, 2.f)));
  CHECK(!overlap(a, box_at({0.f, 2.001f, 0.f}, 4.f, 2.f)));
}

TEST(a_diagonal_gap_is_seen_by_the_edges_of_the_turned_box) {
  // The corner of `a` is (2, 1); the turned square's side lies on the line x + y = 3 + gap sqrt(2).
  const Box a = box_at({0.f, 0.f, 0.f}, 4.f, 2.f);
  for (const float gap : {-0.01f, 0.01f}) {
    const float distance = (1.f + gap) / std::sqrt(2.f);
    const Box b = box_at({2.f + distance, 1.f + distance, 0.25f * kPi}, 2.f, 2.f);
    CHECK(overlap(a, b) == (gap < 0.f));
    CHECK(overlap(b, a) == (gap < 0.f));
  }
}

TEST(overlap_agrees_with_points_of_one_box_inside_the_other) {
  int overlapping = 0;
  for (uint64_t i = 0; i < 400; ++i) {
    const uint64_t key = combine(1, i);
    const Box a = box_at({0.f, 0.f, between(combine(key, 0), -kPi, kPi)}, 4.5f, 2.f);
    const Box b = box_at({between(combine(key, 1), -5.f, 5.f), between(combine(key, 2), -5.f, 5.f),
                          between(combine(key, 3), -kPi, kPi)},
                         between(combine(key, 4), 0.5f, 6.f), between(combine(key, 5), 0.5f, 3.f));
    const float inside = std::fmax(deepest(a, b), deepest(b, a));
    CHECK(overlap(a, b) == overlap(b, a));
    if (inside >= 0.f) CHECK(overlap(a, b));
    if (inside < -0.15f) CHECK(!overlap(a, b));  // farther apart than the points miss
    overlapping += overlap(a, b);
  }
  CHECK(overlapping > 50 && overlapping < 350);
}

TEST(time_to_collision_is_gap_over_closing_speed) {
  const Box a = box_at({0.f, 0.f, 0.3f}, 4.f, 2.f);
  const Box b = box_at(Pose{14.f * std::cos(0.3f), 14.f * std::sin(0.3f), 0.3f}, 4.f, 2.f);
  const Vec2 closing{-5.f * std::cos(0.3f), -5.f * std::sin(0.3f)};
  CHECK_NEAR(time_to_collision(a, b, closing, 5.f), 2.0, 1e-4);     // gap 10 m at 5 m/s
  CHECK(time_to_collision(a, b, closing, 1.9f) == INFINITY);        // beyond the horizon
  CHECK(time_to_collision(a, b, -1.f * closing, 5.f) == INFINITY);  // parting
  CHECK(time_to_collision(a, b, {0.f, 0.f}, 5.f) == INFINITY);      // at rest, apart
  CHECK(time_to_collision(a, a, {0.f, 0.f}, 5.f) == 0.f);           // overlapping already
  CHECK(time_to_collision(a, b, {5.f * std::sin(0.3f), -5.f * std::cos(0.3f)}, 5.f) == INFINITY);
}

TEST(at_the_time_to_collision_the_boxes_touch) {
  int hits = 0;
  for (uint64_t i = 0; i < 400; ++i) {
    const uint64_t key = combine(2, i);
    const Box a = box_at({0.f, 0.f, between(combine(key, 0), -kPi, kPi)}, 4.5f, 2.f);
    Box b = box_at({between(combine(key, 1), -20.f, 20.f), between(combine(key, 2), -20.f, 20.f),
                    between(combine(key, 3), -kPi, kPi)},
                   4.f, 1.8f);
    const Vec2 toward{-b.frame.x * 0.3f, -b.frame.y * 0.3f};
    if (overlap(a, b)) continue;
    const float t = time_to_collision(a, b, toward, 5.f);
    CHECK(t <= 5.f);  // it passes through the center of `a` within 3.4 s
    const Frame start = b.frame;
    for (const float shift : {-0.01f, 0.01f}) {
      b.frame.x = start.x + (t + shift) * toward.x;
      b.frame.y = start.y + (t + shift) * toward.y;
      CHECK(overlap(a, b) == (shift > 0.f));
    }
    ++hits;
  }
  CHECK(hits > 300);
}
