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
  static constexpr bool kOnlyMoving = true;
  ALPAGYM_HD int size() const { return st.W * st.A; }

  ALPAGYM_HD void operator()(int i) const {
    const int w = i / st.A, a = i % st.A;
    if (st.still[w]) return;
    const World world = world_of(c, st, w);
    if (a >= world.agents) return;
    const int e = st.slot[i];
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
    if (controller == Controller::kIdm && past_route(i, world, a)) st.valid[i] = false;
  }

  // The recorded pose of the next frame; the agent is there exactly when the record says so. But
  // one that IDM will drive waits until there is room for it.
  ALPAGYM_HD void replay(int i, World world, int a) const {
    const int frame = frame_of_step(c, world.s, st.step[i / st.A] + 1);
    if (frame >= c.num_frames[world.s]) return walk_on(i, world, a);
    const int cell = log_cell(c, world.s, frame, a);
    const bool was_valid = st.valid[i];
    st.valid[i] = c.log_valid[cell];
    if (!st.valid[i]) return;
    const LogPose log = c.log[cell];
    if (!was_valid && !has_room(i, world, a, log)) {
      st.valid[i] = false;
      return;
    }
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

  // Beyond the record, who stands stays; who moves goes straight on for a while and leaves, a
  // vehicle as soon as something is in its way.
  ALPAGYM_HD void walk_on(int i, World world, int a) const {
    constexpr float kWay = 50.f;  // [m]
    if (!st.valid[i]) return;
    st.accel[i] = st.curvature[i] = 0.f;
    if (fabsf(st.speed[i]) < 0.5f) {
      st.speed[i] = 0.f;
      return;
    }
    st.x[i] += st.speed[i] * p.dt * cosf(st.yaw[i]);
    st.y[i] += st.speed[i] * p.dt * sinf(st.yaw[i]);
    const LogPose& last = c.log[log_cell(c, world.s, c.num_frames[world.s] - 1, a)];
    const int row = world.first + a;
    if (norm({st.x[i] - last.x, st.y[i] - last.y}) > kWay ||
        (c.type[row] != kPedestrian && meets(i, world, a, box_of(c, row, pose_of(st, i)), false)))
      st.valid[i] = false;
  }

  // Whether a box in the place of agent a would overlap where others were; `off_record`: where
  // those were that do not replay their log.
  ALPAGYM_HD bool meets(int i, World world, int a, const Box& own, bool off_record) const {
    for (int b = 0; b < world.agents; ++b) {
      const int j = i - a + b;
      if (b == a || !st.prev_valid[j]) continue;
      if (off_record && static_cast<Controller>(st.controller[j]) == Controller::kLog) continue;
      if (overlap(own, box_of(c, world.first + b, prev_pose_of(st, j)))) return true;
    }
    return false;
  }

  // Whether a vehicle that appears where IDM may drive would stand clear of where others were. One
  // that IDM will not drive keeps clear of those alone that have left the record.
  ALPAGYM_HD bool has_room(int i, World world, int a, const LogPose& log) const {
    const Traffic traffic = traffic_of(st, p, i / st.A);
    const int row = world.first + a;
    if ((traffic != Traffic::kIdm && traffic != Traffic::kLogThenIdm) ||
        c.type[row] == kPedestrian || st.slot[i] >= 0)
      return true;
    const bool drives_on = drives(c, row, route_of(c, row));
    Box own = box_of(c, row, {log.x, log.y, log.yaw});
    own.half_length += drives_on && traffic == Traffic::kIdm ? 1.f + 0.5f * fabsf(log.speed) : 0.5f;
    own.half_width += 0.3f;
    return !meets(i, world, a, own, !drives_on);
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

  // Who has driven to the end of its route leaves: the map ends there. Who has none stands.
  ALPAGYM_HD bool past_route(int i, World world, int a) const {
    const Route route = route_of(c, route_index(c, world, a, st.route[i]));
    return route.n >= 2 && st.route_s[i] > route.length() - 4.f;
  }
};

}  // namespace alpagym::kernels
