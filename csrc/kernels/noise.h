// Keyed standard normals, for the policy's sampling.
#pragma once
#include "../rng.h"
#include "../world.h"

namespace alpagym::kernels {

// One thread per ego. noise[w, e, d] depends on the world's seed, scenario key, group member, agent
// and step alone, so that a rollout is the same in any batch.
struct Noise {
  Scenarios c;
  State st;
  float* noise;  // [W, E, size]
  int columns;
  ALPAGYM_HD int size() const { return st.W * st.E; }

  ALPAGYM_HD void operator()(int k) const {
    const int w = k / st.E;
    uint64_t key = combine(static_cast<uint64_t>(st.seed[w]),
                           static_cast<uint64_t>(c.key[world_of(c, st, w).s]));
    key = combine(key, static_cast<uint64_t>(st.member[w]));
    key = combine(key, static_cast<uint64_t>(st.ego[k]));
    key = combine(key, static_cast<uint64_t>(st.step[w]));
    key = combine(key, static_cast<uint64_t>(Purpose::kAction));
    for (int d = 0; d < columns; ++d)
      noise[k * columns + d] = normal(combine(key, static_cast<uint64_t>(d)));
  }
};

}  // namespace alpagym::kernels
