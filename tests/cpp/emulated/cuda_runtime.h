// As much of CUDA as cuda/ uses, on a CPU: kernels are functions, launches run block after block,
// and the threads of a block run by turns (fibers) or, with EMULATED_THREADS, at the same time.
//
// Fibers change where a GPU's threads wait for each other, and only there; their order can be
// turned round (`emulated::backward`): what depends on it is a race. A barrier that some threads
// never reach ends the program. Shared memory is static, since blocks run one after the other.
#pragma once
#include <cstddef>
#include <cstdint>
#include <utility>

#define __global__
#define __device__
#define __forceinline__ inline
#define __grid_constant__
#define __launch_bounds__(...)
#define __shared__ static

struct dim3 {
  unsigned x, y, z;
  constexpr dim3(unsigned x = 1, unsigned y = 1, unsigned z = 1) : x(x), y(y), z(z) {}
};
inline thread_local dim3 threadIdx, blockIdx, blockDim;

struct alignas(16) uint4 {
  unsigned x, y, z, w;
};

namespace emulated {

inline bool backward = false;  // threads of a block take their turns from the last to the first

// Runs `body` as `threads` threads of a block.
void run_block(dim3 block, dim3 threads, void (*body)(void*), void* argument);

// Waits for the whole block, or for the thread's warp.
void wait_block();
void wait_warp();
// Everyone's value, by lane or thread, of the last exchange; valid until the next.
const uint64_t* exchange_warp(uint64_t value);
bool any_of_block(bool value);

}  // namespace emulated

inline void __syncthreads() { emulated::wait_block(); }
inline int __syncthreads_or(int value) { return emulated::any_of_block(value != 0); }
inline void __syncwarp(unsigned = 0xffffffffu) { emulated::wait_warp(); }
inline unsigned __ballot_sync(unsigned, int value) {
  const uint64_t* all = emulated::exchange_warp(value != 0);
  unsigned bits = 0;
  for (int lane = 0; lane < 32; ++lane) bits |= static_cast<unsigned>(all[lane]) << lane;
  return bits;
}
inline int __reduce_add_sync(unsigned, int value) {
  const uint64_t* all = emulated::exchange_warp(static_cast<uint32_t>(value));
  uint32_t sum = 0;
  for (int lane = 0; lane < 32; ++lane) sum += static_cast<uint32_t>(all[lane]);
  return static_cast<int>(sum);
}
inline unsigned __reduce_min_sync(unsigned, unsigned value) {
  const uint64_t* all = emulated::exchange_warp(value);
  uint64_t least = all[0];
  for (int lane = 1; lane < 32; ++lane) least = all[lane] < least ? all[lane] : least;
  return static_cast<unsigned>(least);
}
inline unsigned __reduce_max_sync(unsigned, unsigned value) {
  const uint64_t* all = emulated::exchange_warp(value);
  uint64_t most = all[0];
  for (int lane = 1; lane < 32; ++lane) most = all[lane] > most ? all[lane] : most;
  return static_cast<unsigned>(most);
}
template <class T>
T __shfl_sync(unsigned, T value, int from) {
  static_assert(sizeof(T) == 4);
  union {
    T value;
    uint32_t bits;
  } mine{value}, theirs{};
  theirs.bits = static_cast<uint32_t>(emulated::exchange_warp(mine.bits)[from % 32]);
  return theirs.value;
}
inline int __popc(unsigned bits) { return __builtin_popcount(bits); }
inline int __ffs(int bits) { return __builtin_ffs(bits); }

using cudaStream_t = void*;
enum cudaError_t { cudaSuccess = 0 };
enum cudaDeviceAttr { cudaDevAttrMultiProcessorCount };
struct cudaLaunchConfig_t {
  dim3 gridDim, blockDim;
  size_t dynamicSmemBytes;
  cudaStream_t stream;
};
inline const char* cudaGetErrorString(cudaError_t) { return "no error"; }
inline cudaError_t cudaGetDevice(int* device) {
  *device = 0;
  return cudaSuccess;
}
inline cudaError_t cudaSetDevice(int) { return cudaSuccess; }
inline cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr, int) {
  *value = 2;  // as few multiprocessors as give blocks of several worlds
  return cudaSuccess;
}

template <class... Parameters, class... Arguments>
cudaError_t cudaLaunchKernelEx(const cudaLaunchConfig_t* config, void (*kernel)(Parameters...),
                               Arguments&&... arguments) {
  auto call = [&] { kernel(arguments...); };
  for (unsigned b = 0; b < config->gridDim.x; ++b)
    emulated::run_block(
        dim3(b, 0, 0), config->blockDim,
        [](void* with) { (*static_cast<decltype(call)*>(with))(); }, &call);
  return cudaSuccess;
}
