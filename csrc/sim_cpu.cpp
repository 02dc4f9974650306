// Backend 1: blocks of worlds in an OpenMP loop, in the best of three forms that this CPU runs.
#ifdef _OPENMP
#include <omp.h>
#endif

#include <atomic>
#include <memory>

#include "cpu/blocks.h"
#include "cpu/near_lists.h"

namespace alpagym::cpu {
namespace {

// Below this many egos a second thread costs more than it saves.
constexpr int kMinParallel = 64;
// Worlds in a block at most: their states and outcomes together stay in a second-level cache.
constexpr int kBlock = 8;

Form best_form() {
#if defined(__x86_64__)
  __builtin_cpu_init();
  if (__builtin_cpu_supports("x86-64-v4")) return Form::kAvx512;
  if (__builtin_cpu_supports("x86-64-v3")) return Form::kAvx2;
#endif
  return Form::kVector;
}
std::atomic<Form> chosen{best_form()};

template <class Body>
void for_blocks(int worlds, int egos, Body&& body) {
  const Form form = chosen;
#ifdef _OPENMP
  const int threads = egos >= kMinParallel ? omp_get_max_threads() : 1;
#else
  const int threads = 1;
#endif
  const int size = std::clamp((worlds + threads - 1) / threads, 1, kBlock);
  const int blocks = (worlds + size - 1) / size;
#pragma omp parallel for schedule(static) num_threads(threads) if (threads > 1)
  for (int b = 0; b < blocks; ++b)
    body(Block{{b * size, std::min(size, worlds - b * size)}, worlds, form});
}

// visit(cell, lists) for every small cell that is to have lists, of every scenario.
template <class Visit>
void for_near(const Scenarios& c, Visit&& visit) {
#pragma omp parallel
  {
    const auto lists = std::make_unique<NearLists>();
#pragma omp for schedule(dynamic, 1)
    for (int s = 0; s < c.S; ++s) {
      const auto maker = std::make_unique<NearMaker>(c, s);
      for (int n = 0; n < maker->cells(); ++n) {
        if (!maker->wanted(n)) continue;
        maker->make(n, *lists);
        visit(4 * c.cell_start[s] + n, *lists);
      }
    }
  }
}

}  // namespace

Form form() { return chosen; }
bool use_form(Form wanted) {
  if (wanted > best_form()) return false;
  chosen = wanted;
  return true;
}

void reset(const Scenarios& c, const State& st, const bool* mask, const Params& p) {
  for_blocks(st.W, st.W * st.E, [&](const Block& b) { alpagym::reset(b, c, st, mask, p); });
}
void step(const Scenarios& c, const State& st, const Outcome& out, const Action& action,
          const Weights& weights, const Params& p) {
  for_blocks(st.W, st.W * st.E,
             [&](const Block& b) { alpagym::step(b, c, st, out, action, weights, p); });
}
void observe(const Scenarios& c, const State& st, const Observation& obs, const bool* mask,
             const Params& p) {
  for_blocks(st.W, st.W * st.E, [&](const Block& b) { alpagym::observe(b, c, st, obs, mask, p); });
}
void fork(const State& source, const State& target, const int32_t* from) {
  for_blocks(target.W, target.W * target.E,
             [&](const Block& b) { alpagym::fork(b, source, target, from); });
}
void noise(const Scenarios& c, const State& st, float* out, int columns) {
  for_blocks(st.W, st.W * st.E, [&](const Block& b) { alpagym::noise(b, c, st, out, columns); });
}
void inverse(const Scenarios& c, const State& before, const State& after, float* action,
             const Params& p) {
  for_blocks(before.W, before.W * before.E,
             [&](const Block& b) { alpagym::inverse(b, c, before, after, action, p); });
}

void count_near(const Scenarios& c, int32_t* counts) {
  for_near(c, [&](int cell, const NearLists& lists) {
    counts[3 * cell] = lists.roads;
    counts[3 * cell + 1] = lists.lanes;
    counts[3 * cell + 2] = lists.edges;
  });
}
void fill_near(const Scenarios& c) {
  for_near(c, [&](int small, const NearLists& lists) {
    const int cell = c.near_cell[small];
    const auto copy = [&](const auto* from, int n, const auto* to, const int32_t* start) {
      std::copy(from, from + n, const_cast<std::decay_t<decltype(*from)>*>(to) + start[cell]);
    };
    copy(lists.road, lists.roads, c.near_road, c.near_road_start);
    copy(lists.step, lists.roads, c.near_step, c.near_road_start);
    copy(lists.lane, lists.lanes, c.near_lane, c.near_lane_start);
    copy(lists.edge, lists.edges, c.near_edge, c.near_edge_start);
    float* level = const_cast<float*>(c.near_level) + 2 * cell;
    level[0] = lists.low;
    level[1] = lists.high;
  });
}

}  // namespace alpagym::cpu
