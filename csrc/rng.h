// Random numbers as a function of keys: never of call order, world index, batch size or thread.
#pragma once
#include <cmath>
#include <cstdint>

#include "se2.h"

namespace alpagym {

enum class Purpose : uint32_t { kAction = 1, kDesiredSpeed = 2 };

// The finalizer of SplitMix64 (Steele, Lea, Flood 2014): a bijection that mixes all bits.
ALPAGYM_HD uint64_t mix(uint64_t z) {
  z += 0x9e3779b97f4a7c15ull;
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
  z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
  return z ^ (z >> 31);
}

ALPAGYM_HD uint64_t combine(uint64_t key, uint64_t value) { return mix(key ^ mix(value)); }

// In (0, 1), from 23 bits: exact in float32, never 0 and never 1.
ALPAGYM_HD float uniform(uint64_t key) {
  return (static_cast<float>(mix(key) >> 41) + 0.5f) * 0x1p-23f;
}

// Standard normal by Box-Muller.
ALPAGYM_HD float normal(uint64_t key) {
  return sqrtf(-2.f * logf(uniform(key))) * cosf(kTwoPi * uniform(combine(key, 1)));
}

}  // namespace alpagym
