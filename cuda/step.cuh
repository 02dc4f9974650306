// The whole step in one kernel: a block of threads takes a few worlds through all stages.
#pragma once
#include "contact.cuh"
#include "pipeline.h"

namespace alpagym::cuda {

constexpr int kMostThreads = 256;
constexpr int kEgosOfWarp = 4;  // with more, a thread each is no slower

// Runs the bodies' indices that belong to worlds first..first + count - 1 of `num_worlds`.
struct Block {
  int first, count, num_worlds;
  bool moving = true;  // whether any of the worlds does

  template <class Body>
  __device__ __forceinline__ void operator()(const Body& body) const {
    if constexpr (requires { Body::kOnlyMoving; })
      if (!moving) return;
    all(body);
    __syncthreads();
  }
  __device__ __forceinline__ void operator()(const kernels::Remember& body) {
    all(body);
    __syncthreads();
    bool any = false;
    for (int w = threadIdx.x; w < count; w += blockDim.x) any |= !body.st.still[first + w];
    moving = __syncthreads_or(any);
  }
  // Each ego looks at a world of agents and at the map: few egos get a warp each.
  __device__ __forceinline__ void operator()(const kernels::Contact& body) const {
    const int each = body.st.E, n = each * count, warps = static_cast<int>(blockDim.x) / kLanes;
    if (n > kEgosOfWarp * warps) return operator()<kernels::Contact>(body);
    for (int i = static_cast<int>(threadIdx.x) / kLanes; i < n; i += warps)
      contact(body, first * each + i);
    __syncthreads();
  }
  // Plans go the plain way: their controller would give every thread its 16 kB.
  __device__ __forceinline__ void operator()(const kernels::Follow&) const {}

  // Few indices go to threads far apart, so that each has a warp for itself.
  template <class Body>
  __device__ __forceinline__ void all(const Body& body) const {
    const int each = body.size() / num_worlds, n = each * count;
    const int threads = blockDim.x, thread = threadIdx.x;
    const int apart = n > 0 && n < threads ? threads / n : 1;
    if (thread % apart != 0) return;
    for (int i = thread / apart; i < n; i += (threads + apart - 1) / apart) body(first * each + i);
  }
};

__global__ void __launch_bounds__(kMostThreads, 2)
    step_worlds(const __grid_constant__ Scenarios c, const __grid_constant__ State st,
                const __grid_constant__ Outcome out, const Action action, const Weights weights,
                const __grid_constant__ Params p, int worlds_of_block) {
  const int first = static_cast<int>(blockIdx.x) * worlds_of_block;
  const int left = st.W - first;
  Block block{first, left < worlds_of_block ? left : worlds_of_block, st.W};
  alpagym::step(block, c, st, out, action, weights, p);
}

// How many worlds a block takes: as many as its threads have agents for, unless multiprocessors
// would have none.
struct Shape {
  int worlds, blocks, threads;
};
inline Shape shape_of(const State& st, int multiprocessors) {
  const int agents = st.A > st.E ? st.A : st.E;
  const int fitting = agents > 0 && agents < kMostThreads ? kMostThreads / agents : 1;
  const int spread = (st.W + multiprocessors - 1) / multiprocessors;
  const int worlds = fitting < spread ? fitting : spread;
  const int threads = (worlds * agents + kLanes - 1) / kLanes * kLanes;
  return {worlds, worlds ? (st.W + worlds - 1) / worlds : 0,
          threads < kLanes         ? kLanes
          : threads < kMostThreads ? threads
                                   : kMostThreads};
}

}  // namespace alpagym::cuda
