// What an IDM driver looks at: leaders on its route, stop lines, and those whose way crosses its
// own.
#pragma once
#include "idm.h"
#include "params.h"
#include "rng.h"
#include "vehicle.h"
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
  const int row = world.first + a;
  const int frame = frame_of_step(c, world.s, st.step[i / st.A]);
  const float front = st.route_s[i] + 0.5f * c.agent[row].length;
  for (int m = c.stop_start[row] + st.stops_served[i]; m < c.stop_start[row + 1]; ++m) {
    const float gap = c.stop_s[m] - front;
    if (gap > horizon) break;
    if (gap > -1.f && holds(c, p, world.s, frame, m, gap, st.speed[i])) return gap;
  }
  return INFINITY;
}

// Whether the agent has just come from, or comes to, a stop sign or yield line: others go first.
ALPAGYM_HD bool on_minor_road(const Scenarios& c, const State& st, World world, int a, int i) {
  const int row = world.first + a;
  for (int m = c.stop_start[row]; m < c.stop_start[row + 1]; ++m) {
    const float ahead = c.stop_s[m] - st.route_s[i];
    if (c.stop_light[m] < 0 && ahead > -12.f && ahead < 30.f) return true;
  }
  return false;
}

// The speed the driver wants here: the limits ahead, each from where comfortable braking must
// begin.
ALPAGYM_HD float desired_speed(const Params& p, const Route& route, float s, float speed,
                               float factor) {
  const float horizon = 10.f + speed * speed / (2.f * p.idm_decel);
  const int here = point_before(route, s);
  float desired = INFINITY;
  for (int k = here; k < route.n && k * kRouteSpacing < s + horizon; ++k)
    desired = fminf(desired, approach_speed(factor * route.point[k].speed_limit,
                                            k * kRouteSpacing - s, p.idm_decel));
  return desired;
}

// Where an agent will be after `way` meters: along its route if it follows one, else straight on.
struct Way {
  Route route;
  float s;
  Frame frame;
  bool follows;
  ALPAGYM_HD RouteSample at(float way) const {
    if (follows) return sample(route, s + way);
    return {
        {frame.x + way * frame.cos, frame.y + way * frame.sin}, {frame.cos, frame.sin}, 0.f, 0.f};
  }
};

struct Driver {
  const Scenarios& c;
  const State& st;
  const Params& p;
  World world;
  int a, i;  // agent, its index in State
  Route route;
  float horizon;  // how far it looks along its route [m]
  float half_length, half_width;

  ALPAGYM_HD int first_point() const { return point_before(route, st.route_s[i]); }
  ALPAGYM_HD int last_point() const { return point_before(route, st.route_s[i] + horizon) + 1; }

  // The hardest demand of all that stand in the way or will; INFINITY desired speed never matters
  // here.
  ALPAGYM_HD float accel(float desired) const {
    const float speed = st.speed[i];
    float demand = idm_accel(p, speed, desired, INFINITY, 0.f);
    demand = fminf(demand,
                   idm_accel(p, speed, desired, stop_gap(c, st, p, world, a, i, horizon), speed));
    const bool minor = on_minor_road(c, st, world, a, i);
    const int first = i - a;
    for (int b = 0; b < world.agents; ++b) {
      const int j = first + b;
      if (b == a || !st.valid[j] || !same_level(c, world.s, st.z[i], st.z[j])) continue;
      const float distance = norm({st.x[j] - st.x[i], st.y[j] - st.y[i]});
      if (distance > horizon + 10.f + 4.f * fabsf(st.speed[j])) continue;
      demand = fminf(demand, response_to(b, j, distance, desired, minor));
    }
    return demand;
  }

  ALPAGYM_HD float response_to(int b, int j, float distance, float desired, bool minor) const {
    const float speed = st.speed[i], s = st.route_s[i];
    const Box other = box_of(c, world.first + b, pose_of(st, j));
    if (distance < horizon + 10.f) {
      const Projection on =
          project(route, {other.frame.x, other.frame.y}, first_point(), last_point());
      const float side = extent_along(other, {-on.direction.y, on.direction.x});
      const float half = extent_along(other, on.direction);
      if (on.s > s && on.distance2 < square(half_width + side + 0.3f)) {
        const float along =
            st.speed[j] * (other.frame.cos * on.direction.x + other.frame.sin * on.direction.y);
        return idm_accel(p, speed, desired, on.s - s - half_length - half, speed - along);
      }
    }
    const bool pedestrian = c.type[world.first + b] == kPedestrian;
    if (st.speed[j] < (pedestrian ? 0.3f : 0.5f))
      return INFINITY;  // waits: its way crosses nobody's
    return yield_to(b, j, other, desired, minor, pedestrian);
  }

  // Where the ways of both cross, whoever comes first goes first; but pedestrians before vehicles,
  // and the major road before the minor. To give way is to stop before the crossing, or, where both
  // then go the same way, to fall in behind.
  ALPAGYM_HD float yield_to(int b, int j, const Box& other, float desired, bool minor,
                            bool pedestrian) const {
    const float speed = st.speed[i], s = st.route_s[i], other_speed = st.speed[j];
    const int other_row = world.first + b;
    const Route its_route = route_of(c, other_row);
    const bool follows =
        its_route.n >= 2 && st.controller[j] == static_cast<uint8_t>(Controller::kIdm);
    const Way way{its_route, st.route_s[j], other.frame, follows};
    float reach = fminf(4.f * other_speed + 6.f, 45.f);
    if (follows) reach = fminf(reach, stop_gap(c, st, p, world, b, j, reach) + other.half_length);
    float enter = -1.f, leave = 0.f, crossing = 0.f, half = 0.f, aligned = 0.f;
    for (float at = 0.f; at <= reach; at += 2.f) {
      const RouteSample q = way.at(at);
      const int near = nearest_point(q.position);
      if (near < 0) {
        if (enter >= 0.f) break;
        continue;
      }
      const Projection on = project(route, q.position, near - 2, near + 1);
      const float cos = q.direction.x * on.direction.x + q.direction.y * on.direction.y;
      const float sin = sqrtf(fmaxf(1.f - cos * cos, 0.f));
      const float side = other.half_length * sin + other.half_width * fabsf(cos);
      if (on.s <= s || on.distance2 > square(half_width + side + 0.3f)) {
        if (enter >= 0.f) break;
        continue;
      }
      if (enter < 0.f) {
        enter = at;
        crossing = on.s;
        half = other.half_length * fabsf(cos) + other.half_width * sin;
        aligned = cos;
      }
      leave = at;
    }
    if (enter < 0.f) return INFINITY;
    const float gap = crossing - s - half_length - half;  // from the front bumper to the crossing
    if (gap < -0.5f) return INFINITY;                     // already there: the other one waits
    const float own_in = time_to_cover(gap, speed, p.idm_accel);
    const float own_out = time_to_cover(gap + 2.f * (half_length + half), speed, p.idm_accel);
    const float in = time_to_cover(enter - other.half_length, other_speed, 0.5f * p.idm_accel);
    const float out = time_to_cover(leave + other.half_length, other_speed, 0.5f * p.idm_accel);
    if (out + 1.f < own_in || own_out + 1.f < in)
      return INFINITY;  // one is gone before the other comes
    const bool other_minor = !pedestrian && follows && on_minor_road(c, st, world, b, j);
    bool goes_first = own_in < in - 0.3f || (own_in < in + 0.3f && a < b);
    if (pedestrian)
      goes_first = false;
    else if (minor != other_minor)
      goes_first = other_minor;
    if (goes_first) return INFINITY;
    if (aligned > 0.7f)
      return idm_accel(p, speed, desired, gap - enter + half_length, speed - other_speed);
    return idm_accel(p, speed, desired, gap, speed);
  }

  // The route point ahead within 5 m of `q`, coarsely; -1 if none.
  ALPAGYM_HD int nearest_point(Vec2 q) const {
    int best = -1;
    float best2 = 25.f;
    const int last = last_point() < route.n - 1 ? last_point() : route.n - 1;
    for (int k = first_point(); k <= last; k += 2) {
      const float d2 = square(route.point[k].x - q.x) + square(route.point[k].y - q.y);
      if (d2 < best2) {
        best2 = d2;
        best = k;
      }
    }
    return best;
  }

  ALPAGYM_HD static float square(float v) { return v * v; }
};

// Curvature that leads the rear axle onto the route: pure pursuit of a point ahead (Coulter 1992).
ALPAGYM_HD float pursue(const Route& route, Pose center, float s, float speed, float rear_axle) {
  const Pose rear = ahead(center, -rear_axle);
  const float lookahead = 2.5f + rear_axle + 0.35f * fmaxf(speed, 0.f);
  const Vec2 target = to_local(frame_of(rear), sample(route, s + lookahead - rear_axle).position);
  return 2.f * target.y / fmaxf(dot(target, target), 1.f);
}

}  // namespace alpagym
