// 32 threads that work as one: every function here is called by all of them.
#pragma once
#include <cuda_runtime.h>

#include <cstdint>

namespace alpagym::cuda {

constexpr int kLanes = 32;
constexpr uint32_t kAllLanes = 0xffffffffu;

__device__ __forceinline__ int lane() { return static_cast<int>(threadIdx.x) % kLanes; }
__device__ __forceinline__ uint32_t lanes_before() { return (1u << lane()) - 1u; }
__device__ __forceinline__ uint32_t ballot(bool holds) { return __ballot_sync(kAllLanes, holds); }

// Bytes from shared memory, 16-byte aligned, to a place in global memory that is aligned to 2; in
// accesses as wide as it allows.
template <class Word>
__device__ __forceinline__ void copy_words(void* to, const void* from, int bytes) {
  const int words = bytes / static_cast<int>(sizeof(Word));
  for (int k = lane(); k < words; k += kLanes)
    static_cast<Word*>(to)[k] = static_cast<const Word*>(from)[k];
  const int done = words * static_cast<int>(sizeof(Word));
  const int rest = (bytes - done) / 2;
  if (lane() < rest)
    reinterpret_cast<uint16_t*>(static_cast<char*>(to) + done)[lane()] =
        reinterpret_cast<const uint16_t*>(static_cast<const char*>(from) + done)[lane()];
}
__device__ __forceinline__ void copy_out(void* to, const void* from, int bytes) {
  const auto address = reinterpret_cast<uintptr_t>(to);
  if (address % 16 == 0)
    copy_words<uint4>(to, from, bytes);
  else if (address % 4 == 0)
    copy_words<uint32_t>(to, from, bytes);
  else
    copy_words<uint16_t>(to, from, bytes);
}

}  // namespace alpagym::cuda
