// Stage: observe. State -> what each ego sees, in its own frame; of all worlds, or those in a mask.
#pragma once
#include "../grid.h"
#include "../nearest.h"
#include "../observation.h"
#include "../traffic.h"

namespace alpagym::kernels {

// Of what AlpaSim tells its drivers: a route ends before a step out of these bounds, and on a way
// shorter than kShortWay in the last step a curvature means nothing.
constexpr float kShortestStep = 3.5f, kLongestStep = 4.5f, kShortWay = 0.05f;  // [m]

template <class T>
ALPAGYM_HD void clear(T* row, int n) {
  for (int k = 0; k < n; ++k) row[k] = T(0);
}

// The ego of slot k, or nothing to see.
struct Viewer {
  bool present;
  int w, i;  // world, index in State
  World world;
  int a;
  Frame frame;
};
ALPAGYM_HD Viewer viewer(const Scenarios& c, const State& st, int k) {
  const int w = k / st.E, a = st.ego[k];
  const World world = world_of(c, st, w);
  if (a < 0 || a >= world.agents || !st.valid[w * st.A + a])
    return {false, w, 0, world, 0, {0.f, 0.f, 1.f, 0.f}};
  const int i = w * st.A + a;
  return {true, w, i, world, a, frame_of(pose_of(st, i))};
}

// Slots without an ego are cleared once: a pose of negative zeros, which count as zeros and which
// nothing else leaves there, says that all rows of the slot have been. The last stage writes it.
constexpr uint32_t kNegativeZero = 0x80000000u;
ALPAGYM_HD bool is_clear(const Observation& obs, int k) {
  for (int n = 0; n < 4; ++n)
    if (bits_of(obs.pose[4 * k + n]) != kNegativeZero) return false;
  return true;
}
ALPAGYM_HD void mark_clear(const Observation& obs, int k) {
  for (int n = 0; n < 4; ++n) obs.pose[4 * k + n] = -0.f;
}

// One thread per ego: the ego itself and its route.
struct ObserveRoute {
  Scenarios c;
  State st;
  Observation obs;
  const bool* mask;
  Params p;
  ALPAGYM_HD int size() const { return st.W * st.E; }

  ALPAGYM_HD void operator()(int k) const {
    if (mask && !mask[k / st.E]) return;
    const Viewer v = viewer(c, st, k);
    if (!v.present && is_clear(obs, k)) return;
    float* pose = obs.pose + 4 * k;
    float* ego_row = obs.ego + k * obs.CE;
    float* route_row = obs.route + k * obs.H * kNumRouteFeatures;
    bool* seen = obs.route_mask + k * obs.H;
    clear(pose, 4);
    clear(ego_row, obs.CE);
    clear(route_row, obs.H * kNumRouteFeatures);
    clear(seen, obs.H);
    if (!v.present) return;
    pose[0] = v.frame.x;
    pose[1] = v.frame.y;
    pose[2] = st.z[v.i];
    pose[3] = st.yaw[v.i];
    float ego[kNumEgoFeatures] = {};
    if (p.observation == kAlpaSim) {
      tell(ego, route_row, seen, v);
    } else {
      describe(ego, v);
      look_ahead(route_row, seen, v);
    }
    for (int n = 0; n < obs.CE; ++n) ego_row[n] = ego[n];
  }

  // As a driver of AlpaSim knows it: the own motion, and waypoints from where the rear axle is on
  // the route, in the frame of the rear axle. Directions are from waypoint to waypoint.
  ALPAGYM_HD void tell(float* ego, float* route_row, bool* seen, const Viewer& v) const {
    const int row = v.world.first + v.a;
    const float way = 0.5f * (st.prev_speed[v.i] + st.speed[v.i]) * p.dt;
    ego[kEgoSpeed] = st.speed[v.i];
    ego[kEgoAccel] = st.accel[v.i];
    ego[kEgoCurvature] = fabsf(way) < kShortWay ? 0.f : st.curvature[v.i];
    const Route route = route_of(c, row);
    if (route.n < 2) return;
    const Frame rig = frame_of(ahead(pose_of(st, v.i), -c.agent[row].rear_axle));
    const float s = project_near(route, {rig.x, rig.y}, st.route_s[v.i]).s;
    Vec2 last{0.f, 0.f}, direction{1.f, 0.f};
    int n = 0;
    for (float* f = route_row; n < obs.H; ++n, f += kNumRouteFeatures) {
      const float at = s + n * p.route_step;
      if (at > route.length()) break;
      const Vec2 point = to_local(rig, sample(route, at).position), step = point - last;
      const float length = norm(step);
      if (n > 0) {
        if (length < kShortestStep || length > kLongestStep) break;
        direction = (1.f / length) * step;
        f[kRouteCos - kNumRouteFeatures] = direction.x;
        f[kRouteSin - kNumRouteFeatures] = direction.y;
      }
      f[kRouteX] = point.x;
      f[kRouteY] = point.y;
      f[kRouteCos] = direction.x;
      f[kRouteSin] = direction.y;
      seen[n] = true;
      last = point;
    }
    if (n < 2) return;
    const Vec2 first{route_row[kRouteX], route_row[kRouteY]},
        along{route_row[kRouteCos], route_row[kRouteSin]};
    ego[kEgoRouteOffset] = cross(first, along);
    ego[kEgoHeadingError] = -atan2f(along.y, along.x);
  }

  ALPAGYM_HD void describe(float* ego, const Viewer& v) const {
    const int row = v.world.first + v.a;
    ego[kEgoSpeed] = st.speed[v.i];
    ego[kEgoAccel] = st.accel[v.i];
    ego[kEgoCurvature] = st.curvature[v.i];
    ego[kEgoLength] = c.agent[row].length;
    ego[kEgoWidth] = c.agent[row].width;
    const Route route = route_of(c, row);
    if (route.n < 2 || obs.CE <= kEgoRouteOffset) return;
    const float s = st.route_s[v.i];
    const Projection on = project_near(route, {v.frame.x, v.frame.y}, s);
    ego[kEgoRouteOffset] = on.d < 0.f ? -sqrtf(on.distance2) : sqrtf(on.distance2);
    ego[kEgoHeadingError] = wrap_angle(st.yaw[v.i] - atan2f(on.direction.y, on.direction.x));
    ego[kEgoSpeedLimit] = sample(route, s).speed_limit;
    ego[kEgoGoalDistance] = fmaxf(c.log_length[row] - s, 0.f);
    ego[kEgoStopDistance] =
        fminf(stop_gap(c, st, p, v.world, v.a, v.i, p.route_horizon), p.route_horizon);
  }

  ALPAGYM_HD void look_ahead(float* route_row, bool* seen, const Viewer& v) const {
    const Route route = route_of(c, v.world.first + v.a);
    if (route.n < 2) return;
    for (int h = 0; h < obs.H; ++h)
      if (!write(route_row, seen, v, route, h)) break;
  }

  // Waypoint h; false where the route ends before it.
  ALPAGYM_HD bool write(float* route_row, bool* seen, const Viewer& v, const Route& route,
                        int h) const {
    const float s = st.route_s[v.i], ahead = (h + 1) * p.route_step;
    if (s + ahead > route.length()) return false;
    const RouteSample q = sample(route, s + ahead);
    const Vec2 position = to_local(v.frame, q.position),
               direction = rotate_into(v.frame, q.direction);
    float* f = route_row + h * kNumRouteFeatures;
    f[kRouteX] = position.x;
    f[kRouteY] = position.y;
    f[kRouteCos] = direction.x;
    f[kRouteSin] = direction.y;
    f[kRouteSpeedLimit] = q.speed_limit;
    return seen[h] = true;
  }
};

// One thread per ego: the nearest other agents.
struct ObserveAgents {
  Scenarios c;
  State st;
  Observation obs;
  const bool* mask;
  Params p;
  ALPAGYM_HD int size() const { return st.W * st.E; }

  ALPAGYM_HD void operator()(int k) const {
    if (mask && !mask[k / st.E]) return;
    const Viewer v = viewer(c, st, k);
    if (!v.present && is_clear(obs, k)) return;
    const int64_t first = static_cast<int64_t>(k) * obs.O;
    bool* seen = obs.agents_mask + first;
    clear_rows(obs.agents, first, obs.O, obs.CA);
    clear(seen, obs.O);
    if (!v.present) return;
    Nearest nearest(obs.O);
    for (int b = 0; b < v.world.agents; ++b) {
      const int j = v.w * st.A + b;
      if (b == v.a || !st.valid[j] || !same_level(c, v.world.s, st.z[v.i], st.z[j])) continue;
      const Vec2 d{st.x[j] - v.frame.x, st.y[j] - v.frame.y};
      if (dot(d, d) <= p.agent_radius * p.agent_radius) nearest.add(dot(d, d), b);
    }
    nearest.sort();
    for (int n = 0; n < nearest.n; ++n) {
      write(first + n, v, nearest.index[n]);
      seen[n] = true;
    }
  }

  ALPAGYM_HD void write(int64_t at, const Viewer& v, int b) const {
    float f[kNumAgentFeatures];
    const int j = v.w * st.A + b, row = v.world.first + b;
    const Vec2 position = to_local(v.frame, {st.x[j], st.y[j]});
    const Frame other = frame_of(pose_of(st, j));
    const Vec2 heading = rotate_into(v.frame, {other.cos, other.sin});
    f[kAgentX] = position.x;
    f[kAgentY] = position.y;
    f[kAgentCos] = heading.x;
    f[kAgentSin] = heading.y;
    f[kAgentSpeed] = st.speed[j];
    f[kAgentLength] = c.agent[row].length;
    f[kAgentWidth] = c.agent[row].width;
    f[kAgentKind] = c.type[row];
    write_row(obs.agents, at, f, obs.CA);
  }
};

// One thread per ego: the nearest road points, by midpoint.
struct ObserveRoad {
  Scenarios c;
  State st;
  Observation obs;
  const bool* mask;
  Params p;
  ALPAGYM_HD int size() const { return st.W * st.E; }

  ALPAGYM_HD void operator()(int k) const {
    if (mask && !mask[k / st.E]) return;
    const Viewer v = viewer(c, st, k);
    if (!v.present && is_clear(obs, k)) return;
    const int64_t first = static_cast<int64_t>(k) * obs.B;
    bool* seen = obs.road_mask + first;
    clear_rows(obs.road, first, obs.B, obs.CR);
    clear(seen, obs.B);
    if (!v.present) return;
    const Grid g = grid_of(c, v.world.s);
    const float radius = p.road_radius, x = v.frame.x - g.x, y = v.frame.y - g.y;
    const int x0 = cell_index(x - radius, g.cell, g.columns),
              x1 = cell_index(x + radius, g.cell, g.columns);
    const int y0 = cell_index(y - radius, g.cell, g.rows),
              y1 = cell_index(y + radius, g.cell, g.rows);
    Nearest nearest(obs.B);
    for (int row = y0; row <= y1; ++row) {
      const int line = g.first + row * g.columns;
      for (int n = c.cell_road[line + x0]; n < c.cell_road[line + x1 + 1]; ++n) {
        const Vec2 d{c.road[n].x - v.frame.x, c.road[n].y - v.frame.y};
        if (dot(d, d) <= radius * radius && same_level(c, v.world.s, st.z[v.i], c.road[n].z))
          nearest.add(dot(d, d), n);
      }
    }
    nearest.sort();
    for (int n = 0; n < nearest.n; ++n) {
      write(first + n, v, nearest.index[n]);
      seen[n] = true;
    }
  }

  ALPAGYM_HD void write(int64_t at, const Viewer& v, int n) const {
    if (obs.road.format == RowFormat::kIndex) {
      static_cast<int32_t*>(obs.road.data)[at] = n;
      return;
    }
    const RoadPoint r = c.road[n];
    float f[kNumRoadFeatures];
    const Vec2 position = to_local(v.frame, {r.x, r.y});
    const Vec2 direction = rotate_into(v.frame, {r.dx, r.dy});
    f[kRoadX] = position.x;
    f[kRoadY] = position.y;
    f[kRoadCos] = direction.x;
    f[kRoadSin] = direction.y;
    f[kRoadHalfLength] = r.half_length;
    f[kRoadKind] = r.type;
    f[kRoadHeight] = r.z - st.z[v.i];
    write_row(obs.road, at, f, obs.CR);
  }
};

// One thread per ego: traffic lights, those on the route first, in order of arc length, then the
// nearest.
struct ObserveLights {
  Scenarios c;
  State st;
  Observation obs;
  const bool* mask;
  Params p;
  ALPAGYM_HD int size() const { return st.W * st.E; }

  ALPAGYM_HD void operator()(int k) const {
    if (mask && !mask[k / st.E]) return;
    const Viewer v = viewer(c, st, k);
    if (!v.present && is_clear(obs, k)) return;
    float* rows = obs.lights + k * obs.I * kNumLightFeatures;
    bool* seen = obs.lights_mask + k * obs.I;
    clear(rows, obs.I * kNumLightFeatures);
    clear(seen, obs.I);
    if (!v.present) return mark_clear(obs, k);
    const int row = v.world.first + v.a;
    const int first = c.light_start[v.world.s], count = c.light_start[v.world.s + 1] - first;
    const float front = st.route_s[v.i] + 0.5f * c.agent[row].length;
    int n = write_on_route(rows, seen, v, true);
    Nearest nearest(obs.I - n);
    for (int light = 0; light < count; ++light) {
      const Vec2 d{c.light_xy[2 * (first + light)] - v.frame.x,
                   c.light_xy[2 * (first + light) + 1] - v.frame.y};
      if (dot(d, d) <= p.light_radius * p.light_radius && !on_route_ahead(row, front, light))
        nearest.add(dot(d, d), light);
    }
    nearest.sort();
    for (int at = 0; at < nearest.n; ++at)
      write(rows, seen, n++, v, first, nearest.index[at], false, 0.f);
  }

  // How many there are on the route; writes them where asked to.
  ALPAGYM_HD int write_on_route(float* rows, bool* seen, const Viewer& v, bool writes) const {
    const int row = v.world.first + v.a, first = c.light_start[v.world.s];
    const float front = st.route_s[v.i] + 0.5f * c.agent[row].length;
    int n = 0;
    for (int m = c.stop_start[row]; m < c.stop_start[row + 1] && n < obs.I; ++m) {
      const float ahead = c.stop_s[m] - front;
      if (c.stop_light[m] < 0 || ahead < -1.f || ahead > p.route_horizon) continue;
      if (writes) write(rows, seen, n, v, first, c.stop_light[m], true, ahead);
      ++n;
    }
    return n;
  }

  ALPAGYM_HD bool on_route_ahead(int row, float front, int light) const {
    for (int m = c.stop_start[row]; m < c.stop_start[row + 1]; ++m)
      if (c.stop_light[m] == light && c.stop_s[m] - front >= -1.f &&
          c.stop_s[m] - front <= p.route_horizon)
        return true;
    return false;
  }

  ALPAGYM_HD void write(float* rows, bool* seen, int n, const Viewer& v, int first, int light,
                        bool on_route, float ahead) const {
    float* f = rows + n * kNumLightFeatures;
    const Vec2 position =
        to_local(v.frame, {c.light_xy[2 * (first + light)], c.light_xy[2 * (first + light) + 1]});
    const uint8_t state =
        light_state(c, v.world.s, frame_of_step(c, v.world.s, st.step[v.w]), light);
    f[kLightX] = position.x;
    f[kLightY] = position.y;
    f[kLightDistance] = ahead;
    f[kLightOnRoute] = on_route;
    f[kLightIsRed] = state == kLightRed || state == kLightFlashingRed;
    f[kLightIsYellow] = state == kLightYellow;
    f[kLightIsGreen] = state == kLightGreen;
    seen[n] = true;
  }
};

}  // namespace alpagym::kernels
