#include "mobil.h"

#include "check.h"

using namespace alpagym;

namespace {

const Around kNobody{INFINITY, 0.f, INFINITY, 0.f, 0.f, -1};

Params params(float politeness = 0.f) {
  Params p{};
  p.idm_accel = 1.5f;
  p.idm_decel = 2.f;
  p.idm_headway = 1.2f;
  p.idm_gap = 2.f;
  p.idm_max_decel = 8.f;
  p.idm_safe_decel = 3.f;
  p.idm_politeness = politeness;
  return p;
}

// All at 10 m/s, who all want 15 m/s; cars 4.5 m long.
float gain(const Params& p, const Around& now, const Around& then) {
  return mobil_gain(p, 10.f, 4.5f, now, then, 15.f, 15.f, 15.f, 15.f);
}

}  // namespace

TEST(mobil_gains_what_the_leader_costs) {
  const Around slow{20.f, 5.f, INFINITY, 0.f, 0.f, -1};
  const float kept = idm_accel(params(), 10.f, 15.f, 20.f, 5.f);
  const float free = idm_accel(params(), 10.f, 15.f, INFINITY, 0.f);
  CHECK_NEAR(gain(params(), slow, kNobody), free - kept, 1e-6);
  CHECK_NEAR(gain(params(), kNobody, slow), kept - free, 1e-6);
  CHECK_NEAR(gain(params(), slow, slow), 0.0, 1e-6);
}

TEST(mobil_is_unsafe_where_the_follower_would_brake_harder_than_the_bound) {
  const Around slow{20.f, 5.f, INFINITY, 0.f, 0.f, -1};
  for (float gap = 0.f; gap < 60.f; gap += 0.5f) {
    const Around then{INFINITY, 0.f, gap, 14.f, 0.f, 1};
    const bool safe = gap >= 0.5f && idm_accel(params(), 14.f, 15.f, gap, 4.f) >= -3.f;
    CHECK((gain(params(), slow, then) > -INFINITY) == safe);
  }
}

TEST(mobil_is_unsafe_where_the_driver_itself_would_brake_harder_than_the_bound) {
  const Around slow{20.f, 5.f, INFINITY, 0.f, 0.f, -1};
  const Around close{6.f, 5.f, INFINITY, 0.f, 0.f, -1};
  CHECK(idm_accel(params(), 10.f, 15.f, 6.f, 5.f) < -3.f);
  CHECK(gain(params(), slow, close) == -INFINITY);
}

TEST(mobil_changes_queues_only_with_room_to_get_straight) {
  // At 1 m/s nobody has to brake hard: 8 m and the own length are asked for, less what the leader
  // drives in 4 s.
  const auto possible = [](const Around& now, const Around& then) {
    return mobil_gain(params(), 1.f, 4.5f, now, then, 15.f, 15.f, 15.f, 15.f) > -INFINITY;
  };
  for (float speed : {0.f, 1.f})
    for (float gap = 4.f; gap < 20.f; gap += 0.25f) {
      const Around queue{gap, speed, INFINITY, 0.f, 0.f, -1};
      CHECK(possible(kNobody, queue) == (gap + 4.f * speed >= 12.5f));
      CHECK(possible(queue, kNobody) == (gap + 4.f * speed >= 12.5f));
    }
}

TEST(mobil_weighs_what_followers_gain_and_lose_by_politeness) {
  const Around now{20.f, 5.f, 15.f, 10.f, 0.f, 1}, then{INFINITY, 0.f, 25.f, 10.f, 0.f, 2};
  const float selfish = gain(params(0.f), now, then), polite = gain(params(0.5f), now, then);
  const Params p = params();
  const float lost = idm_accel(p, 10.f, 15.f, 25.f, 0.f) - idm_accel(p, 10.f, 15.f, INFINITY, 0.f);
  const float won =
      idm_accel(p, 10.f, 15.f, 15.f + 4.5f + 20.f, 5.f) - idm_accel(p, 10.f, 15.f, 15.f, 0.f);
  CHECK_NEAR(polite - selfish, 0.5f * (lost + won), 1e-5);
}
