// What Python can call, once for each backend. Nothing here allocates, waits or keeps a pointer.
#pragma once
#include "observation.h"
#include "outcome.h"
#include "params.h"
#include "scenarios.h"
#include "state.h"

namespace alpagym {

struct Action {
  const float* data;  // [W, E, action_size]
};
struct Weights {
  const float* data;  // [rows, R]
  int rows;           // 1 (shared) or W
};

namespace cpu {
// How step and observe run: body by body, or with tuned stages compiled for ever wider machines.
enum class Form : int { kPlain, kVector, kAvx2, kAvx512 };
Form form();
bool use_form(Form);  // false, and no change, where this CPU cannot

// The lists of near.h within Scenarios.near_limits: their lengths, [V, 3] of road points, lanes and
// edges, left alone where there are none; then, with room made and numbered, the lists.
void count_near(const Scenarios&, int32_t* counts);
void fill_near(const Scenarios&);

void reset(const Scenarios&, const State&, const bool* mask, const Params&);
void step(const Scenarios&, const State&, const Outcome&, const Action&, const Weights&,
          const Params&);
void observe(const Scenarios&, const State&, const Observation&, const bool* mask, const Params&);
void fork(const State& source, const State& target, const int32_t* from);
void noise(const Scenarios&, const State&, float* out, int columns);
void inverse(const Scenarios&, const State& before, const State& after, float* action,
             const Params&);
}  // namespace cpu

namespace cuda {
// How step and observe run: a launch for each body, or one kernel for each.
enum class Form : int { kPlain, kFused };
Form form();
void use_form(Form);

void reset(const Scenarios&, const State&, const bool* mask, const Params&, void* stream);
void step(const Scenarios&, const State&, const Outcome&, const Action&, const Weights&,
          const Params&, void* stream);
void observe(const Scenarios&, const State&, const Observation&, const bool* mask, const Params&,
             void* stream);
void fork(const State& source, const State& target, const int32_t* from, void* stream);
void noise(const Scenarios&, const State&, float* out, int columns, void* stream);
void inverse(const Scenarios&, const State& before, const State& after, float* action,
             const Params&, void* stream);
}  // namespace cuda

}  // namespace alpagym
