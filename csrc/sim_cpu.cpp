// Backend 1: run a body for every index with an OpenMP loop.
#include "pipeline.h"

namespace alpagym::cpu {
namespace {

// Below this many indices a second thread costs more than it saves.
constexpr int kMinParallel = 64;

struct Loop {
  template <class Body>
  void operator()(const Body& body) const {
    const int n = body.size();
#pragma omp parallel for schedule(static) if (n >= kMinParallel)
    for (int i = 0; i < n; ++i) body(i);
  }
};

}  // namespace

void reset(const Scenarios& c, const State& st, const bool* mask, const Params& p) {
  alpagym::reset(Loop{}, c, st, mask, p);
}
void step(const Scenarios& c, const State& st, const Outcome& out, const Action& action,
          const Weights& weights, const Params& p) {
  alpagym::step(Loop{}, c, st, out, action, weights, p);
}
void observe(const Scenarios& c, const State& st, const Observation& obs, const bool* mask,
             const Params& p) {
  alpagym::observe(Loop{}, c, st, obs, mask, p);
}
void fork(const State& source, const State& target, const int32_t* from) {
  alpagym::fork(Loop{}, source, target, from);
}
void noise(const Scenarios& c, const State& st, float* out, int columns) {
  alpagym::noise(Loop{}, c, st, out, columns);
}
void inverse(const Scenarios& c, const State& before, const State& after, float* action,
             const Params& p) {
  alpagym::inverse(Loop{}, c, before, after, action, p);
}

}  // namespace alpagym::cpu
