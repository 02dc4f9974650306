// Backend 2: instantiate the pipeline with launches on torch's current stream.
#include "launch.cuh"
#include "pipeline.h"

namespace alpagym::cuda {

void reset(const Scenarios& c, const State& st, const bool* mask, const Params& p, void* stream) {
  DeviceGuard guard(st.device.index);
  alpagym::reset(Launch{static_cast<cudaStream_t>(stream)}, c, st, mask, p);
}
void step(const Scenarios& c, const State& st, const Outcome& out, const Action& action,
          const Weights& weights, const Params& p, void* stream) {
  DeviceGuard guard(st.device.index);
  alpagym::step(Launch{static_cast<cudaStream_t>(stream)}, c, st, out, action, weights, p);
}
void observe(const Scenarios& c, const State& st, const Observation& obs, const bool* mask,
             const Params& p, void* stream) {
  DeviceGuard guard(st.device.index);
  alpagym::observe(Launch{static_cast<cudaStream_t>(stream)}, c, st, obs, mask, p);
}
void fork(const State& source, const State& target, const int32_t* from, void* stream) {
  DeviceGuard guard(target.device.index);
  alpagym::fork(Launch{static_cast<cudaStream_t>(stream)}, source, target, from);
}
void noise(const Scenarios& c, const State& st, float* out, int columns, void* stream) {
  DeviceGuard guard(st.device.index);
  alpagym::noise(Launch{static_cast<cudaStream_t>(stream)}, c, st, out, columns);
}
void inverse(const Scenarios& c, const State& before, const State& after, float* action,
             const Params& p, void* stream) {
  DeviceGuard guard(before.device.index);
  alpagym::inverse(Launch{static_cast<cudaStream_t>(stream)}, c, before, after, action, p);
}

}  // namespace alpagym::cuda
