// What an action means: the list of kinds, and what each asks of an agent. A kind asks either for a
// control, which the vehicle model carries out, or for a pose outright; the kind `trajectory` is a
// plan, which kernels/follow.h follows. To add one: a line in the list, a case and its inverse
// below, its name in config.py and its twin in reference/motion.py.
#pragma once
#include "params.h"
#include "vehicle.h"
#include "world.h"

namespace alpagym {

// Kind, name, numbers in one control, pose or waypoint.
#define ALPAGYM_ACTIONS(X)                                                          \
  X(kUnicycle, "unicycle", 2)     /* acceleration [m/s^2], curvature [1/m] */       \
  X(kBicycle, "bicycle", 2)       /* acceleration [m/s^2], steering angle [rad] */  \
  X(kDelta, "delta", 3)           /* dx, dy [m], dyaw [rad] in the agent's frame */ \
  X(kTeleport, "teleport", 3)     /* x, y [m], yaw [rad] in the world frame */      \
  X(kJerk, "jerk", 2)             /* jerk [m/s^3], curvature rate [1/m/s] */        \
  X(kTrajectory, "trajectory", 3) /* x, y [m], yaw [rad] of the rear axle, in its frame */

#define ALPAGYM_ENUMERATOR(kind, name, size) kind,
enum ActionKind : int { ALPAGYM_ACTIONS(ALPAGYM_ENUMERATOR) kNumActionKinds };
#undef ALPAGYM_ENUMERATOR

// Numbers in one control, pose or waypoint.
ALPAGYM_HD int element_size(int kind) {
  switch (kind) {
#define ALPAGYM_CASE(kind, name, size) \
  case kind:                           \
    return size;
    ALPAGYM_ACTIONS(ALPAGYM_CASE)
#undef ALPAGYM_CASE
  }
  return 0;
}

// Numbers in an action: a plan's waypoints, or what is asked of each step until the next action.
ALPAGYM_HD int action_size(const Params& p) {
  return element_size(p.action) * (p.action == kTrajectory ? p.plan_steps : p.replan_every);
}
// Numbers that the state keeps of an action that goes on.
ALPAGYM_HD int ongoing_size(const Params& p) { return p.replan_every > 1 ? action_size(p) : 0; }

// Steps since the action of a world was read.
ALPAGYM_HD int action_age(const State& st, int w, const Params& p) {
  return static_cast<int>(static_cast<uint32_t>(st.step[w]) %
                          static_cast<uint32_t>(p.replan_every));
}
// What ego slot k of [W, E] goes by in this step: its part of `action`, or of what goes on.
ALPAGYM_HD const float* action_now(const float* action, const State& st, int k, const Params& p) {
  if (p.replan_every == 1) return action + static_cast<int64_t>(k) * action_size(p);
  const int age = p.action == kTrajectory ? 0 : action_age(st, k / st.E, p);
  return st.ongoing + static_cast<int64_t>(k) * st.M + age * element_size(p.action);
}

// Whether actions of a kind are poses or plans; all others are controls.
ALPAGYM_HD bool gives_pose(int kind) { return kind == kDelta || kind == kTeleport; }
ALPAGYM_HD bool gives_control(int kind) { return !gives_pose(kind) && kind != kTrajectory; }

// Whom an action is for, before the step.
struct Subject {
  AgentInfo agent;
  Pose pose;               // of the box center
  float speed;             // [m/s]
  float dt;                // [s]
  float accel, curvature;  // of the step before [m/s^2, 1/m]
};

ALPAGYM_HD Subject subject_of(const Scenarios& c, const State& st, int row, int i, float dt) {
  return {c.agent[row], pose_of(st, i), st.speed[i], dt, st.accel[i], st.curvature[i]};
}

// The control that an action `u` asks for; bounds are applied later.
ALPAGYM_HD Control asked_control(int kind, const float* u, const Subject& of) {
  switch (kind) {
    case kBicycle:
      return {u[0], curvature_of(u[1], wheelbase_of(of.agent.length, of.agent.rear_axle))};
    case kJerk:
      return {of.accel + (u[0] == u[0] ? u[0] * of.dt : 0.f),
              of.curvature + (u[1] == u[1] ? u[1] * of.dt : 0.f)};
    default:
      return {u[0], u[1]};
  }
}

// The pose that an action `u` asks for; what is not finite counts as no motion.
ALPAGYM_HD Pose asked_pose(int kind, const float* u, const Subject& of) {
  const Pose here = of.pose;
  const auto finite = [](float v, float otherwise) { return fabsf(v) < INFINITY ? v : otherwise; };
  if (kind == kDelta)
    return delta_step(here, {finite(u[0], 0.f), finite(u[1], 0.f), finite(u[2], 0.f)});
  return {finite(u[0], here.x), finite(u[1], here.y), wrap_angle(finite(u[2], here.yaw))};
}

// The inverse of both: the action that takes the subject to a pose and speed one step later.
// Heading and speed at the rear axle, which the vehicle model moves, are those of the center.
ALPAGYM_HD void write_inverse(int kind, float* u, const Subject& of, Pose to, float speed) {
  if (gives_pose(kind)) {
    const Pose asked = kind == kDelta ? delta_inverse(of.pose, to) : to;
    u[0] = asked.x;
    u[1] = asked.y;
    u[2] = asked.yaw;
    return;
  }
  const Control control = unicycle_inverse({of.pose, of.speed}, {to, speed}, of.dt);
  u[0] = control.accel;
  switch (kind) {
    case kBicycle:
      u[1] =
          steering_angle_of(control.curvature, wheelbase_of(of.agent.length, of.agent.rear_axle));
      return;
    case kJerk:
      u[0] = (control.accel - of.accel) / of.dt;
      u[1] = (control.curvature - of.curvature) / of.dt;
      return;
    default:
      u[1] = control.curvature;
  }
}

}  // namespace alpagym
