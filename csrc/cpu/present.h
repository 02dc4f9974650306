// The agents of one world that are there now, side by side: made once for all its egos.
#pragma once
#include "../world.h"
#include "simd.h"

namespace alpagym::cpu {

// An agent as a row of AgentFeature in the world frame: what observations turn into the ego's.
struct alignas(32) AgentRecord {
  float x, y, cos, sin, speed, length, width, kind;
};

struct Present {
  static constexpr int kMax = 512;  // worlds with more agents go the plain way

  int n = 0, padded = 0;  // agents; and up to a multiple of eight, filled with ones far away
  int agent[kMax + simd::kLanes];
  alignas(32) float x[kMax + simd::kLanes], y[kMax + simd::kLanes], z[kMax + simd::kLanes];
  alignas(32) float cos[kMax + simd::kLanes], sin[kMax + simd::kLanes];
  alignas(32) float speed[kMax + simd::kLanes], radius[kMax + simd::kLanes];
  AgentRecord record[kMax + simd::kLanes];
};

inline void gather_present(const Scenarios& c, const State& st, int w, World world, Present& out) {
  constexpr float kFar = 1e18f;
  int n = 0;
  const int first = w * st.A;
  for (int a = 0; a < world.agents; ++a) {
    const int i = first + a;
    out.agent[n] = a;
    out.x[n] = st.x[i];
    out.y[n] = st.y[i];
    out.z[n] = st.z[i];
    out.cos[n] = st.yaw[i];
    out.speed[n] = st.speed[i];
    n += st.valid[i];
  }
  out.n = n;
  out.padded = (n + simd::kLanes - 1) / simd::kLanes * simd::kLanes;
  for (int k = n; k < out.padded; ++k) {
    out.agent[k] = -1;
    out.x[k] = out.y[k] = kFar;
    out.z[k] = out.cos[k] = out.speed[k] = out.radius[k] = 0.f;
  }
  for (int k = 0; k < out.padded; k += simd::kLanes) {
    simd::Float8 sin, cos;
    sincos(simd::load(out.cos + k), sin, cos);
    simd::store(out.sin + k, sin);
    simd::store(out.cos + k, cos);
  }
  for (int k = 0; k < n; ++k) {
    const int row = world.first + out.agent[k];
    const AgentInfo info = c.agent[row];
    out.radius[k] = norm({0.5f * info.length, 0.5f * info.width});
    out.record[k] = {out.x[k],     out.y[k],    out.cos[k], out.sin[k],
                     out.speed[k], info.length, info.width, static_cast<float>(c.type[row])};
  }
}

}  // namespace alpagym::cpu
