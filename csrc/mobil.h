// Lane changes: MOBIL (Kesting, Treiber, Helbing 2007) on the routes of neighboring lanes.
#pragma once
#include "traffic.h"

namespace alpagym {

// Who drives before and behind a place on a route; INFINITY gaps for nobody.
struct Around {
  float lead_gap, lead_speed;      // bumper to bumper [m], along the route [m/s]
  float follow_gap, follow_speed;  // likewise of the follower
  float follow_s;                  // [m]
  int follower;                    // agent, -1 for nobody
};

// Agents on a route near arc length s, seen by an agent that is there or would be, half_length and
// half_width its own. An agent counts where its box is, and where the route leads that it followed
// at the end of the last step: what others decide in this step is never read.
ALPAGYM_HD Around around_on(const Scenarios& c, const State& st, World world, int a, int i,
                            const Route& route, float s, float half_length, float half_width) {
  constexpr float kBehind = 60.f, kAhead = 90.f, kOnRoute = 1.f, kFollows = 6.f;
  const int first = point_before(route, s - kBehind), last = point_before(route, s + kAhead) + 1;
  const Corridor corridor = corridor_of(route, first, last + 1, frame_of(pose_of(st, i)));
  Around r{INFINITY, 0.f, INFINITY, 0.f, 0.f, -1};
  for (int b = 0; b < world.agents; ++b) {
    const int j = i - a + b;
    if (b == a || !st.valid[j] || !same_level(c, world.s, st.z[i], st.z[j])) continue;
    const Box other = box_of(c, world.first + b, pose_of(st, j));
    const Vec2 center{other.frame.x, other.frame.y};
    if (!corridor.near(center, half_width + radius(other) + kClearance + 4.f)) continue;
    const Projection on = project(route, center, first, last);
    const float side = extent_along(other, {-on.direction.y, on.direction.x});
    bool there = on.distance2 < Driver::square(half_width + side + kClearance);
    const Route its = route_of(c, route_index(c, world, b, st.prev_route[j]));
    if (!there && its.n >= 2) {
      const Vec2 foot = sample(its, st.prev_route_s[j]).position, away = foot - center;
      there = dot(away, away) < kFollows * kFollows &&  // else it replays its log
              project(route, foot, first, last).distance2 < kOnRoute * kOnRoute;
    }
    if (!there) continue;
    const float cos = other.frame.cos * on.direction.x + other.frame.sin * on.direction.y;
    const float half = extent_along(other, on.direction), along = st.speed[j] * cos;
    const float gap = fabsf(on.s - s) - half_length - half;
    if (on.s > s && gap < r.lead_gap) {
      r.lead_gap = gap;
      r.lead_speed = along;
    } else if (on.s <= s && gap < r.follow_gap) {
      r.follow_gap = gap;
      r.follow_speed = along;
      r.follow_s = on.s;
      r.follower = b;
    }
  }
  return r;
}

// Whether a change of lanes has way to get out of this queue, or straight in it: without, the
// vehicle would stand across two lanes. Beyond its own length [m]; while the leader drives on [s].
ALPAGYM_HD bool has_way(const Around& lane, float length) {
  constexpr float kWay = 8.f, kTime = 4.f;
  return lane.lead_gap + kTime * fmaxf(lane.lead_speed, 0.f) >= kWay + length;
}

// Own gain plus politeness times what both followers gain, in acceleration; -INFINITY where the
// change would be unsafe: someone would have to brake harder than the bound, or there is no room to
// end it.
//
// `now` is on the own lane, `then` on the other one; `desired` are the own desired speeds there,
// `old_desired` and `new_desired` those of the followers.
ALPAGYM_HD float mobil_gain(const Params& p, float speed, float length, const Around& now,
                            const Around& then, float desired_now, float desired_then,
                            float old_desired, float new_desired) {
  const float own_then = idm_accel(p, speed, desired_then, then.lead_gap, speed - then.lead_speed);
  if (then.lead_gap < 0.5f || own_then < -p.idm_safe_decel) return -INFINITY;
  if (!has_way(now, length) || !has_way(then, length)) return -INFINITY;
  float others = 0.f;
  if (then.follower >= 0) {
    const float v = then.follow_speed;
    const float after = idm_accel(p, v, new_desired, then.follow_gap, v - speed);
    if (then.follow_gap < 0.5f || after < -p.idm_safe_decel) return -INFINITY;
    others += after - idm_accel(p, v, new_desired, then.follow_gap + length + then.lead_gap,
                                v - then.lead_speed);
  }
  if (now.follower >= 0) {
    const float v = now.follow_speed;
    others +=
        idm_accel(p, v, old_desired, now.follow_gap + length + now.lead_gap, v - now.lead_speed) -
        idm_accel(p, v, old_desired, now.follow_gap, v - speed);
  }
  const float own =
      own_then - idm_accel(p, speed, desired_now, now.lead_gap, speed - now.lead_speed);
  return own + p.idm_politeness * others;
}

}  // namespace alpagym
