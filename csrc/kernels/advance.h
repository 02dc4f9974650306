// Stage: advance. Control -> next pose and speed.
#pragma once
#include "../actions.h"
#include "../params.h"
#include "../world.h"

namespace alpagym::kernels {

// One thread per agent.
struct Advance {
  Scenarios c;
  State st;
  const float* action;  // [W, E, action_size]
  Params p;
  ALPAGYM_HD int size() const { return st.W * st.A; }

  ALPAGYM_HD void operator()(int i) const {
    const int w = i / st.A, a = i % st.A;
    if (st.world_done(w)) return;
    const World world = world_of(c, st, w);
    if (a >= world.agents) return;
    const int e = st.ego_slot(w, a);
    if (e >= 0 && st.ego_done(w, e)) {  // an ego that is done leaves a world that goes on
      st.valid[i] = false;
      return;
    }
    const Controller controller = static_cast<Controller>(st.controller[i]);
    if (controller == Controller::kLog) return replay(i, world, a);
    if (!st.valid[i]) return;
    if (controller == Controller::kPolicy && e >= 0 && !gives_control(p.action)) {
      if (!gives_pose(p.action)) return;  // Follow moves it
      const float* u = action_now(action, st, w * st.E + e, p);
      return place(i, asked_pose(p.action, u, subject_of(c, st, world.first + a, i, p.dt)));
    }
    integrate(i, c.agent[world.first + a].rear_axle);
    if (controller == Controller::kIdm && past_route(i, world.first + a)) st.valid[i] = false;
  }

  // The recorded pose of the next frame; the agent is there exactly when the record says so.
  ALPAGYM_HD void replay(int i, World world, int a) const {
    const int cell = log_cell(c, world.s, frame_of_step(c, world.s, st.step[i / st.A] + 1), a);
    const bool was_valid = st.valid[i];
    st.valid[i] = c.log_valid[cell];
    if (!st.valid[i]) return;
    const LogPose log = c.log[cell];
    const Pose from = pose_of(st, i), to{log.x, log.y, log.yaw};
    const Control u =
        was_valid ? replayed_control({from, st.speed[i]}, {to, log.speed}, p.dt, p.max_curvature)
                  : Control{0.f, 0.f};
    st.x[i] = to.x;
    st.y[i] = to.y;
    st.z[i] = c.log_z[cell];
    st.yaw[i] = to.yaw;
    st.speed[i] = log.speed;
    st.accel[i] = u.accel;
    st.curvature[i] = u.curvature;
  }

  // The vehicle model moves the rear axle; the state keeps the box center.
  ALPAGYM_HD void integrate(int i, float rear_axle) const {
    const Control u = bounded({st.accel[i], st.curvature[i]}, st.speed[i],
                              {p.min_accel, p.max_accel, p.max_curvature, p.max_lateral_accel});
    const Kinematics from{ahead(pose_of(st, i), -rear_axle), st.speed[i]};
    const Kinematics to = unicycle_step(from, u, p.dt);
    const Pose center = ahead(to.pose, rear_axle);
    st.x[i] = center.x;
    st.y[i] = center.y;
    st.yaw[i] = center.yaw;
    st.speed[i] = to.speed;
    st.accel[i] = (to.speed - from.speed) / p.dt;
    st.curvature[i] = u.curvature;
  }

  // A pose given outright; speed and control are what the displacement amounts to.
  ALPAGYM_HD void place(int i, Pose to) const {
    const Pose from = pose_of(st, i);
    const float speed = speed_of(from, to, p.dt);
    const Control u = unicycle_inverse({from, st.speed[i]}, {to, speed}, p.dt);
    st.x[i] = to.x;
    st.y[i] = to.y;
    st.yaw[i] = to.yaw;
    st.speed[i] = speed;
    st.accel[i] = u.accel;
    st.curvature[i] = u.curvature;
  }

  // Traffic that has driven to the end of its route leaves.
  ALPAGYM_HD bool past_route(int i, int row) const {
    const Route route = route_of(c, row);
    return route.n < 2 || st.route_s[i] > route.length() - 4.f;
  }
};

}  // namespace alpagym::kernels
