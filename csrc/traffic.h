// What an IDM driver looks at: leaders on its route, stop lines, and those whose way crosses its
// own.
#pragma once
#include "idm.h"
#include "params.h"
#include "rng.h"
#include "vehicle.h"
#include "way.h"
#include "world.h"

namespace alpagym {

// Whether stop m holds an agent whose front bumper is `gap` before its line.
ALPAGYM_HD bool holds(const Scenarios& c, const Params& p, int s, int frame, int m, float gap,
                      float speed) {
  const int light = c.stop_light[m];
  if (light < 0) return light == kStopSign;
  const uint8_t state = light_state(c, s, frame, light);
  if (state == kLightYellow) return gap > speed * speed / (2.f * 1.5f * p.idm_decel);
  return state == kLightRed || state == kLightFlashingRed;
}

// From the front bumper to the first stop line ahead that holds agent i, INFINITY if none within
// `horizon`.
ALPAGYM_HD float stop_gap(const Scenarios& c, const State& st, const Params& p, World world, int a,
                          int i, float horizon) {
  const int route = route_index(c, world, a, st.route[i]);
  const int frame = frame_of_step(c, world.s, st.step[i / st.A]);
  const float front = st.route_s[i] + 0.5f * c.agent[world.first + a].length;
  for (int m = c.stop_start[route] + st.stops_served[i]; m < c.stop_start[route + 1]; ++m) {
    const float gap = c.stop_s[m] - front;
    if (gap > horizon) break;
    if (gap > -1.f && holds(c, p, world.s, frame, m, gap, st.speed[i])) return gap;
  }
  return INFINITY;
}

// The line before which an agent still is and can stop: until it has crossed it, it gives way to
// all who have crossed theirs or have none.
struct Line {
  float gap;   // from the front bumper, INFINITY if none is near [m]
  bool light;  // a light's, not a sign's or yield line
  bool sign;   // a stop sign's
};

ALPAGYM_HD Line line_before(const Scenarios& c, const State& st, const Params& p, World world,
                            int a, int i) {
  const int route = route_index(c, world, a, st.route[i]);
  const float front = st.route_s[i] + 0.5f * c.agent[world.first + a].length;
  const float stopping = st.speed[i] * st.speed[i] / (2.f * 1.5f * p.idm_decel);
  for (int m = c.stop_start[route]; m < c.stop_start[route + 1]; ++m) {
    const float gap = c.stop_s[m] - front;
    if (gap > 30.f) break;
    if (gap <= -0.5f) continue;
    const bool light = c.stop_light[m] >= 0;
    if (!light || gap + 0.5f > stopping) return {gap, light, c.stop_light[m] == kStopSign};
  }
  return {INFINITY, false, false};
}

// Whether the agent has just crossed a sign or yield line: those on the major road still go first.
ALPAGYM_HD bool came_from_line(const Scenarios& c, const State& st, World world, int a, int i) {
  const int route = route_index(c, world, a, st.route[i]);
  const float front = st.route_s[i] + 0.5f * c.agent[world.first + a].length;
  for (int m = c.stop_start[route]; m < c.stop_start[route + 1]; ++m) {
    const float behind = front - c.stop_s[m];
    if (behind < 0.5f) break;
    if (c.stop_light[m] < 0 && behind < 15.f) return true;
  }
  return false;
}

// Rank of an agent's way through a junction, the lower goes first: straight on, then turning, then
// from behind a sign or yield line.
ALPAGYM_HD int rank_of(const Scenarios& c, const State& st, World world, int a, int i,
                       const Route& route) {
  constexpr float kBehind = 12.f, kAhead = 25.f, kStraight = 0.8f;  // [m, m, cosine]
  const float s = st.route_s[i];
  const Vec2 from = sample(route, s - kBehind).direction, to = sample(route, s + kAhead).direction;
  return (dot(from, to) < kStraight ? 1 : 0) + (came_from_line(c, st, world, a, i) ? 2 : 0);
}

// What a driver makes of speed limits: a factor drawn by seed, scenario and agent.
ALPAGYM_HD float speed_factor(const Scenarios& c, const State& st, const Params& p, World world,
                              int a, int i) {
  uint64_t key =
      combine(static_cast<uint64_t>(st.seed[i / st.A]), static_cast<uint64_t>(c.key[world.s]));
  key = combine(combine(key, static_cast<uint64_t>(a)),
                static_cast<uint64_t>(Purpose::kDesiredSpeed));
  return 1.f + p.idm_speed_spread * (2.f * uniform(key) - 1.f);
}

constexpr float kClearance = 0.3f;  // room that a driver leaves between its side and others [m]
constexpr float kStands = 0.5f;     // slower agents stand [m/s]
constexpr float kPatience = 8.f;    // who has stood longer no longer waits for who stands [s]
constexpr float kNear = 5.f;        // of others' ways only what is as near to the route counts [m]
constexpr float kHaste = 0.2f;    // by so much the gap falls that one takes [s] a second of waiting
constexpr float kThrough = 40.f;  // so far whoever is behind a stop sign looks ahead [m]
constexpr float kTie = 0.8f;      // who comes first by less is not certain: keys decide [s]

struct Driver {
  const Scenarios& c;
  const State& st;
  const Params& p;
  World world;
  int a, i;  // agent, its index in State
  Route route;
  float horizon;    // how far it looks along its route [m]
  int first, last;  // points of the route between which it looks
  float half_length, half_width;
  float offset;  // its own signed distance from the route, which it takes back on the way [m]
  Line line;
  Corridor corridor;

  // The hardest demand of all that stand in the way or will; INFINITY desired speed never matters
  // here.
  ALPAGYM_HD float accel(float desired) const {
    const float speed = st.speed[i];
    float demand = idm_accel(p, speed, desired, INFINITY, 0.f);
    demand = fminf(demand,
                   idm_accel(p, speed, desired, stop_gap(c, st, p, world, a, i, horizon), speed));
    for (int b = 0; b < world.agents; ++b) {
      const int j = i - a + b;
      if (b == a || !st.valid[j] || !same_level(c, world.s, st.z[i], st.z[j])) continue;
      const Vec2 d{st.x[j] - st.x[i], st.y[j] - st.y[i]};
      const float reach = horizon + 10.f + 4.f * fabsf(st.speed[j]);
      if (dot(d, d) > reach * reach) continue;
      demand = fminf(demand, response_to(b, j, desired));
    }
    return demand;
  }

  ALPAGYM_HD float response_to(int b, int j, float desired) const {
    const Vec2 center{st.x[j], st.y[j]};
    const float size = half_width + kClearance + half_diagonal(c.agent[world.first + b]);
    float demand = INFINITY;
    if (corridor.near(center, size + fabsf(offset))) {
      const Box other = box_of(c, world.first + b, pose_of(st, j));
      const Projection on = project(route, center, first, last);
      const float side = extent_along(other, {-on.direction.y, on.direction.x});
      const float half = extent_along(other, on.direction);
      const float speed = st.speed[i], s = st.route_s[i];
      if (on.s > s && beside_way(on, s, speed) < half_width + side + kClearance) {
        const float cos = other.frame.cos * on.direction.x + other.frame.sin * on.direction.y;
        demand =
            idm_accel(p, speed, desired, on.s - s - half_length - half, speed - cos * st.speed[j]);
        if (cos > 0.7f) return demand;  // who goes the same way needs but its gap
      }
    }
    const bool pedestrian = c.type[world.first + b] == kPedestrian;
    const float its_speed = fmaxf(st.speed[j], 0.f);
    if (pedestrian && its_speed < 0.3f) return demand;  // it waits: its way crosses nobody's
    const Route its_route = route_of(c, route_index(c, world, b, st.route[j]));
    const bool follows =
        its_route.n >= 2 && st.controller[j] == static_cast<uint8_t>(Controller::kIdm);
    float reach = fminf(4.f * its_speed + 6.f, 45.f);
    if (follows && line.gap < INFINITY)
      reach = fmaxf(reach, line.sign ? kThrough : 25.f);  // who stands there may start
    else if (follows && its_speed < kStands)
      reach = 12.f;
    if (!corridor.near(center, size + reach + kRouteSpacing)) return demand;
    const float its_s = st.route_s[j];
    const Way way{its_route, its_s, frame_of(pose_of(st, j)), follows,
                  follows ? point_before(its_route, its_s + 0.5f * kRouteSpacing) : 0};
    for (int k = 0; k < way.count() && way.at(k) <= reach + kRouteSpacing; k += 2)
      if (corridor.near(way.position(k), size + 2.f * kRouteSpacing))
        return fminf(demand, yield_to(b, j, way, k > 0 ? k - 1 : 0, reach, desired, pedestrian));
    return demand;
  }

  // How far something ahead lies from the way back to the route: the driver takes its own offset
  // from the route back within some three seconds.
  ALPAGYM_HD float beside_way(const Projection& on, float s, float speed) const {
    const float left = fmaxf(1.f - (on.s - s) / (10.f + 3.f * fmaxf(speed, 0.f)), 0.f) * offset;
    const float distance = on.d < 0.f ? -sqrtf(on.distance2) : sqrtf(on.distance2);
    return fmaxf(fmaxf(distance - fmaxf(left, 0.f), fminf(left, 0.f) - distance), 0.f);
  }

  // Where the ways of both cross: pedestrians go before vehicles, and whoever is behind a sign or
  // yield line waits there for all who are not, and for those who have waited longer at theirs.
  // Of others, who comes first goes first: to give way is to stop before the crossing, or, where
  // both then go the same way, to fall in behind.
  // The other one's way is looked at from place `from` to `reach`, or to where it must stop.
  ALPAGYM_HD float yield_to(int b, int j, const Way& way, int from, float reach, float desired,
                            bool pedestrian) const {
    const float speed = st.speed[i], s = st.route_s[i], other_speed = fmaxf(st.speed[j], 0.f);
    const bool follows = way.follows, waits = other_speed < kStands;
    const Line its = follows ? line_before(c, st, p, world, b, j) : Line{INFINITY, false, false};
    const bool both_lights = line.light && its.light;
    const bool held = line.gap < INFINITY && !both_lights;
    if (its.gap < INFINITY && !both_lights) {
      if (!held || (line.light && !its.light)) return INFINITY;
      if (!its.light && !waits_longer(b, j, its.gap)) return INFINITY;
    }
    const Box other{way.frame, 0.5f * c.agent[world.first + b].length,
                    0.5f * c.agent[world.first + b].width};
    if (follows) reach = fminf(reach, stop_gap(c, st, p, world, b, j, reach) + other.half_length);
    float enter = -1.f, leave = 0.f, crossing = 0.f, half = 0.f;
    float meeting = 0.f, meeting_half = 0.f, aligned = -1.f;
    for (int k = from; k < way.count() && way.at(k) <= reach; ++k) {
      const float at = way.at(k);
      const Vec2 position = way.position(k), direction = way.direction(k);
      const int near = corridor.near(position, kNear + 0.1f) ? nearest_point(position) : -1;
      if (near < 0) {
        if (enter >= 0.f) break;
        continue;
      }
      const Projection on = project(route, position, near - 2, near + 1);
      const float cos = direction.x * on.direction.x + direction.y * on.direction.y;
      const float sin = sqrtf(fmaxf(1.f - cos * cos, 0.f));
      const float side = other.half_length * sin + other.half_width * fabsf(cos);
      const float swing = cos < 0.f ? -cos * (swing_out(half_length, bend_at(route, near), on.d) +
                                              swing_out(other.half_length, way.bend(k), on.d))
                                    : 0.f;
      if (on.s <= s || on.distance2 > square(half_width + side + swing + kClearance)) {
        if (enter >= 0.f) break;
        continue;
      }
      const float extent = other.half_length * fabsf(cos) + other.half_width * sin;
      if (enter < 0.f) {
        enter = at;
        crossing = meeting = on.s;
        half = meeting_half = extent;
      }
      if (on.s - extent < crossing - half) {
        crossing = on.s;
        half = extent;
      }
      leave = at;
      aligned = fmaxf(aligned, cos);
    }
    if (enter < 0.f) return INFINITY;
    const bool merges = aligned > 0.7f;  // from where they meet on it drives ahead or behind
    if (merges) {
      crossing = meeting;
      half = meeting_half;
      leave = enter;
    }
    const float gap = crossing - s - half_length - half;  // from the front bumper to the crossing
    const int rank = rank_of(c, st, world, a, i, route);
    const int its_rank = follows ? rank_of(c, st, world, b, j, way.route) : 0;
    if (merges && !held && !pedestrian) {
      if (waits) return INFINITY;
      float lead = lead_of(j, other, crossing - s - enter);
      if (rank != its_rank && fabsf(lead) < 3.f) lead = rank > its_rank ? fmaxf(lead, 0.1f) : -1.f;
      if (lead < 0.f || (lead == 0.f && ranks_before(b))) return INFINITY;
      const float demand =
          idm_accel(p, speed, desired, lead - half_length - half, speed - other_speed);
      return gap > 10.f ? fmaxf(demand, -2.f * p.idm_decel) : demand;
    }
    if (gap < -0.5f && waits) return INFINITY;
    const float own_in = time_to_cover(gap, speed, p.idm_accel);
    const float own_out = time_to_cover(gap + 2.f * (half_length + half), speed, p.idm_accel);
    const float in = time_to_cover(enter, other_speed, p.idm_accel);
    const float out = time_to_cover(leave + other.half_length, other_speed, 0.5f * p.idm_accel);
    if (held) {
      // Those who meet at signs leave the junction one after the other.
      const bool crossing_too = line.sign && follows && came_from_line(c, st, world, b, j);
      // The longer one waits, the smaller the gap one takes (Polus, Lazar, Livneh 2003).
      const float needed = fmaxf(own_out + 1.f - kHaste * st.stood[i], own_in + 0.3f);
      if ((needed < in && !crossing_too) || (out + 1.f < own_in && other_speed > 3.f))
        return INFINITY;
      return idm_accel(p, speed, desired,
                       fminf(fmaxf(line.gap, 0.f) + 0.5f * p.idm_gap, fmaxf(gap, 0.f)), speed);
    }
    // Already there, or as good as there: others wait.
    const bool inside = enter < fminf(other.half_length, kRouteSpacing) + 0.5f;
    if (waits && (rank < its_rank || (!inside && rank < 2 + its_rank))) return INFINITY;
    if (waits && !pedestrian && out_of_patience(j, b)) return INFINITY;
    if (!inside && (out + 1.f < own_in || own_out + 1.f < in))
      return INFINITY;  // one is gone before the other comes
    const bool goes_first = rank != its_rank
                                ? rank < its_rank
                                : own_in < in - kTie || (own_in < in + kTie && ranks_before(b));
    if (goes_first && !inside && !pedestrian) return INFINITY;
    if (stands_in(way, other, reach)) return INFINITY;  // already there: the other one waits
    return idm_accel(p, speed, desired, gap, speed);
  }

  // How far the other one is ahead of two whose ways become one: side by side the same for both but
  // for the sign, else `along` their ways.
  ALPAGYM_HD float lead_of(int j, const Box& other, float along) const {
    const Vec2 sum{corridor.frame.cos + other.frame.cos, corridor.frame.sin + other.frame.sin};
    if (dot(sum, sum) < 3.5f) return along;
    return dot({st.x[j] - st.x[i], st.y[j] - st.y[i]}, sum) / norm(sum);
  }

  // Whether the driver's box is in the way of another one.
  ALPAGYM_HD bool stands_in(const Way& way, const Box& other, float reach) const {
    const Box own{corridor.frame, half_length, half_width};
    const Vec2 center{own.frame.x, own.frame.y};
    if (!way.follows) {
      const Vec2 q = to_local(way.frame, center);
      const float side = extent_along(own, {-way.frame.sin, way.frame.cos});
      return q.x > 0.f && fabsf(q.y) < other.half_width + side + kClearance;
    }
    const int last = way.first + static_cast<int>(reach / kRouteSpacing) + 1;
    const Projection on = project(way.route, center, way.first - 1, last);
    const float side = extent_along(own, {-on.direction.y, on.direction.x});
    return on.s > way.s && on.distance2 < square(other.half_width + side + kClearance);
  }

  // Of two whom nothing else tells apart: whatever the order of agents in the scenario.
  ALPAGYM_HD bool ranks_before(int b) const {
    return c.id_rank[world.first + a] < c.id_rank[world.first + b];
  }

  // Of two behind their lines: whether the other one stands at its own and came there earlier.
  ALPAGYM_HD bool waits_longer(int b, int j, float its_gap) const {
    if (its_gap > 4.f) return false;
    return st.stood[j] > st.stood[i] || (st.stood[j] == st.stood[i] && !ranks_before(b));
  }

  // Of those that wait for each other, whoever has stood longest, and long, goes on; after as long
  // again anyone, since the first one evidently cannot.
  ALPAGYM_HD bool out_of_patience(int j, int b) const {
    const bool first = st.stood[i] > st.stood[j] || (st.stood[i] == st.stood[j] && ranks_before(b));
    return st.stood[i] > (first ? kPatience : 1.5f * kPatience);
  }

  // How far the nose of a box swings out of a bend toward an oncoming one at signed distance d.
  ALPAGYM_HD static float swing_out(float half, float bend, float d) {
    return d * bend < 0.f ? half * fabsf(bend) : 0.f;
  }

  // The route point ahead within kNear of `q`, coarsely; -1 if none.
  ALPAGYM_HD int nearest_point(Vec2 q) const {
    int best = -1;
    float best2 = kNear * kNear;
    const int end = last < route.n - 1 ? last : route.n - 1;
    for (int k = first; k <= end; k += 2) {
      const float d2 = square(route.point[k].x - q.x) + square(route.point[k].y - q.y);
      if (d2 < best2) {
        best2 = d2;
        best = k;
      }
    }
    return best;
  }

  ALPAGYM_HD static float half_diagonal(const AgentInfo& agent) {
    return 0.5f * norm({agent.length, agent.width});
  }
  ALPAGYM_HD static float square(float v) { return v * v; }
};

// Lateral acceleration at which drivers return to their route [m/s^2].
constexpr float kReturnAccel = 1.2f;

// Curvature that leads the rear axle onto the route: pure pursuit of a point ahead (Coulter 1992).
// The farther off the route (`offset`), the farther ahead, so that lane changes stay gentle.
ALPAGYM_HD float pursue(const Route& route, Pose center, float s, float speed, float rear_axle,
                        float offset) {
  const Pose rear = ahead(center, -rear_axle);
  const float v = fmaxf(speed, 0.f);
  const float lookahead = fmaxf(2.5f + rear_axle + 0.35f * v,
                                fminf(v * sqrtf(2.f * fabsf(offset) / kReturnAccel), 60.f));
  const Vec2 target = to_local(frame_of(rear), sample(route, s + lookahead - rear_axle).position);
  return 2.f * target.y / fmaxf(dot(target, target), 1.f);
}

}  // namespace alpagym
