// Stage: reward. Terms, their weighted sum, and the end of episodes.
#pragma once
#include "../outcome.h"
#include "../params.h"
#include "../world.h"

namespace alpagym::kernels {

// One thread per world.
struct Tick {
  State st;
  ALPAGYM_HD int size() const { return st.W; }
  ALPAGYM_HD void operator()(int w) const {
    if (!st.world_done(w)) st.step[w] += 1;
  }
};

// One thread per ego; after Contact, which writes its own terms.
struct Reward {
  Scenarios c;
  State st;
  Outcome out;
  const float* weights;  // [1 or W, R]
  int weight_rows;
  Params p;
  ALPAGYM_HD int size() const { return st.W * st.E; }

  ALPAGYM_HD void operator()(int k) const {
    const int w = k / st.E, a = st.ego[k], i = w * st.A + a;
    float* terms = out.terms + static_cast<int64_t>(k) * out.R;
    constexpr RewardTerm kOwn[] = {kProgress, kRedLight, kGoal, kLane, kWrongWay, kDistanceToGt, kSpeedLimit, kComfort};
    for (RewardTerm r : kOwn) terms[r] = 0.f;
    out.reward[k] = 0.f;
    const World world = world_of(c, st, w);
    if (a < 0 || a >= world.agents) {
      out.progress_fraction[k] = 0.f;
      return;
    }
    const int row = world.first + a;
    out.progress_fraction[k] = st.route_s[i] / fmaxf(c.log_length[row], 1.f);
    if (st.ego_done(w, k % st.E)) return;
    if (st.valid[i]) measure(terms, i, row, world);
    const float* weight = weights + (weight_rows == 1 ? 0 : w) * out.R;
    float reward = 0.f;
    for (int r = 0; r < out.R; ++r) reward += weight[r] * terms[r];
    out.reward[k] = reward;
    st.terminated[k] = ends(terms) || !st.valid[i];
    const int recorded = c.num_frames[world.s] - 1 - c.start_frame[world.s];
    const int limit = p.max_steps > 0 && p.max_steps < recorded ? p.max_steps : recorded;
    st.truncated[k] = !st.terminated[k] && st.step[w] >= limit;
  }

  ALPAGYM_HD void measure(float* terms, int i, int row, World world) const {
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
      terms[kRedLight] = runs_red_light(row, world.s, frame, s_before, s);
    }
    const int cell = log_cell(c, world.s, frame, row - world.first);
    if (c.log_valid[cell]) terms[kDistanceToGt] = norm({st.x[i] - c.log[cell].x, st.y[i] - c.log[cell].y});
    terms[kComfort] = !comfortable(st.accel[i], st.prev_accel[i], speed, st.curvature[i]);
  }

  ALPAGYM_HD bool runs_red_light(int row, int s, int frame, float s_before, float s_now) const {
    const float front = 0.5f * c.agent[row].length;
    for (int m = c.stop_start[row]; m < c.stop_start[row + 1]; ++m)
      if (c.stop_light[m] >= 0 && s_before + front < c.stop_s[m] && s_now + front >= c.stop_s[m] &&
          light_state(c, s, frame, c.stop_light[m]) == kLightRed)
        return true;
    return false;
  }

  // nuPlan's comfort bounds: longitudinal acceleration -4.05..2.40 m/s^2, lateral 4.89 m/s^2,
  // longitudinal jerk 4.13 m/s^3, yaw rate 0.95 rad/s.
  ALPAGYM_HD bool comfortable(float accel, float prev_accel, float speed, float curvature) const {
    const float yaw_rate = fabsf(speed * curvature);
    return accel >= -4.05f && accel <= 2.40f && yaw_rate * fabsf(speed) <= 4.89f && yaw_rate <= 0.95f &&
           fabsf(accel - prev_accel) <= 4.13f * p.dt;
  }

  ALPAGYM_HD bool ends(const float* terms) const {
    return ((p.end_on & kEndAtFault) && terms[kCollisionAtFault] > 0.f) ||
           ((p.end_on & kEndCollision) && terms[kCollisionAny] > 0.f) ||
           ((p.end_on & kEndOffroad) && terms[kOffroad] > 0.f) ||
           ((p.end_on & kEndRedLight) && terms[kRedLight] > 0.f) || ((p.end_on & kEndGoal) && terms[kGoal] > 0.f);
  }
};

}  // namespace alpagym::kernels
