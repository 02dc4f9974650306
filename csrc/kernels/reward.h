// Stage: reward. Terms, their weighted sum, and the end of episodes.
#pragma once
#include "../actions.h"
#include "../outcome.h"
#include "../reward_terms.h"

namespace alpagym::kernels {

// One thread per world.
struct Tick {
  State st;
  ALPAGYM_HD int size() const { return st.W; }
  ALPAGYM_HD void operator()(int w) const {
    if (!st.still[w]) st.step[w] += 1;
  }
};

// One thread per ego; after Contact, which clears all terms and writes its own.
struct Reward {
  Scenarios c;
  State st;
  Outcome out;
  const float* action;   // [W, E, action_size]
  const float* weights;  // [1 or W, R]
  int weight_rows;
  Params p;
  ALPAGYM_HD int size() const { return st.W * st.E; }

  ALPAGYM_HD void operator()(int k) const {
    const int w = k / st.E, a = st.ego[k], i = w * st.A + a;
    float* terms = out.terms + static_cast<int64_t>(k) * out.R;
    out.reward[k] = 0.f;
    out.bad_action[k] = false;
    const World world = world_of(c, st, w);
    if (a < 0 || a >= world.agents) {
      out.progress_fraction[k] = 0.f;
      return;
    }
    const int row = world.first + a;
    out.progress_fraction[k] = st.route_s[i] / fmaxf(c.log_length[row], 1.f);
    if (st.ego_done(w, k % st.E)) return;
    if (st.valid[i]) measure_terms(terms, c, st, p, i, row, world);
    const float* weight = weights + (weight_rows == 1 ? 0 : w) * out.R;
    float reward = 0.f;
    for (int r = 0; r < out.R; ++r) reward += weight[r] * terms[r];
    out.reward[k] = reward;
    const bool was_read = (st.step[w] - 1) % p.replan_every == 0;
    out.bad_action[k] = was_read && !is_finite(action + static_cast<int64_t>(k) * action_size(p));
    const bool refused = out.bad_action[k] && p.bad_action == kTerminate;
    st.terminated[k] = ends(terms) || refused || !st.valid[i];
    st.truncated[k] = !st.terminated[k] && st.step[w] >= episode_steps(c, st, p, w, world.s);
  }

  ALPAGYM_HD bool is_finite(const float* u) const {
    bool finite = true;
    for (int d = 0; d < action_size(p); ++d) finite &= fabsf(u[d]) < INFINITY;
    return finite;
  }

  ALPAGYM_HD bool ends(const float* terms) const {
    return ((p.end_on & kEndAtFault) && terms[kCollisionAtFault] > 0.f) ||
           ((p.end_on & kEndCollision) && terms[kCollisionAny] > 0.f) ||
           ((p.end_on & kEndOffroad) && terms[kOffroad] > 0.f) ||
           ((p.end_on & kEndRedLight) && terms[kRedLight] > 0.f) ||
           ((p.end_on & kEndStopSign) && terms[kStopSignRun] > 0.f) ||
           ((p.end_on & kEndGoal) && terms[kGoal] > 0.f);
  }
};

}  // namespace alpagym::kernels
