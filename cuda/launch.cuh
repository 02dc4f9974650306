// Run a body for every index on a stream; switch to the tensors' device and back.
#pragma once
#include <cuda_runtime.h>

#include <stdexcept>
#include <string>

namespace alpagym::cuda {

constexpr int kThreads = 128;

template <class Body>
__global__ void run(const Body body, int n) {
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

struct Launch {
  cudaStream_t stream;
  template <class Body>
  void operator()(const Body& body) const {
    const int n = body.size();
    if (n == 0) return;
    run<<<(n + kThreads - 1) / kThreads, kThreads, 0, stream>>>(body, n);
    check(cudaGetLastError(), "launch");
  }
};

}  // namespace alpagym::cuda
