// Stage: reset. Scenario -> state, for the worlds in a mask.
#pragma once
#include "../params.h"
#include "../vehicle.h"
#include "../world.h"

namespace alpagym::kernels {

// One thread per agent. Reads State.scenario, seed and member, which the caller has set.
struct ResetAgent {
  Scenarios c;
  State st;
  const bool* mask;  // [W]
  Params p;
  ALPAGYM_HD int size() const { return st.W * st.A; }

  ALPAGYM_HD void operator()(int i) const {
    const int w = i / st.A, a = i % st.A;
    if (!mask[w]) return;
    const World world = world_of(c, st, w);
    Pose pose{0.f, 0.f, 0.f};
    float z = 0.f, speed = 0.f, route_s = 0.f;
    alpagym::Control control{0.f, 0.f};
    bool valid = false;
    Controller controller = Controller::kLog;
    if (a < world.agents) {
      const int row = world.first + a, cell = log_cell(c, world.s, c.start_frame[world.s], a);
      const Route route = route_of(c, row);
      valid = c.log_valid[cell];
      if (valid) {
        const LogPose log = c.log[cell];
        pose = {log.x, log.y, log.yaw};
        z = c.log_z[cell];
        speed = log.speed;
        control = recorded_control(world.s, a, {pose, speed});
        if (route.n >= 2) route_s = project(route, {pose.x, pose.y}, 0, route.n - 2).s;
      }
      controller = controller_of(w, world, a, row, route, valid);
    }
    st.x[i] = st.prev_x[i] = pose.x;
    st.y[i] = st.prev_y[i] = pose.y;
    st.z[i] = z;
    st.yaw[i] = st.prev_yaw[i] = pose.yaw;
    st.speed[i] = st.prev_speed[i] = speed;
    st.accel[i] = st.prev_accel[i] = control.accel;
    st.curvature[i] = st.prev_curvature[i] = control.curvature;
    st.route_s[i] = st.prev_route_s[i] = route_s;
    st.route[i] = st.prev_route[i] = 0;
    st.change_wait[i] = 0.f;
    st.stood[i] = 0.f;
    st.valid[i] = st.prev_valid[i] = valid;
    st.controller[i] = static_cast<uint8_t>(controller);
    st.stops_served[i] = st.prev_stops_served[i] = 0;
  }

  // What the record did in the step before the first, so that the first step's jerk means
  // something.
  ALPAGYM_HD alpagym::Control recorded_control(int s, int a, Kinematics now) const {
    if (c.start_frame[s] == 0) return {0.f, 0.f};
    const int before = log_cell(c, s, c.start_frame[s] - 1, a);
    if (!c.log_valid[before]) return {0.f, 0.f};
    const LogPose log = c.log[before];
    return replayed_control({{log.x, log.y, log.yaw}, log.speed}, now, p.dt, p.max_curvature);
  }

  // Egos are policy-controlled. Others are what their world's traffic is, but the log where there
  // is nothing to drive along: parked or absent agents, and pedestrians, whom IDM does not
  // describe.
  ALPAGYM_HD Controller controller_of(int w, World world, int a, int row, Route route,
                                      bool valid) const {
    for (int e = 0; e < st.E && e < c.num_egos[world.s]; ++e)
      if (c.ego_order[world.first + e] == a) return Controller::kPolicy;
    if (!valid || !drives(c, row, route)) return Controller::kLog;
    switch (traffic_of(st, p, w)) {
      case Traffic::kIdm:
        return Controller::kIdm;
      case Traffic::kConstantVelocity:
        return Controller::kConstantVelocity;
      default:
        return Controller::kLog;
    }
  }
};

// One thread per ego; after ResetAgent.
struct ResetEgo {
  Scenarios c;
  State st;
  const bool* mask;
  Params p;
  ALPAGYM_HD int size() const { return st.W * st.E; }

  ALPAGYM_HD void operator()(int k) const {
    const int w = k / st.E, e = k % st.E;
    if (!mask[w]) return;
    const World world = world_of(c, st, w);
    const int a = e < c.num_egos[world.s] ? c.ego_order[world.first + e] : -1;
    const bool present = a >= 0 && a < world.agents && st.valid[w * st.A + a];
    st.ego[k] = present ? a : -1;
    st.terminated[k] = false;
    st.truncated[k] = false;
    const float turning = present ? recorded_yaw_rate(world.s, a) : 0.f;
    keep_motion(st, k,
                bicycle::moving<double>(present ? st.speed[w * st.A + a] : 0.f, 0.0, turning));
    for (int d = 0; d < st.M; ++d) st.ongoing[static_cast<int64_t>(k) * st.M + d] = 0.f;
    bool offroad = false;
    if (present) {
      const int i = w * st.A + a;
      offroad = is_offroad(c, world.s, box_of(c, world.first + a, pose_of(st, i)), st.z[i]);
    }
    st.offroad[k] = offroad;
    if (e == 0) st.step[w] = 0;
  }

  // Like recorded_control; 0 where nothing tells.
  ALPAGYM_HD float recorded_yaw_rate(int s, int a) const {
    if (c.start_frame[s] == 0) return 0.f;
    const int now = log_cell(c, s, c.start_frame[s], a),
              before = log_cell(c, s, c.start_frame[s] - 1, a);
    return c.log_valid[before] ? wrap_angle(c.log[now].yaw - c.log[before].yaw) / p.dt : 0.f;
  }
};

}  // namespace alpagym::kernels
