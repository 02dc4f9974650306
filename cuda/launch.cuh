// Run a kernel on a stream; run a body for every index; switch to the tensors' device and back.
#pragma once
#include <cuda_runtime.h>

#include <stdexcept>
#include <string>
#include <utility>

namespace alpagym::cuda {

constexpr int kThreads = 128;

template <class Body>
__global__ void run(const __grid_constant__ Body body, int n) {
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i < n) body(i);
}

inline void check(cudaError_t error, const char* what) {
  if (error != cudaSuccess)
    throw std::runtime_error(std::string(what) + ": " + cudaGetErrorString(error));
}

struct DeviceGuard {
  int previous = 0, current;
  explicit DeviceGuard(int device) : current(device) {
    check(cudaGetDevice(&previous), "cudaGetDevice");
    if (current != previous) check(cudaSetDevice(current), "cudaSetDevice");
  }
  ~DeviceGuard() {
    if (current != previous) cudaSetDevice(previous);
  }
  DeviceGuard(const DeviceGuard&) = delete;
  DeviceGuard& operator=(const DeviceGuard&) = delete;
};

// kernel<<<blocks, threads, 0, stream>>>(arguments...), as a call that any C++ compiler reads.
template <class... Parameters, class... Arguments>
void launch(void (*kernel)(Parameters...), int blocks, int threads, cudaStream_t stream,
            Arguments&&... arguments) {
  if (blocks == 0) return;
  cudaLaunchConfig_t config{};
  config.gridDim = dim3(blocks);
  config.blockDim = dim3(threads);
  config.stream = stream;
  check(cudaLaunchKernelEx(&config, kernel, std::forward<Arguments>(arguments)...), "launch");
}

// A launch for each body.
struct Launch {
  cudaStream_t stream;
  template <class Body>
  void operator()(const Body& body) const {
    const int n = body.size();
    launch(run<Body>, (n + kThreads - 1) / kThreads, kThreads, stream, body, n);
  }
};

}  // namespace alpagym::cuda
