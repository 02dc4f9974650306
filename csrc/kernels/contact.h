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

// An ego that is judged.
struct Judged {
  int k, i, a;  // slot of [W, E], index in State, agent
  World world;
  Box box;
};

// What an ego met.
struct Met {
  Collision worst = Collision::kNone;
  float ttc = INFINITY;  // [s]

  // With several collisions at once, the first that is not from behind weighs most.
  ALPAGYM_HD bool decided() const { return worst != Collision::kNone && worst != Collision::kRear; }
};

// One thread per ego. Clears all reward terms and writes those of contact and lane.
struct Contact {
  Scenarios c;
  State st;
  Outcome out;
  Params p;
  ALPAGYM_HD int size() const { return st.W * st.E; }

  ALPAGYM_HD void operator()(int k) const {
    clear(k);
    Judged ego;
    if (!judges(k, ego)) return;
    Met met;
    for (int b = 0; b < ego.world.agents; ++b) meet(ego, b, met);
    const float z = st.z[ego.i];
    const Vec2 heading{ego.box.frame.cos, ego.box.frame.sin};
    const Vec2 center{ego.box.frame.x, ego.box.frame.y};
    finish(ego, met, is_offroad(c, ego.world.s, ego.box, z),
           lane_at(c, ego.world.s, center, heading, z));
  }

  // Clears what is written of slot k.
  ALPAGYM_HD void clear(int k) const {
    out.collision[k] = static_cast<uint8_t>(Collision::kNone);
    out.ttc[k] = INFINITY;
    out.lane[k] = -1;
    out.lane_offset[k] = out.lane_heading[k] = 0.f;
    float* terms = out.terms + static_cast<int64_t>(k) * out.R;
    for (int r = 0; r < out.R; ++r) terms[r] = 0.f;
  }

  // Whether an ego is there to be judged.
  ALPAGYM_HD bool judges(int k, Judged& ego) const {
    const int w = k / st.E, a = st.ego[k];
    const World world = world_of(c, st, w);
    if (a < 0 || a >= world.agents || st.ego_done(w, k % st.E) || !st.valid[w * st.A + a])
      return false;
    const int i = w * st.A + a;
    ego = {k, i, a, world, box_of(c, world.first + a, pose_of(st, i))};
    return true;
  }

  // The ego and agent b. A collision counts in the step in which it begins: boxes that overlap now
  // and did not before. An agent that appears on top of the ego began nothing. The time to
  // collision is 0 as long as boxes overlap, whatever began it.
  ALPAGYM_HD void meet(const Judged& ego, int b, Met& met) const {
    const auto& [k, i, a, world, box] = ego;
    const int j = i - a + b;
    if (b == a || !st.valid[j] || !may_touch(world, a, b, i, j)) return;
    const float speed = st.speed[i];
    const Box other = box_of(c, world.first + b, pose_of(st, j));
    const float distance = norm({other.frame.x - box.frame.x, other.frame.y - box.frame.y});
    const float gap = distance - radius(box) - radius(other);
    if (gap > (fabsf(speed) + fabsf(st.speed[j])) * p.ttc_horizon) return;
    if (gap <= 0.f && overlap(box, other)) {
      if (st.prev_valid[j] && !overlap(box_of(c, world.first + a, prev_pose_of(st, i)),
                                       box_of(c, world.first + b, prev_pose_of(st, j)))) {
        const Collision kind = classify(box, other);
        if (!met.decided()) met.worst = kind;
      }
      met.ttc = 0.f;
      return;
    }
    const Vec2 relative{st.speed[j] * other.frame.cos - speed * box.frame.cos,
                        st.speed[j] * other.frame.sin - speed * box.frame.sin};
    met.ttc = fminf(met.ttc, time_to_collision(box, other, relative, p.ttc_horizon));
  }

  ALPAGYM_HD bool may_touch(World world, int a, int b, int i, int j) const {
    return heights_overlap(c, world.s, st.z[i], c.agent[world.first + a].height, st.z[j],
                           c.agent[world.first + b].height);
  }

  // Writes what was found: among it the own lane, and whether every lane under the center runs more
  // than 120 degrees against the heading. Beyond all lanes the distance to the own one counts as
  // kLaneReach.
  ALPAGYM_HD void finish(const Judged& ego, const Met& met, bool offroad,
                         const LaneFix& fix) const {
    const int k = ego.k;
    const auto [worst, ttc] = met;
    float* terms = out.terms + static_cast<int64_t>(k) * out.R;
    out.collision[k] = static_cast<uint8_t>(worst);
    out.ttc[k] = ttc;
    terms[kCollisionAny] = worst != Collision::kNone;
    terms[kCollisionAtFault] = worst == Collision::kFront || worst == Collision::kLateral;
    terms[kTtc] = fmaxf(1.f - ttc / p.ttc_horizon, 0.f);
    terms[kOffroad] = offroad && !st.offroad[k];
    st.offroad[k] = offroad;
    const Vec2 heading{ego.box.frame.cos, ego.box.frame.sin};
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
