// Stage: contact. Collisions that began this step, time to collision, off-road, lanes.
#pragma once
#include "../outcome.h"
#include "../reward_terms.h"

namespace alpagym::kernels {

// Front, rear or lateral, by which end of the ego's box the other box reaches (AlpaSim's zones: a
// quarter of the box's smaller side deep at either end).
ALPAGYM_HD Collision classify(const Box& ego, const Box& other) {
  const float depth = 0.25f * fminf(2.f * ego.half_length, 2.f * ego.half_width);
  Box zone = ego;
  zone.half_length = 0.5f * depth;
  const float offset = ego.half_length - 0.5f * depth;
  zone.frame.x = ego.frame.x + offset * ego.frame.cos;
  zone.frame.y = ego.frame.y + offset * ego.frame.sin;
  if (overlap(zone, other)) return Collision::kFront;
  zone.frame.x = ego.frame.x - offset * ego.frame.cos;
  zone.frame.y = ego.frame.y - offset * ego.frame.sin;
  return overlap(zone, other) ? Collision::kRear : Collision::kLateral;
}

// One thread per ego. Clears all reward terms and writes those of contact and lane.
struct Contact {
  Scenarios c;
  State st;
  Outcome out;
  Params p;
  ALPAGYM_HD int size() const { return st.W * st.E; }

  ALPAGYM_HD void operator()(int k) const {
    const int w = k / st.E, a = st.ego[k];
    out.collision[k] = static_cast<uint8_t>(Collision::kNone);
    out.ttc[k] = INFINITY;
    out.lane[k] = -1;
    out.lane_offset[k] = out.lane_heading[k] = 0.f;
    float* terms = out.terms + static_cast<int64_t>(k) * out.R;
    for (int r = 0; r < out.R; ++r) terms[r] = 0.f;
    const World world = world_of(c, st, w);
    if (a < 0 || a >= world.agents || st.ego_done(w, k % st.E) || !st.valid[w * st.A + a]) return;
    const int i = w * st.A + a;
    const Box ego = box_of(c, world.first + a, pose_of(st, i));
    collide(k, i, world, a, ego);
    terms[kCollisionAny] = out.collision[k] != static_cast<uint8_t>(Collision::kNone);
    terms[kCollisionAtFault] = out.collision[k] == static_cast<uint8_t>(Collision::kFront) ||
                               out.collision[k] == static_cast<uint8_t>(Collision::kLateral);
    terms[kTtc] = fmaxf(1.f - out.ttc[k] / p.ttc_horizon, 0.f);
    const bool offroad = is_offroad(c, world.s, ego, st.z[i]);
    terms[kOffroad] = offroad && !st.offroad[k];
    st.offroad[k] = offroad;
    assign_lane(k, i, world, ego, terms);
  }

  // A collision counts in the step in which it begins: boxes that overlap now and did not before.
  // An agent that appears on top of the ego began nothing. With several at once, fault weighs most.
  // The time to collision is 0 as long as boxes overlap, whatever began it.
  ALPAGYM_HD void collide(int k, int i, World world, int a, const Box& ego) const {
    const int first = (i / st.A) * st.A;
    const float reach = radius(ego), speed = st.speed[i];
    const Vec2 velocity{speed * ego.frame.cos, speed * ego.frame.sin};
    Collision worst = Collision::kNone;
    for (int b = 0; b < world.agents; ++b) {
      const int j = first + b;
      if (b == a || !st.valid[j] || !may_touch(world, a, b, i, j)) continue;
      const Box other = box_of(c, world.first + b, pose_of(st, j));
      const float distance = norm({other.frame.x - ego.frame.x, other.frame.y - ego.frame.y});
      const float gap = distance - reach - radius(other);
      if (gap > (fabsf(speed) + fabsf(st.speed[j])) * p.ttc_horizon) continue;
      if (gap <= 0.f && overlap(ego, other)) {
        if (st.prev_valid[j] && !overlap(box_of(c, world.first + a, prev_pose_of(st, i)),
                                         box_of(c, world.first + b, prev_pose_of(st, j)))) {
          const Collision kind = classify(ego, other);
          if (worst == Collision::kNone || worst == Collision::kRear) worst = kind;
        }
        out.ttc[k] = 0.f;
        continue;
      }
      const Vec2 relative{st.speed[j] * other.frame.cos - velocity.x,
                          st.speed[j] * other.frame.sin - velocity.y};
      out.ttc[k] = fminf(out.ttc[k], time_to_collision(ego, other, relative, p.ttc_horizon));
    }
    out.collision[k] = static_cast<uint8_t>(worst);
  }

  ALPAGYM_HD bool may_touch(World world, int a, int b, int i, int j) const {
    return heights_overlap(c, world.s, st.z[i], c.agent[world.first + a].height, st.z[j],
                           c.agent[world.first + b].height);
  }

  // The own lane, and whether every lane under the center runs more than 120 degrees against the
  // heading. Beyond all lanes the distance to the own one counts as kLaneReach.
  ALPAGYM_HD void assign_lane(int k, int i, World world, const Box& ego, float* terms) const {
    const Vec2 heading{ego.frame.cos, ego.frame.sin};
    const LaneFix fix = lane_at(c, world.s, {ego.frame.x, ego.frame.y}, heading, st.z[i]);
    out.lane[k] = fix.element;
    if (fix.element >= 0) {
      out.lane_offset[k] = fix.offset;
      out.lane_heading[k] = atan2f(cross(fix.direction, heading), dot(fix.direction, heading));
    }
    terms[kLane] = fix.element >= 0 ? fabsf(fix.offset) : kLaneReach;
    terms[kWrongWay] = fix.alignment < -0.5f;
  }
};

}  // namespace alpagym::kernels
