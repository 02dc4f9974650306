// Stage: follow. A plan -> next pose and speed, by AlpaSim's controller and vehicle.
#pragma once
#include "../actions.h"
#include "../mpc.h"

namespace alpagym::kernels {

// One thread per ego, after Advance. Its rear axle is what the plan tells of and the vehicle moves;
// in double precision from state to state.
struct Follow {
  Scenarios c;
  State st;
  const float* action;  // [W, E, action_size]
  Params p;
  static constexpr bool kOnlyMoving = true;
  ALPAGYM_HD int size() const { return st.W * st.E; }

  ALPAGYM_HD void operator()(int k) const {
    const int w = k / st.E, a = st.ego[k], i = w * st.A + a;
    if (a < 0 || st.still[w]) return;
    const World world = world_of(c, st, w);
    if (a >= world.agents || !st.valid[i] || st.slot[i] != k % st.E) return;
    if (static_cast<Controller>(st.controller[i]) == Controller::kPolicy)
      drive(k, i, c.agent[world.first + a].rear_axle);
    else  // the vehicle is in the motion that another controller gives it
      keep_motion(st, k, motion_of(st, i, p.dt));
  }

  ALPAGYM_HD void drive(int k, int i, double rear_axle) const {
    const float* plan = action_now(action, st, k, p);
    const bool ongoing = p.replan_every > 1;
    const int runs = static_cast<int>(fmax(1.0, floor(p.dt / mpc::kPeriod + 0.5)));
    const double h = static_cast<double>(p.dt) / runs, yaw = st.yaw[i];
    const mpc::Target start{st.x[i] - rear_axle * cos(yaw), st.y[i] - rear_axle * sin(yaw), yaw};
    // A plan that goes on is in the world frame; one that is new in that of the rear axle at start.
    mpc::Target rig = ongoing ? start : mpc::Target{0.0, 0.0, 0.0};
    bicycle::Vehicle<double> v{0.0,
                               0.0,
                               0.0,
                               st.speed[i],
                               st.lateral_speed[k],
                               st.yaw_rate[k],
                               st.steering_angle[k],
                               st.lagged_accel[k]};
    double ahead = ongoing ? static_cast<double>(p.dt) * action_age(st, k / st.E, p) : 0.0;
    for (int run = 0; run < runs; ++run, ahead += h) {
      mpc::Target target[mpc::kTracked];
      for (int n = 0; n < mpc::kTracked; ++n)
        target[n] = seen_from(rig, at(plan, ahead + mpc::kPeriod * (mpc::kFirstTracked + n)));
      v.x = v.y = v.yaw = 0.0;
      v = bicycle::advance(v, mpc::solve(v, target).command, h);
      rig = from_frame(rig, {v.x, v.y, v.yaw});
    }
    if (!ongoing) rig = from_frame(start, rig);
    put(k, i, rig, rear_axle, v);
  }

  // The plan `ahead` seconds after it began; before its first waypoint and after its last, those.
  ALPAGYM_HD mpc::Target at(const float* plan, double ahead) const {
    const double place = fmin(fmax(ahead / mpc::kPeriod - 1.0, 0.0), p.plan_steps - 1.0);
    const int n = static_cast<int>(fmin(floor(place), fmax(p.plan_steps - 2.0, 0.0)));
    const double part = place - n;
    const float *from = plan + 3 * n, *to = p.plan_steps > 1 ? from + 3 : from;
    return {from[0] + part * (static_cast<double>(to[0]) - from[0]),
            from[1] + part * (static_cast<double>(to[1]) - from[1]),
            from[2] + part * wrap(static_cast<double>(to[2]) - from[2])};
  }

  ALPAGYM_HD void put(int k, int i, const mpc::Target& rig, double rear_axle,
                      const bicycle::Vehicle<double>& v) const {
    // No steering angle within the controller's bounds leads to a tighter path than this.
    constexpr float kTightest = 1.f / static_cast<float>(bicycle::kWheelbase);
    const Kinematics from{pose_of(st, i), st.speed[i]};
    const double center_x = rig.x + rear_axle * cos(rig.yaw),
                 center_y = rig.y + rear_axle * sin(rig.yaw);
    const Kinematics to{{static_cast<float>(center_x), static_cast<float>(center_y),
                         wrap_angle(static_cast<float>(rig.yaw))},
                        static_cast<float>(v.speed)};
    const alpagym::Control u = unicycle_inverse(from, to, p.dt);
    st.x[i] = to.pose.x;
    st.y[i] = to.pose.y;
    st.yaw[i] = to.pose.yaw;
    st.speed[i] = to.speed;
    st.accel[i] = u.accel;
    st.curvature[i] = fminf(fmaxf(u.curvature, -kTightest), kTightest);
    keep_motion(st, k, v);
  }

  ALPAGYM_HD static double wrap(double angle) {
    constexpr double kTurn = 6.283185307179586;
    return angle - kTurn * floor(angle / kTurn + 0.5);
  }
  ALPAGYM_HD static mpc::Target seen_from(const mpc::Target& frame, const mpc::Target& q) {
    const double c = cos(frame.yaw), s = sin(frame.yaw), x = q.x - frame.x, y = q.y - frame.y;
    return {c * x + s * y, c * y - s * x, wrap(q.yaw - frame.yaw)};
  }
  ALPAGYM_HD static mpc::Target from_frame(const mpc::Target& frame, const mpc::Target& q) {
    const double c = cos(frame.yaw), s = sin(frame.yaw);
    return {frame.x + c * q.x - s * q.y, frame.y + s * q.x + c * q.y, frame.yaw + q.yaw};
  }
};

}  // namespace alpagym::kernels
