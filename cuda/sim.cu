// Backend 2: instantiate the pipeline on torch's current stream, by fused kernels or with a launch
// for each body.
#include <atomic>

#include "launch.cuh"
#include "observe.cuh"
#include "step.cuh"

namespace alpagym::cuda {
namespace {

std::atomic<Form> chosen{Form::kFused};

cudaStream_t on(void* stream) { return static_cast<cudaStream_t>(stream); }

int multiprocessors(const Device& device) {
  int count = 0;
  check(cudaDeviceGetAttribute(&count, cudaDevAttrMultiProcessorCount, device.index),
        "cudaDeviceGetAttribute");
  return count;
}

}  // namespace

Form form() { return chosen; }
void use_form(Form wanted) { chosen = wanted; }

void reset(const Scenarios& c, const State& st, const bool* mask, const Params& p, void* stream) {
  DeviceGuard guard(st.device.index);
  alpagym::reset(Launch{on(stream)}, c, st, mask, p);
}
void step(const Scenarios& c, const State& st, const Outcome& out, const Action& action,
          const Weights& weights, const Params& p, void* stream) {
  DeviceGuard guard(st.device.index);
  if (chosen == Form::kPlain || p.action == kTrajectory)
    return alpagym::step(Launch{on(stream)}, c, st, out, action, weights, p);
  const Shape shape = shape_of(st, multiprocessors(st.device));
  launch(step_worlds, shape.blocks, shape.threads, on(stream), c, st, out, action, weights, p,
         shape.worlds);
}
void observe(const Scenarios& c, const State& st, const Observation& obs, const bool* mask,
             const Params& p, void* stream) {
  DeviceGuard guard(st.device.index);
  if (chosen == Form::kPlain) return alpagym::observe(Launch{on(stream)}, c, st, obs, mask, p);
  launch(observe_egos, (st.W * st.E + kEgosOfBlock - 1) / kEgosOfBlock, kEgoThreads, on(stream), c,
         st, obs, mask, p);
}
void fork(const State& source, const State& target, const int32_t* from, void* stream) {
  DeviceGuard guard(target.device.index);
  alpagym::fork(Launch{on(stream)}, source, target, from);
}
void noise(const Scenarios& c, const State& st, float* out, int columns, void* stream) {
  DeviceGuard guard(st.device.index);
  alpagym::noise(Launch{on(stream)}, c, st, out, columns);
}
void inverse(const Scenarios& c, const State& before, const State& after, float* action,
             const Params& p, void* stream) {
  DeviceGuard guard(before.device.index);
  alpagym::inverse(Launch{on(stream)}, c, before, after, action, p);
}

}  // namespace alpagym::cuda
