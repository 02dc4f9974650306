// What a step is rewarded for: the list of terms, and how those that need no other agent's box are
// measured. To add one: a line in the list, a line in measure_terms(), its weight in config.py and
// its twin in reference/outcome.py.
#pragma once
#include "params.h"
#include "world.h"

namespace alpagym {

// Raw quantities of a step, each multiplied by its weight into the reward.
#define ALPAGYM_REWARD_TERMS(X)                                                              \
  X(kProgress, "progress")                   /* route arc length gained [m] */               \
  X(kCollisionAtFault, "collision_at_fault") /* 1 when a front or lateral collision began */ \
  X(kCollisionAny, "collision_any")          /* 1 when any collision began */                \
  X(kOffroad, "offroad")                     /* 1 when a corner left the drivable area */    \
  X(kRedLight, "red_light")                  /* 1 when the front crossed a red stop line */  \
  X(kGoal, "goal")                           /* 1 when the logged path's end was reached */  \
  X(kLane, "lane")                           /* distance from the route [m] */               \
  X(kWrongWay, "wrong_way")                  /* 1 while headed 120 degrees off the route */  \
  X(kDistanceToGt, "distance_to_gt")         /* from the logged position of that time [m] */ \
  X(kSpeedLimit, "speed_limit")              /* speed above the limit [m/s] */               \
  X(kComfort, "comfort")                     /* 1 while beyond nuPlan's comfort bounds */    \
  X(kTtc, "ttc")                             /* shortfall below ttc_horizon, fraction */

#define ALPAGYM_ENUMERATOR(term, name) term,
enum RewardTerm : int { ALPAGYM_REWARD_TERMS(ALPAGYM_ENUMERATOR) kNumRewardTerms };
#undef ALPAGYM_ENUMERATOR

// nuPlan's comfort bounds: longitudinal acceleration -4.05..2.40 m/s^2, lateral 4.89 m/s^2,
// longitudinal jerk 4.13 m/s^3, yaw rate 0.95 rad/s.
ALPAGYM_HD bool comfortable(float accel, float prev_accel, float speed, float curvature, float dt) {
  const float yaw_rate = fabsf(speed * curvature);
  return accel >= -4.05f && accel <= 2.40f && yaw_rate * fabsf(speed) <= 4.89f &&
         yaw_rate <= 0.95f && fabsf(accel - prev_accel) <= 4.13f * dt;
}

// Whether the front bumper of an agent crossed the stop line of a red light.
ALPAGYM_HD bool runs_red_light(const Scenarios& c, int row, int s, int frame, float s_before,
                               float s_now) {
  const float front = 0.5f * c.agent[row].length;
  for (int m = c.stop_start[row]; m < c.stop_start[row + 1]; ++m)
    if (c.stop_light[m] >= 0 && s_before + front < c.stop_s[m] && s_now + front >= c.stop_s[m] &&
        light_state(c, s, frame, c.stop_light[m]) == kLightRed)
      return true;
  return false;
}

// Every term of agent i (row `row` of its world's scenario) but those of Contact, which are there
// already; the others are 0.
ALPAGYM_HD void measure_terms(float* terms, const Scenarios& c, const State& st, const Params& p,
                              int i, int row, World world) {
  const float speed = st.speed[i];
  const int frame = frame_of_step(c, world.s, st.step[i / st.A]);
  const Route route = route_of(c, row);
  if (route.n >= 2) {
    const float s = st.route_s[i], s_before = st.prev_route_s[i];
    const Projection on = project_near(route, {st.x[i], st.y[i]}, s);
    const Vec2 heading{cosf(st.yaw[i]), sinf(st.yaw[i])};
    terms[kProgress] = s - s_before;
    terms[kGoal] = s >= c.log_length[row] && s_before < c.log_length[row];
    terms[kLane] = sqrtf(on.distance2);
    terms[kWrongWay] = dot(heading, on.direction) < -0.5f;
    terms[kSpeedLimit] = fmaxf(speed - sample(route, s).speed_limit, 0.f);
    terms[kRedLight] = runs_red_light(c, row, world.s, frame, s_before, s);
  }
  const int cell = log_cell(c, world.s, frame, row - world.first);
  if (c.log_valid[cell])
    terms[kDistanceToGt] = norm({st.x[i] - c.log[cell].x, st.y[i] - c.log[cell].y});
  terms[kComfort] = !comfortable(st.accel[i], st.prev_accel[i], speed, st.curvature[i], p.dt);
}

}  // namespace alpagym
