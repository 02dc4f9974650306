// Stage: decide. Who drives an agent from here on, and along which route.
#pragma once
#include "../mobil.h"

namespace alpagym::kernels {

// One thread per agent; after Remember. Writes the agent's controller and route, and reads of
// others only what Remember kept or nobody writes here.
struct Decide {
  Scenarios c;
  State st;
  Params p;
  static constexpr bool kOnlyMoving = true;
  ALPAGYM_HD int size() const { return st.W * st.A; }

  static constexpr float kContinue = 95.f;   // a route that ends within goes on as another [m]
  static constexpr float kMinSpeed = 3.f;    // slower drivers stay in their lane [m/s]
  static constexpr float kRoomTime = 4.f;    // the other lane runs beside for so long [s]
  static constexpr int kTurn = 5;            // each agent looks for a change every so many steps
  static constexpr float kPathTime = 2.f;    // how far ahead on its record an agent looks [s]
  static constexpr float kMisplaced = 0.5f;  // who is farther from its record is off it [m]

  ALPAGYM_HD void operator()(int i) const {
    const int w = i / st.A, a = i % st.A;
    if (!st.valid[i] || st.still[w]) return;
    const World world = world_of(c, st, w);
    if (a >= world.agents) return;
    if (static_cast<Controller>(st.controller[i]) == Controller::kLog) take_over(i, w, world, a);
    if (static_cast<Controller>(st.controller[i]) != Controller::kIdm || st.slot[i] >= 0) return;
    st.change_wait[i] = fmaxf(st.change_wait[i] - p.dt, 0.f);
    const int index = route_index(c, world, a, st.route[i]);
    const Route route = route_of(c, index);
    if (route.n < 2) return;
    if (c.next_route[index] >= 0 && st.route_s[i] > route.length() - kContinue)
      follow(i, world, a, c.next_route[index], st.route_s[i] + c.next_shift[index]);
    else if (p.lane_changes && may_change(i, w, world, a, route))
      change(i, w, world, a, index, route);
  }

  // IDM takes over from the log at once, or once the record no longer fits or has ended; never
  // back.
  ALPAGYM_HD void take_over(int i, int w, World world, int a) const {
    const int row = world.first + a;
    const Route route = route_of(c, row);
    if (!drives(c, row, route) || st.slot[i] >= 0) return;
    const Traffic traffic = traffic_of(st, p, w);
    const int frame = frame_of_step(c, world.s, st.step[w]);
    const bool now = traffic == Traffic::kIdm ||
                     (traffic == Traffic::kLogThenIdm &&
                      (frame + 1 >= c.num_frames[world.s] || an_ego_deviates(w, world, frame) ||
                       path_blocked(i, world, a, frame)));
    if (!now) return;
    st.controller[i] = static_cast<uint8_t>(Controller::kIdm);
    st.route_s[i] = project(route, {st.x[i], st.y[i]}, 0, route.n - 2).s;
    st.stops_served[i] = stops_behind(row, row, st.route_s[i]);
  }

  ALPAGYM_HD float off_record(int j, World world, int b, int frame) const {
    const int cell = log_cell(c, world.s, frame, b);
    if (!c.log_valid[cell]) return INFINITY;
    return norm({st.x[j] - c.log[cell].x, st.y[j] - c.log[cell].y});
  }

  ALPAGYM_HD bool an_ego_deviates(int w, World world, int frame) const {
    for (int e = 0; e < st.E; ++e) {
      const int b = st.ego[w * st.E + e];
      if (b < 0 || b >= world.agents || !st.valid[w * st.A + b]) continue;
      if (off_record(w * st.A + b, world, b, frame) > p.reactive_distance) return true;
    }
    return false;
  }

  // Whether this agent, on its record, would soon meet someone who is off it and keeps its
  // velocity.
  ALPAGYM_HD bool path_blocked(int i, World world, int a, int frame) const {
    const int stride = fmaxf(0.4f / p.dt, 1.f), ahead = kPathTime / p.dt;
    for (int b = 0; b < world.agents; ++b) {
      const int j = i - a + b;
      if (b == a || !st.valid[j] || !same_level(c, world.s, st.z[i], st.z[j])) continue;
      const Vec2 d{st.x[j] - st.x[i], st.y[j] - st.y[i]};
      const float reach = 15.f + kPathTime * fabsf(st.speed[i]);
      if (dot(d, d) > reach * reach || off_record(j, world, b, frame) < kMisplaced) continue;
      const Box now = box_of(c, world.first + b, pose_of(st, j));
      for (int k = stride; k <= ahead; k += stride) {
        Box other = now;
        other.frame.x += k * p.dt * st.speed[j] * now.frame.cos;
        other.frame.y += k * p.dt * st.speed[j] * now.frame.sin;
        const int cell = log_cell(c, world.s, frame + k, a);
        if (!c.log_valid[cell]) continue;
        const LogPose& log = c.log[cell];
        Box own = box_of(c, world.first + a, {log.x, log.y, log.yaw});
        own.half_length += 2.f * kClearance;
        own.half_width += kClearance;
        if (overlap(own, other)) return true;
      }
    }
    return false;
  }

  ALPAGYM_HD bool may_change(int i, int w, World world, int a, const Route& route) const {
    const float s = st.route_s[i], speed = st.speed[i];
    if ((st.step[w] + a) % kTurn != 0 || st.change_wait[i] > 0.f || speed < kMinSpeed ||
        c.type[world.first + a] != kVehicle)
      return false;
    const Projection on = project_near(route, {st.x[i], st.y[i]}, s);
    const float cos = cosf(st.yaw[i]) * on.direction.x + sinf(st.yaw[i]) * on.direction.y;
    return on.distance2 < 0.25f && cos > 0.995f;
  }

  // MOBIL: to the left in even steps, to the right in odd ones, so that no two agents take the same
  // gap from both sides.
  ALPAGYM_HD void change(int i, int w, World world, int a, int index, const Route& route) const {
    const bool left = st.step[w] % 2 == 0;
    const float s = st.route_s[i], speed = st.speed[i];
    for (int g = c.beside_start[index]; g < c.beside_start[index + 1]; ++g) {
      const LaneBeside beside = c.beside[g];
      if ((beside.lane > 0.f) != left || s < beside.first ||
          s + 10.f + kRoomTime * speed > beside.last)
        continue;
      const int lane = static_cast<int>(fabsf(beside.lane)) - 1;
      const Route other = route_of(c, route_index(c, world, a, lane + 1));
      if (other.n < 2) continue;
      const Projection there = project_near(other, {st.x[i], st.y[i]}, s + beside.shift);
      if (gain(i, world, a, route, s, other, there.s) < p.idm_change_threshold) continue;
      follow(i, world, a, lane, there.s);
      st.change_wait[i] = p.idm_change_wait;
      return;
    }
  }

  ALPAGYM_HD float gain(int i, World world, int a, const Route& route, float s, const Route& other,
                        float other_s) const {
    const float length = c.agent[world.first + a].length;
    const float half_width = 0.5f * c.agent[world.first + a].width;
    const Around now = around_on(c, st, world, a, i, route, s, 0.5f * length, half_width);
    const Around then = around_on(c, st, world, a, i, other, other_s, 0.5f * length, half_width);
    const float factor = speed_factor(c, st, p, world, a, i);
    return mobil_gain(p, st.speed[i], length, now, then, factor * pace_at(route, s),
                      factor * pace_at(other, other_s), follower_speed(now, i - a, world, route),
                      follower_speed(then, i - a, world, other));
  }

  ALPAGYM_HD float follower_speed(const Around& r, int first, World world,
                                  const Route& route) const {
    if (r.follower < 0) return 1.f;
    return speed_factor(c, st, p, world, r.follower, first + r.follower) *
           pace_at(route, r.follow_s);
  }

  // Go on along a lane route of the scenario, from about arc length s of it.
  ALPAGYM_HD void follow(int i, World world, int a, int lane, float s) const {
    const int index = route_index(c, world, a, lane + 1);
    const Route route = route_of(c, index);
    if (route.n < 2 || s < 0.f) return;
    st.route[i] = lane + 1;
    st.route_s[i] = project_near(route, {st.x[i], st.y[i]}, s).s;
    st.stops_served[i] = stops_behind(world.first + a, index, st.route_s[i]);
  }

  // Stops of a route that its agent's front bumper has passed.
  ALPAGYM_HD uint8_t stops_behind(int row, int index, float s) const {
    int served = 0;
    for (int m = c.stop_start[index]; m < c.stop_start[index + 1] && served < 255; ++m) {
      if (c.stop_s[m] - s - 0.5f * c.agent[row].length >= -1.f) break;
      ++served;
    }
    return static_cast<uint8_t>(served);
  }
};

}  // namespace alpagym::kernels
