// Observation by warps: one for each ego. What it writes is what the bodies of kernels/observe.h
// write, up to the order of slots where SlotOrder leaves it open; rows of agents and road points
// go through shared memory, so that they leave in wide accesses.
#pragma once
#include "nearest.cuh"
#include "pipeline.h"

namespace alpagym::cuda {

constexpr int kEgosOfBlock = 4;
constexpr int kEgoThreads = kEgosOfBlock * kLanes;

template <class T>
__device__ __forceinline__ void clear(T* to, int n) {
  for (int k = lane(); k < n; k += kLanes) to[k] = T(0);
}

// Runs the bodies of `observe` for ego slot k.
struct Ego {
  Pool& pool;
  int k;
  const kernels::Viewer& v;

  __device__ __forceinline__ void operator()(const kernels::ObserveRoute& o) const {
    float* pose = o.obs.pose + 4 * k;
    float* row = o.obs.ego + k * o.obs.CE;
    float* route_row = o.obs.route + k * o.obs.H * kNumRouteFeatures;
    bool* seen = o.obs.route_mask + k * o.obs.H;
    clear(row, v.present ? 0 : o.obs.CE);
    clear(route_row, o.obs.H * kNumRouteFeatures);
    clear(seen, o.obs.H);
    __syncwarp();
    if (!v.present) return;
    if (lane() == 0) {
      pose[0] = v.frame.x;
      pose[1] = v.frame.y;
      pose[2] = o.st.z[v.i];
      pose[3] = o.st.yaw[v.i];
      float ego[kNumEgoFeatures] = {};
      if (o.p.observation == kAlpaSim)
        o.tell(ego, route_row, seen, v);
      else
        o.describe(ego, v);
#pragma unroll
      for (int n = 0; n < kNumEgoFeatures; ++n)
        if (n < o.obs.CE) row[n] = ego[n];
    }
    const Route route = route_of(o.c, v.world.first + v.a);
    if (route.n < 2 || o.p.observation == kAlpaSim) return;
    for (int h = lane(); h < o.obs.H; h += kLanes)
      if (!o.write(route_row, seen, v, route, h)) break;
  }

  __device__ __forceinline__ void operator()(const kernels::ObserveAgents& o) const {
    const float reach2 = o.p.agent_radius * o.p.agent_radius;
    WarpNearest nearest(pool, o.obs.O, reach2);
    const int agents = v.present && o.obs.O > 0 ? v.world.agents : 0;
    for (int from = 0; from < agents; from += kLanes) {
      const int b = from + lane(), j = v.w * o.st.A + b;
      bool there = b < agents && b != v.a && o.st.valid[j] &&
                   same_level(o.c, v.world.s, o.st.z[v.i], o.st.z[j]);
      float distance2 = 0.f;
      if (there) {
        const Vec2 d{o.st.x[j] - v.frame.x, o.st.y[j] - v.frame.y};
        distance2 = dot(d, d);
        there = distance2 <= reach2;
      }
      nearest.add(there, distance2, b);
    }
    nearest.finish(o.p.slot_order == kNearestFirst);
    const int64_t first = static_cast<int64_t>(k) * o.obs.O;
    write_rows(o, &Observation::agents, first, o.obs.O, o.obs.CA, nearest.n);
    write_mask(o.obs.agents_mask + first, o.obs.O, nearest.n);
  }

  __device__ __forceinline__ void operator()(const kernels::ObserveRoad& o) const {
    const float radius = o.p.road_radius, reach2 = radius * radius;
    WarpNearest nearest(pool, o.obs.B, reach2);
    if (v.present && o.obs.B > 0) {
      const Grid g = grid_of(o.c, v.world.s);
      const float x = v.frame.x - g.x, y = v.frame.y - g.y, z = o.st.z[v.i];
      const int x0 = cell_index(x - radius, g.cell, g.columns),
                x1 = cell_index(x + radius, g.cell, g.columns);
      const int y0 = cell_index(y - radius, g.cell, g.rows),
                y1 = cell_index(y + radius, g.cell, g.rows);
      for (int row = y0; row <= y1; ++row) {
        const int line = g.first + row * g.columns;
        const int end = o.c.cell_road[line + x1 + 1];
        for (int from = o.c.cell_road[line + x0]; from < end; from += kLanes) {
          const int n = from + lane();
          bool there = n < end;
          float distance2 = 0.f;
          if (there) {
            const Vec2 d{o.c.road[n].x - v.frame.x, o.c.road[n].y - v.frame.y};
            distance2 = dot(d, d);
            there = distance2 <= reach2 && same_level(o.c, v.world.s, z, o.c.road[n].z);
          }
          nearest.add(there, distance2, n);
        }
      }
    }
    nearest.finish(o.p.slot_order == kNearestFirst);
    const int64_t first = static_cast<int64_t>(k) * o.obs.B;
    write_rows(o, &Observation::road, first, o.obs.B, o.obs.CR, nearest.n);
    write_mask(o.obs.road_mask + first, o.obs.B, nearest.n);
  }

  __device__ __forceinline__ void operator()(const kernels::ObserveLights& o) const {
    float* rows = o.obs.lights + k * o.obs.I * kNumLightFeatures;
    bool* seen = o.obs.lights_mask + k * o.obs.I;
    clear(rows, o.obs.I * kNumLightFeatures);
    clear(seen, o.obs.I);
    __syncwarp();
    if (!v.present) {
      if (lane() == 0) kernels::mark_clear(o.obs, k);
      return;
    }
    const int row = v.world.first + v.a;
    const int first = o.c.light_start[v.world.s], count = o.c.light_start[v.world.s + 1] - first;
    const float front = o.st.route_s[v.i] + 0.5f * o.c.agent[row].length;
    const float reach2 = o.p.light_radius * o.p.light_radius;
    const int n = o.write_on_route(rows, seen, v, lane() == 0);
    WarpNearest nearest(pool, o.obs.I - n, reach2);
    for (int from = 0; from < count; from += kLanes) {
      const int light = from + lane();
      bool there = light < count;
      float distance2 = 0.f;
      if (there) {
        const Vec2 d{o.c.light_xy[2 * (first + light)] - v.frame.x,
                     o.c.light_xy[2 * (first + light) + 1] - v.frame.y};
        distance2 = dot(d, d);
        there = distance2 <= reach2 && !o.on_route_ahead(row, front, light);
      }
      nearest.add(there, distance2, light);
    }
    nearest.finish(true);
    for (int at = lane(); at < nearest.n; at += kLanes)
      o.write(rows, seen, n + at, v, first, pool.index[at], false, 0.f);
  }

  // Rows first..first + slots - 1: what the pool names, then zeros.
  template <class Body>
  __device__ __forceinline__ void write_rows(const Body& o, Rows Observation::* which,
                                             int64_t first, int slots, int columns, int n) const {
    const Rows& to = o.obs.*which;
    Body staged = o;
    (staged.obs.*which).data = pool.staged;
    const int bytes = columns * bytes_of(to.format);
    for (int from = 0; from < slots; from += kLanes) {
      const int at = from + lane();
      if (at < n)
        staged.write(lane(), v, pool.index[at]);
      else
        clear_rows(staged.obs.*which, lane(), 1, columns);
      __syncwarp();
      copy_out(static_cast<char*>(to.data) + (first + from) * bytes, pool.staged,
               (slots - from < kLanes ? slots - from : kLanes) * bytes);
      __syncwarp();
    }
  }
  __device__ __forceinline__ static void write_mask(bool* seen, int slots, int n) {
    for (int at = lane(); at < slots; at += kLanes) seen[at] = at < n;
  }
};

__global__ void __launch_bounds__(kEgoThreads, 6)
    observe_egos(const __grid_constant__ Scenarios c, const __grid_constant__ State st,
                 const __grid_constant__ Observation obs, const bool* mask,
                 const __grid_constant__ Params p) {
  __shared__ Pool pools[kEgosOfBlock];
  const int warp = static_cast<int>(threadIdx.x) / kLanes;
  const int k = static_cast<int>(blockIdx.x) * kEgosOfBlock + warp;
  if (k >= st.W * st.E || (mask && !mask[k / st.E])) return;
  const kernels::Viewer v = kernels::viewer(c, st, k);
  if (!v.present && kernels::is_clear(obs, k)) return;
  __syncwarp();  // before any lane marks it
  const Ego ego{pools[warp], k, v};
  alpagym::observe(ego, c, st, obs, mask, p);
}

}  // namespace alpagym::cuda
