// What a step is rewarded for: the list of terms, and how those that need no other agent's box are
// measured. To add one: a line in the list, a line in measure_terms(), its weight in config.py and
// its twin in reference/outcome.py.
#pragma once
#include "lanes.h"
#include "outcome.h"
#include "params.h"

namespace alpagym {

// Raw quantities of a step, each multiplied by its weight into the reward.
#define ALPAGYM_REWARD_TERMS(X)                                                              \
  X(kProgress, "progress")                   /* route arc length gained [m] */               \
  X(kCollisionAtFault, "collision_at_fault") /* 1 when a front or lateral collision began */ \
  X(kCollisionAny, "collision_any")          /* 1 when any collision began */                \
  X(kOffroad, "offroad")                     /* 1 when a corner left the drivable area */    \
  X(kRedLight, "red_light")                  /* 1 when the front crossed a red stop line */  \
  X(kStopSignRun, "stop_sign")               /* 1 when a stop sign was run */                \
  X(kGoal, "goal")                           /* 1 when the logged path's end was reached */  \
  X(kRoute, "route")                         /* distance from the route [m] */               \
  X(kLane, "lane")                           /* from the own lane's center, at most 6 [m] */ \
  X(kWrongWay, "wrong_way")                  /* 1 while all lanes here run against it */     \
  X(kDistanceToGt, "distance_to_gt")         /* from the logged position of that time [m] */ \
  X(kSpeedLimit, "speed_limit")              /* speed above the limit [m/s] */               \
  X(kComfort, "comfort")                     /* 1 while beyond nuPlan's comfort bounds */    \
  X(kTtc, "ttc")                             /* shortfall below ttc_horizon, fraction */

#define ALPAGYM_ENUMERATOR(term, name) term,
enum RewardTerm : int { ALPAGYM_REWARD_TERMS(ALPAGYM_ENUMERATOR) kNumRewardTerms };
#undef ALPAGYM_ENUMERATOR

// What a ride feels like at one instant.
struct Motion {
  float accel, speed, curvature;  // [m/s^2, m/s, 1/m]
};

// nuPlan's six bounds of comfort, on motion over one step: acceleration along -4.05..2.40 and
// across 4.89 m/s^2, jerk 8.37 and jerk along 4.13 m/s^3, yaw rate 0.95 rad/s, yaw acceleration
// 1.93 rad/s^2.
ALPAGYM_HD bool comfortable(Motion before, Motion now, float dt) {
  const float yaw_rate = now.speed * now.curvature, across = now.speed * yaw_rate;
  const float yaw_rate_before = before.speed * before.curvature;
  const Vec2 change{now.accel - before.accel, across - before.speed * yaw_rate_before};
  return now.accel >= -4.05f && now.accel <= 2.40f && fabsf(across) <= 4.89f &&
         norm(change) <= 8.37f * dt && fabsf(change.x) <= 4.13f * dt && fabsf(yaw_rate) <= 0.95f &&
         fabsf(yaw_rate - yaw_rate_before) <= 1.93f * dt;
}

// Whether the front bumper of an agent crossed a stop line in this step at which it had to stop:
// that of a red light, or of a stop sign before which it did not stand.
struct Crossings {
  bool red_light, stop_sign;
};
ALPAGYM_HD Crossings crossings(const Scenarios& c, const State& st, int i, int row, int s,
                               int frame) {
  const float front = 0.5f * c.agent[row].length;
  Crossings found{false, false};
  for (int m = c.stop_start[row]; m < c.stop_start[row + 1]; ++m) {
    const bool crossed =
        st.prev_route_s[i] + front < c.stop_s[m] && st.route_s[i] + front >= c.stop_s[m];
    if (!crossed) continue;
    if (c.stop_light[m] >= 0)
      found.red_light |= light_state(c, s, frame, c.stop_light[m]) == kLightRed;
    else if (c.stop_light[m] == kStopSign)
      found.stop_sign |= m - c.stop_start[row] >= st.prev_stops_served[i] && st.speed[i] >= 0.5f;
  }
  return found;
}

// Every term of agent i (row `row` of its world's scenario) but those of Contact and of its lane,
// which are there already; the others are 0.
ALPAGYM_HD void measure_terms(float* terms, const Scenarios& c, const State& st, const Params& p,
                              int i, int row, World world) {
  const float speed = st.speed[i];
  const int frame = frame_of_step(c, world.s, st.step[i / st.A]);
  const Route route = route_of(c, row);
  if (route.n >= 2) {
    const float s = st.route_s[i], s_before = st.prev_route_s[i];
    const Projection on = project_near(route, {st.x[i], st.y[i]}, s);
    const Crossings crossed = crossings(c, st, i, row, world.s, frame);
    terms[kProgress] = s - s_before;
    terms[kGoal] = s >= c.log_length[row] && s_before < c.log_length[row];
    terms[kRoute] = sqrtf(on.distance2);
    terms[kSpeedLimit] = fmaxf(speed - sample(route, s).speed_limit, 0.f);
    terms[kRedLight] = crossed.red_light;
    terms[kStopSignRun] = crossed.stop_sign;
  }
  const int cell = log_cell(c, world.s, frame, row - world.first);
  if (frame < c.num_frames[world.s] && c.log_valid[cell])
    terms[kDistanceToGt] = norm({st.x[i] - c.log[cell].x, st.y[i] - c.log[cell].y});
  terms[kComfort] = !comfortable({st.prev_accel[i], st.prev_speed[i], st.prev_curvature[i]},
                                 {st.accel[i], speed, st.curvature[i]}, p.dt);
}

}  // namespace alpagym
