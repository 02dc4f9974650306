// Stage: control. Who drives an agent, and what they ask of it.
#pragma once
#include "../actions.h"
#include "../traffic.h"

namespace alpagym::kernels {

// One thread per agent. Keeps the step before, by which later stages tell what began in this one,
// and which worlds stand still and which agents are egos, by which they know whom to pass over.
struct Remember {
  State st;
  ALPAGYM_HD int size() const { return st.W * st.A; }

  ALPAGYM_HD void operator()(int i) const {
    const int w = i / st.A, a = i % st.A;
    const bool still = st.world_done(w);
    if (a == 0) st.still[w] = still;
    if (still) return;
    st.slot[i] = st.ego_slot(w, a);
    st.prev_x[i] = st.x[i];
    st.prev_y[i] = st.y[i];
    st.prev_yaw[i] = st.yaw[i];
    st.prev_speed[i] = st.speed[i];
    st.prev_accel[i] = st.accel[i];
    st.prev_curvature[i] = st.curvature[i];
    st.prev_route_s[i] = st.route_s[i];
    st.prev_route[i] = st.route[i];
    st.prev_valid[i] = st.valid[i];
    st.prev_stops_served[i] = st.stops_served[i];
  }
};

// One thread per ego. Keeps an action that lasts longer than this step, where one begins.
struct Take {
  Scenarios c;
  State st;
  const float* action;  // [W, E, action_size]
  Params p;
  static constexpr bool kOnlyMoving = true;
  ALPAGYM_HD int size() const { return st.W * st.E; }

  ALPAGYM_HD void operator()(int k) const {
    const int w = k / st.E;
    if (st.still[w] || action_age(st, w, p) != 0) return;
    const float* u = action + static_cast<int64_t>(k) * st.M;
    float* kept = st.ongoing + static_cast<int64_t>(k) * st.M;
    if (p.action != kTrajectory) {
      for (int d = 0; d < st.M; ++d) kept[d] = u[d];
      return;
    }
    const World world = world_of(c, st, w);
    const int a = st.ego[k];
    if (a < 0 || a >= world.agents) return;
    const Pose center = pose_of(st, w * st.A + a);
    const Frame rig = frame_of(ahead(center, -c.agent[world.first + a].rear_axle));
    for (int d = 0; d < st.M; d += 3) {
      const Vec2 at = to_world(rig, {u[d], u[d + 1]});
      kept[d] = at.x;
      kept[d + 1] = at.y;
      kept[d + 2] = wrap_angle(center.yaw + u[d + 2]);
    }
  }
};

// One thread per agent. Writes the asked-for accel and curvature; LOG agents, and policies that
// give poses or plans, have theirs from later stages.
struct Control {
  Scenarios c;
  State st;
  const float* action;  // [W, E, action_size]
  Params p;
  static constexpr bool kOnlyMoving = true;
  ALPAGYM_HD int size() const { return st.W * st.A; }

  ALPAGYM_HD void operator()(int i) const {
    const int w = i / st.A, a = i % st.A;
    if (!st.valid[i] || st.still[w]) return;
    const World world = world_of(c, st, w);
    if (a >= world.agents) return;
    switch (static_cast<Controller>(st.controller[i])) {
      case Controller::kPolicy:
        return decode(i, world.first + a, st.slot[i]);
      case Controller::kIdm:
        return drive(i, world, a);
      case Controller::kConstantVelocity:
        st.accel[i] = st.curvature[i] = 0.f;
        return;
      case Controller::kLog:
        return;
    }
  }

  ALPAGYM_HD void decode(int i, int row, int e) const {
    if (e < 0) {
      st.accel[i] = st.curvature[i] = 0.f;
      return;
    }
    if (!gives_control(p.action)) return;
    const float* u = action_now(action, st, i / st.A * st.E + e, p);
    const alpagym::Control asked = asked_control(p.action, u, subject_of(c, st, row, i, p.dt));
    st.accel[i] = asked.accel;
    st.curvature[i] = asked.curvature;
  }

  ALPAGYM_HD void drive(int i, World world, int a) const {
    const int row = world.first + a;
    const Route route = route_of(c, route_index(c, world, a, st.route[i]));
    const float s = st.route_s[i], speed = st.speed[i];
    if (route.n < 2) {
      st.accel[i] = fmaxf(-p.idm_decel, -speed / p.dt);
      st.curvature[i] = 0.f;
      return;
    }
    const Pose pose = pose_of(st, i);
    const float desired = speed_factor(c, st, p, world, a, i) * pace_at(route, s);
    const Line line = line_before(c, st, p, world, a, i);
    const float horizon =
        fmaxf(fminf(15.f + 3.5f * fmaxf(speed, 0.f), 80.f), line.sign ? kThrough : 0.f);
    const float offset = project_near(route, {pose.x, pose.y}, s).d;
    const int first = point_before(route, s), last = point_before(route, s + horizon) + 1;
    const Driver driver{c,
                        st,
                        p,
                        world,
                        a,
                        i,
                        route,
                        horizon,
                        first,
                        last,
                        0.5f * c.agent[row].length,
                        0.5f * c.agent[row].width,
                        offset,
                        line,
                        corridor_of(route, first, last + 1, frame_of(pose))};
    // Drivers never back up, and a record may hand over one whose speed is just below 0.
    st.accel[i] = fmaxf(driver.accel(desired), -speed / p.dt);
    st.curvature[i] = pursue(route, pose, s, speed, c.agent[row].rear_axle, offset);
  }
};

}  // namespace alpagym::kernels
