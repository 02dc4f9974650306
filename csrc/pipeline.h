// READ FIRST. What the simulator does, as lists of kernels, for any backend.
//
// `launch(body)` runs body(i) for every i in [0, body.size()): a loop on the CPU, a launch on a
// GPU. Launches run one after the other; the indices of one launch run in any order, each writing
// only its own. A body that has `kOnlyMoving` does nothing in worlds that stand still, so a backend
// may pass over them. No body but Fork reads another world than its own: worlds may go through the
// list at different times.
#pragma once
#include "kernels/advance.h"
#include "kernels/contact.h"
#include "kernels/control.h"
#include "kernels/decide.h"
#include "kernels/follow.h"
#include "kernels/fork.h"
#include "kernels/inverse.h"
#include "kernels/noise.h"
#include "kernels/observe.h"
#include "kernels/progress.h"
#include "kernels/reset.h"
#include "kernels/reward.h"
#include "sim.h"

namespace alpagym {

// A list runs where its `launch` does: on the host, or inside of a kernel.
#ifdef __CUDACC__
#define ALPAGYM_LIST                                       \
  _Pragma("nv_exec_check_disable") template <class Launch> \
  __host__ __device__ __forceinline__
#else
#define ALPAGYM_LIST      \
  template <class Launch> \
  inline
#endif

// Put the worlds of a mask at the start of their scenarios.
ALPAGYM_LIST void reset(Launch&& launch, const Scenarios& c, const State& st, const bool* mask,
                        const Params& p) {
  launch(kernels::ResetAgent{c, st, mask, p});
  launch(kernels::ResetEgo{c, st, mask, p});
}

// Advance every world that is not done by one step.
ALPAGYM_LIST void step(Launch&& launch, const Scenarios& c, const State& st, const Outcome& out,
                       const Action& action, const Weights& weights, const Params& p) {
  launch(kernels::Remember{st});
  launch(kernels::Decide{c, st, p});
  if (p.replan_every > 1) launch(kernels::Take{c, st, action.data, p});
  launch(kernels::Control{c, st, action.data, p});
  launch(kernels::Advance{c, st, action.data, p});
  if (p.action == kTrajectory) launch(kernels::Follow{c, st, action.data, p});
  launch(kernels::Tick{st});
  launch(kernels::Progress{c, st, p});
  launch(kernels::Contact{c, st, out, p});
  launch(kernels::Reward{c, st, out, action.data, weights.data, weights.rows, p});
}

// What every ego sees now; with a mask, only those of its worlds.
ALPAGYM_LIST void observe(Launch&& launch, const Scenarios& c, const State& st,
                          const Observation& obs, const bool* mask, const Params& p) {
  launch(kernels::ObserveRoute{c, st, obs, mask, p});
  launch(kernels::ObserveAgents{c, st, obs, mask, p});
  launch(kernels::ObserveRoad{c, st, obs, mask, p});
  launch(kernels::ObserveLights{c, st, obs, mask, p});
}

// Copy worlds of one state into worlds of another.
ALPAGYM_LIST void fork(Launch&& launch, const State& source, const State& target,
                       const int32_t* from) {
  launch(kernels::Fork{source, target, from});
}

// Standard normals keyed by seed, scenario, member, agent and step.
ALPAGYM_LIST void noise(Launch&& launch, const Scenarios& c, const State& st, float* out,
                        int columns) {
  launch(kernels::Noise{c, st, out, columns});
}

// The action that takes every ego from where it is in one state to where it is in the next.
ALPAGYM_LIST void inverse(Launch&& launch, const Scenarios& c, const State& before,
                          const State& after, float* action, const Params& p) {
  launch(kernels::Inverse{c, before, after, action, p});
}

#undef ALPAGYM_LIST

}  // namespace alpagym
