// The Python module: borrow, check, pick the backend, call.
#include <pybind11/native_enum.h>
#include <pybind11/pybind11.h>

#include "../actions.h"
#include "../nearest.h"
#include "../polyline.h"
#include "../reward_terms.h"
#include "../sim.h"
#include "../world.h"
#include "parts.h"
#include "tensor_caster.h"

#ifndef ALPAGYM_COMMIT
#define ALPAGYM_COMMIT "unknown"
#endif

namespace pybind11::detail {
template <>
struct type_caster<alpagym::Scenarios> : tensor_struct_caster<alpagym::Scenarios> {};
template <>
struct type_caster<alpagym::State> : tensor_struct_caster<alpagym::State> {};
template <>
struct type_caster<alpagym::Outcome> : tensor_struct_caster<alpagym::Outcome> {};
template <>
struct type_caster<alpagym::Observation> : tensor_struct_caster<alpagym::Observation> {};
}  // namespace pybind11::detail

namespace py = pybind11;
using namespace alpagym;

namespace {

std::string on(const Device& d) {
  return d.type == kCPU ? "cpu" : "cuda:" + std::to_string(d.index);
}

// A tensor argument that is no struct, with the shape it must have; -1 leaves a size free.
template <class T>
dlpack::Tensor argument(const char* name, py::handle h,
                        std::initializer_list<std::pair<const char*, int64_t>> shape,
                        const Device& device) {
  auto label = [&] { return std::string(name); };
  auto want = [&] {
    std::string s = "[";
    for (const auto& [symbol, size] : shape) {
      if (s.size() > 1) s += ", ";
      s += symbol;
      if (size >= 0) s.append("=").append(std::to_string(size));
    }
    return s + "]";
  };
  const dlpack::Tensor t = borrow<T>(h, static_cast<int>(shape.size()), label, want);
  int d = 0;
  for (const auto& [symbol, size] : shape) {
    if (size >= 0 && t.shape[d] != size)
      throw py::value_error(label() + ": expected contiguous " +
                            DTypeOf<std::remove_const_t<T>>::name + want() + ", got " +
                            describe(t));
    ++d;
  }
  if (t.device != device)
    throw py::value_error(label() + ": expected a tensor on " + on(device) + ", got " +
                          describe(t));
  return t;
}

template <class A, class B>
void same_device(const A& a, const B& b) {
  if (a.device != b.device)
    throw py::value_error(std::string(B::python_name) + ": expected tensors on " + on(a.device) +
                          " as in " + std::string(A::python_name) + ", got " + on(b.device));
}

void same_size(const char* what, const char* symbol, int want, int got) {
  if (want != got)
    throw py::value_error(std::string(what) + ": expected " + symbol + "=" + std::to_string(want) +
                          " (from State), got " + std::to_string(got));
}

// `host()` on the CPU without the GIL, `device(stream)` on torch's current stream of a GPU.
template <class Host, class OnDevice>
void dispatch(const Device& where, Host&& host, [[maybe_unused]] OnDevice&& device) {
  if (where.type == kCPU) {
    py::gil_scoped_release release;
    return host();
  }
#ifdef ALPAGYM_CUDA
  void* stream = nullptr;
  if (exchange_api().current_stream(kCUDA, where.index, &stream) != 0)
    throw py::error_already_set();
  device(stream);
#else
  throw py::value_error(
      "State is on " + on(where) +
      ", but this build of alpagym has no CUDA backend: install it where nvcc is found");
#endif
}

// One small cell for each quarter of a grid cell.
void need_small_cells(const Scenarios& c) {
  const int cells = c.S ? c.cell_start[c.S - 1] +
                              static_cast<int>(c.grid[4 * (c.S - 1) + 3]) * c.grid_rows[c.S - 1]
                        : 0;
  if (c.V != 4 * cells)
    throw py::value_error("Scenarios.near_cell: expected V=" + std::to_string(4 * cells) +
                          " small cells, got V=" + std::to_string(c.V));
}

void need_scenarios(const Scenarios& c, const State& st) {
  if (c.S == 0 && st.W > 0)
    throw py::value_error("Scenarios: expected at least one scenario for " + std::to_string(st.W) +
                          " worlds, got none");
  if (c.V && c.device.type == kCPU) need_small_cells(c);
}

// Agents beyond a state's capacity would silently be left out. Reads tensors: on the CPU alone.
void need_capacity(const Scenarios& c, const State& st, const bool* mask) {
  for (int w = 0; w < st.W; ++w) {
    if (!mask[w]) continue;
    const int s = world_of(c, st, w).s, agents = c.agent_start[s + 1] - c.agent_start[s];
    if (agents > st.A)
      throw py::value_error("State: expected A >= " + std::to_string(agents) +
                            " (agents of scenario " + std::to_string(s) +
                            "), got A=" + std::to_string(st.A));
  }
}

// Columns beyond the features would stay unwritten.
void check_columns(const Observation& obs) {
  if (obs.road.format == RowFormat::kIndex && obs.CR != 1)
    throw py::value_error("Observation.road: expected 1 column of indices, got " +
                          std::to_string(obs.CR));
  if (obs.agents.format == RowFormat::kIndex)
    throw py::value_error("Observation.agents: expected rows of features, got int32");
  for (const auto& [name, columns, features] :
       {std::tuple{"ego", obs.CE, static_cast<int>(kNumEgoFeatures)},
        {"agents", obs.CA, static_cast<int>(kNumAgentFeatures)},
        {"road", obs.CR, static_cast<int>(kNumRoadFeatures)}})
    if (columns > features)
      throw py::value_error(std::string("Observation.") + name + ": expected at most " +
                            std::to_string(features) + " columns, got " + std::to_string(columns));
}

// What Python calls, by the name that it calls.
namespace api {

void reset(const Scenarios& c, const State& st, py::handle mask, const Params& p) {
  same_device(st, c);
  need_scenarios(c, st);
  const bool* m = data<const bool>(argument<const bool>("mask", mask, {{"W", st.W}}, st.device));
  if (st.device.type == kCPU) need_capacity(c, st, m);
  dispatch(
      st.device, [&] { cpu::reset(c, st, m, p); },
      [&]([[maybe_unused]] void* stream) {
#ifdef ALPAGYM_CUDA
        cuda::reset(c, st, m, p, stream);
#endif
      });
}

void step(const Scenarios& c, const State& st, const Outcome& out, py::handle action,
          py::handle weights, const Params& p) {
  same_device(st, c);
  same_device(st, out);
  need_scenarios(c, st);
  same_size("Outcome", "W", st.W, out.W);
  same_size("Outcome", "E", st.E, out.E);
  if (out.R != kNumRewardTerms)
    throw py::value_error("Outcome.terms: expected R=" + std::to_string(kNumRewardTerms) +
                          " reward terms, got " + std::to_string(out.R));
  const Action u{data<const float>(argument<const float>(
      "action", action, {{"W", st.W}, {"E", st.E}, {"D", action_size(p)}}, st.device))};
  if (st.M != ongoing_size(p))
    throw py::value_error("State.ongoing: expected M=" + std::to_string(ongoing_size(p)) +
                          " (numbers of an action that goes on), got M=" + std::to_string(st.M));
  const dlpack::Tensor wt =
      argument<const float>("weights", weights, {{"1 or W", -1}, {"R", out.R}}, st.device);
  if (wt.shape[0] != 1 && wt.shape[0] != st.W)
    throw py::value_error("weights: expected 1 or W=" + std::to_string(st.W) + " rows, got " +
                          describe(wt));
  const Weights weight{data<const float>(wt), static_cast<int>(wt.shape[0])};
  dispatch(
      st.device, [&] { cpu::step(c, st, out, u, weight, p); },
      [&]([[maybe_unused]] void* stream) {
#ifdef ALPAGYM_CUDA
        cuda::step(c, st, out, u, weight, p, stream);
#endif
      });
}

void observe(const Scenarios& c, const State& st, const Observation& obs, py::handle mask,
             const Params& p) {
  same_device(st, c);
  same_device(st, obs);
  need_scenarios(c, st);
  same_size("Observation", "W", st.W, obs.W);
  same_size("Observation", "E", st.E, obs.E);
  check_columns(obs);
  for (const auto& [name, slots] : {std::pair{"agents", obs.O}, {"road", obs.B}, {"lights", obs.I}})
    if (slots > kMaxNearest)
      throw py::value_error(std::string("Observation.") + name + ": expected at most " +
                            std::to_string(kMaxNearest) + " slots, got " + std::to_string(slots));
  const bool* m =
      mask.is_none()
          ? nullptr
          : data<const bool>(argument<const bool>("mask", mask, {{"W", st.W}}, st.device));
  dispatch(
      st.device, [&] { cpu::observe(c, st, obs, m, p); },
      [&]([[maybe_unused]] void* stream) {
#ifdef ALPAGYM_CUDA
        cuda::observe(c, st, obs, m, p, stream);
#endif
      });
}

void fork(const State& source, const State& target, py::handle from) {
  same_device(source, target);
  same_size("fork target", "A", source.A, target.A);
  same_size("fork target", "E", source.E, target.E);
  same_size("fork target", "M", source.M, target.M);
  if (source.x == target.x && target.W > 0)
    throw py::value_error("fork: expected two states, got one as source and target");
  const int32_t* index =
      data<const int32_t>(argument<const int32_t>("index", from, {{"W", target.W}}, target.device));
  dispatch(
      target.device, [&] { cpu::fork(source, target, index); },
      [&]([[maybe_unused]] void* stream) {
#ifdef ALPAGYM_CUDA
        cuda::fork(source, target, index, stream);
#endif
      });
}

void noise(const Scenarios& c, const State& st, py::handle out) {
  same_device(st, c);
  need_scenarios(c, st);
  const dlpack::Tensor t =
      argument<float>("noise", out, {{"W", st.W}, {"E", st.E}, {"D", -1}}, st.device);
  float* to = data<float>(t);
  const int columns = static_cast<int>(t.shape[2]);
  dispatch(
      st.device, [&] { cpu::noise(c, st, to, columns); },
      [&]([[maybe_unused]] void* stream) {
#ifdef ALPAGYM_CUDA
        cuda::noise(c, st, to, columns, stream);
#endif
      });
}

void inverse(const Scenarios& c, const State& before, const State& after, py::handle action,
             const Params& p) {
  same_device(before, c);
  same_device(before, after);
  need_scenarios(c, before);
  same_size("state after", "W", before.W, after.W);
  same_size("state after", "A", before.A, after.A);
  if (p.action == kTrajectory)
    throw py::value_error(
        "inverse: expected actions for one step, got plans, which two states do not tell");
  float* to = data<float>(argument<float>(
      "action", action, {{"W", before.W}, {"E", before.E}, {"D", element_size(p.action)}},
      before.device));
  dispatch(
      before.device, [&] { cpu::inverse(c, before, after, to, p); },
      [&]([[maybe_unused]] void* stream) {
#ifdef ALPAGYM_CUDA
        cuda::inverse(c, before, after, to, p, stream);
#endif
      });
}

void need_host(const Scenarios& c) {
  if (c.device.type != kCPU) throw py::value_error("Scenarios: expected tensors on cpu");
  need_small_cells(c);
}
void fill_near(const Scenarios& c) {
  need_host(c);
  cpu::fill_near(c);
}
void count_near(const Scenarios& c, py::handle counts) {
  need_host(c);
  cpu::count_near(
      c, data<int32_t>(argument<int32_t>("counts", counts, {{"V", c.V}, {"3", 3}}, c.device)));
}

}  // namespace api

// The list of fields of S as [(name, dtype, (dimension, ...)), ...]: Python allocates and is tested
// by it.
template <class S>
py::list fields_of() {
  py::list fields;
  S::fields([&](const char* name, auto member, auto... symbols) {
    using T = std::remove_const_t<
        std::remove_pointer_t<std::remove_reference_t<decltype(std::declval<S>().*member)>>>;
    fields.append(py::make_tuple(name, DTypeOf<T>::name, py::make_tuple(symbols...)));
  });
  return fields;
}

// Kernels index and divide by these: what is out of range must not reach them.
void check(const Params& p) {
  const auto refuse = [](const std::string& name, const std::string& want, const py::object& got) {
    throw py::value_error("Params." + name + ": expected " + want + ", got " +
                          std::string(py::str(got)));
  };
  constexpr int kFirstTraffic = static_cast<int>(Traffic::kLog);
  constexpr int kLastTraffic = static_cast<int>(Traffic::kLogThenIdm);
  if (p.action < 0 || p.action >= kNumActionKinds)
    refuse("action", "0.." + std::to_string(kNumActionKinds - 1), py::int_(p.action));
  if (p.traffic < kFirstTraffic || p.traffic > kLastTraffic)
    refuse("traffic", std::to_string(kFirstTraffic) + ".." + std::to_string(kLastTraffic),
           py::int_(p.traffic));
  if (!(p.dt > 0.f) || !std::isfinite(p.dt))
    refuse("dt", "a positive, finite step length", py::float_(p.dt));
  if (p.bad_action != kCoast && p.bad_action != kTerminate)
    refuse("bad_action", "0 or 1", py::int_(p.bad_action));
  for (const auto& [name, steps] :
       {std::pair{"plan_steps", p.plan_steps}, {"replan_every", p.replan_every}})
    if (steps < 1 || steps > kMaxPlanSteps)
      refuse(name, "1.." + std::to_string(kMaxPlanSteps), py::int_(steps));
  if (p.observation != kFull && p.observation != kAlpaSim)
    refuse("observation", "0 or 1", py::int_(p.observation));
  if (p.slot_order < kNearestFirst || p.slot_order > kBounded)
    refuse("slot_order", "0..2", py::int_(p.slot_order));
  for (const auto& [name, radius] : {std::pair{"agent_radius", p.agent_radius},
                                     {"road_radius", p.road_radius},
                                     {"light_radius", p.light_radius}})
    if (!(radius >= 0.f && std::isfinite(radius * radius)))
      refuse(name, "0 or more, and a square that is finite", py::float_(radius));
  if (p.max_steps < 0) refuse("max_steps", "at least 0", py::int_(p.max_steps));
}

Params make_params(const py::kwargs& given) {
  Params p{};
  size_t used = 0;
  Params::fields([&](const char* name, auto member) {
    using T = std::remove_reference_t<decltype(p.*member)>;
    if (!given.contains(name)) throw py::type_error(std::string("Params: missing ") + name);
    p.*member = py::cast<T>(given[name]);
    ++used;
  });
  if (used != given.size())
    throw py::type_error("Params: got " + std::to_string(given.size()) + " values, expected " +
                         std::to_string(used));
  check(p);
  return p;
}

}  // namespace

PYBIND11_MODULE(_core, m, py::mod_gil_not_used()) {
  m.doc() = "The simulator: kernels over torch tensors, in place.";
  exchange_api();
#ifdef ALPAGYM_CUDA
  m.attr("has_cuda") = true;
#else
  m.attr("has_cuda") = false;
#endif
  m.attr("commit") = ALPAGYM_COMMIT;
  m.attr("max_nearest") = kMaxNearest;
  m.attr("route_spacing") = kRouteSpacing;
  m.attr("fields") = py::dict(
      py::arg("Scenarios") = fields_of<Scenarios>(), py::arg("State") = fields_of<State>(),
      py::arg("Outcome") = fields_of<Outcome>(), py::arg("Observation") = fields_of<Observation>());

  py::dict actions;
#define ALPAGYM_ENTRY(kind, name, size) actions[name] = size;
  ALPAGYM_ACTIONS(ALPAGYM_ENTRY)
#undef ALPAGYM_ENTRY
  m.attr("actions") = actions;
  py::list terms;
#define ALPAGYM_ENTRY(term, name) terms.append(name);
  ALPAGYM_REWARD_TERMS(ALPAGYM_ENTRY)
#undef ALPAGYM_ENTRY
  m.attr("reward_terms") = py::tuple(terms);

  py::native_enum<Controller>(m, "Controller", "enum.IntEnum", "Who drives an agent.")
      .value("POLICY", Controller::kPolicy)
      .value("LOG", Controller::kLog)
      .value("IDM", Controller::kIdm)
      .value("CONSTANT_VELOCITY", Controller::kConstantVelocity)
      .finalize();
  py::native_enum<EndOn>(m, "EndOn", "enum.IntFlag", "Events that end an episode.")
      .value("COLLISION_AT_FAULT", kEndAtFault)
      .value("COLLISION_ANY", kEndCollision)
      .value("OFFROAD", kEndOffroad)
      .value("RED_LIGHT", kEndRedLight)
      .value("GOAL", kEndGoal)
      .value("STOP_SIGN", kEndStopSign)
      .finalize();
  py::native_enum<Collision>(m, "Collision", "enum.IntEnum",
                             "How a collision began, seen from the ego.")
      .value("NONE", Collision::kNone)
      .value("FRONT", Collision::kFront)
      .value("REAR", Collision::kRear)
      .value("LATERAL", Collision::kLateral)
      .finalize();

  py::class_<Params>(m, "Params", "The scalars that kernels read.").def(py::init(&make_params));

  m.def("reset", &api::reset, py::arg("scenarios"), py::arg("state"), py::arg("mask"),
        py::arg("params"));
  m.def("step", &api::step, py::arg("scenarios"), py::arg("state"), py::arg("outcome"),
        py::arg("action"), py::arg("weights"), py::arg("params"));
  m.def("observe", &api::observe, py::arg("scenarios"), py::arg("state"), py::arg("observation"),
        py::arg("mask"), py::arg("params"));
  m.def("fork", &api::fork, py::arg("source"), py::arg("target"), py::arg("index"));
  m.def("noise", &api::noise, py::arg("scenarios"), py::arg("state"), py::arg("noise"));
  m.def("inverse", &api::inverse, py::arg("scenarios"), py::arg("before"), py::arg("after"),
        py::arg("action"), py::arg("params"));
  m.def("count_near", &api::count_near, py::arg("scenarios"), py::arg("counts"));
  m.def("fill_near", &api::fill_near, py::arg("scenarios"));
  bind_encoder(m);
  bind_scan(m);
  bind_forms(m);
}
