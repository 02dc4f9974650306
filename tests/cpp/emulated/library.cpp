// cuda/sim.cu on a CPU, for tests/emulated.py: structs of tensors come as arrays of pointers in the
// order of the core's fields, sizes by name.
#include <cstring>
#include <string_view>
#include <type_traits>

#include "../../../cuda/sim.cu"

namespace {

using namespace alpagym;

struct Sizes {
  const char* const* names;
  const int* values;
  int count;
  int operator()(std::string_view name) const {
    for (int k = 0; k < count; ++k)
      if (name == names[k]) return values[k];
    return 0;
  }
};

// `formats` tell how rows are stored, by field.
template <class S>
S view(void* const* tensors, const int* formats, const Sizes& sizes) {
  S s{};
  int at = 0;
  S::fields([&](const char*, auto member, auto...) {
    using T = std::remove_reference_t<decltype(s.*member)>;
    if constexpr (std::is_same_v<T, Rows>)
      s.*member = {tensors[at], static_cast<RowFormat>(formats[at])};
    else
      s.*member = static_cast<T>(tensors[at]);
    ++at;
  });
  s.bind(sizes);
  s.device = {kCUDA, 0};
  return s;
}

Scenarios scenarios;
State state;
Outcome outcome;
Observation observation;
Params params;

// One warp's choice of candidates 0..count - 1; those at an infinite distance are not there.
__global__ void choose(const float* distance2, int count, int k, float reach2, bool sorted,
                       int32_t* chosen, int* num_chosen) {
  __shared__ cuda::Pool pool;
  cuda::WarpNearest nearest(pool, k, reach2);
  for (int from = 0; from < count; from += cuda::kLanes) {
    const int at = from + cuda::lane();
    const bool there = at < count && distance2[at] <= reach2;
    nearest.add(there, there ? distance2[at] : 0.f, at);
  }
  nearest.finish(sorted);
  for (int at = cuda::lane(); at < nearest.n; at += cuda::kLanes) chosen[at] = pool.index[at];
  if (cuda::lane() == 0) *num_chosen = nearest.n;
}

}  // namespace

extern "C" {

void set(const char* what, void* const* tensors, const int* formats, const char* const* names,
         const int* values, int count) {
  const Sizes sizes{names, values, count};
  const std::string_view name(what);
  if (name == "Scenarios") scenarios = view<Scenarios>(tensors, formats, sizes);
  if (name == "State") state = view<State>(tensors, formats, sizes);
  if (name == "Outcome") outcome = view<Outcome>(tensors, formats, sizes);
  if (name == "Observation") observation = view<Observation>(tensors, formats, sizes);
}
void set_param(const char* name, double value) {
  Params::fields([&](const char* field, auto member) {
    if (std::strcmp(field, name) == 0)
      params.*member = static_cast<std::remove_reference_t<decltype(params.*member)>>(value);
  });
}
void set_order(int fused, int backward) {
  cuda::use_form(fused ? cuda::Form::kFused : cuda::Form::kPlain);
  emulated::backward = backward;
}
void reset(const bool* mask) { cuda::reset(scenarios, state, mask, params, nullptr); }
void step(const float* action, const float* weights, int rows) {
  cuda::step(scenarios, state, outcome, {action}, {weights, rows}, params, nullptr);
}
void observe(const bool* mask) {
  cuda::observe(scenarios, state, observation, mask, params, nullptr);
}
int nearest(const float* distance2, int count, int k, float reach2, bool sorted, int32_t* chosen) {
  int n = -1;
  cuda::launch(choose, 1, cuda::kLanes, nullptr, distance2, count, k, reach2, sorted, chosen, &n);
  return n;
}

}  // extern "C"
