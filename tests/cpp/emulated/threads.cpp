// The threads of a block, at the same time: for ThreadSanitizer, which sees what races.
#include <pthread.h>

#include <memory>
#include <thread>
#include <vector>

#include "cuda_runtime.h"

namespace emulated {
namespace {

constexpr unsigned kLanes = 32;

class Barrier {
 public:
  explicit Barrier(unsigned count) { pthread_barrier_init(&barrier_, nullptr, count); }
  ~Barrier() { pthread_barrier_destroy(&barrier_); }
  void wait() { pthread_barrier_wait(&barrier_); }

 private:
  pthread_barrier_t barrier_;
};
struct Warp {
  explicit Warp(unsigned lanes) : barrier(lanes) {}
  Barrier barrier;
  uint64_t slots[2][kLanes] = {};
  unsigned turn[kLanes] = {};
};

std::unique_ptr<Barrier> whole;
std::vector<std::unique_ptr<Warp>> warps;
std::vector<char> votes;

}  // namespace

void run_block(dim3 block, dim3 threads, void (*body)(void*), void* argument) {
  const unsigned n = threads.x;
  whole = std::make_unique<Barrier>(n);
  warps.clear();
  for (unsigned first = 0; first < n; first += kLanes)
    warps.push_back(std::make_unique<Warp>(n - first < kLanes ? n - first : kLanes));
  votes.assign(n, 0);
  std::vector<std::thread> all;
  for (unsigned t = 0; t < n; ++t)
    all.emplace_back([=] {
      threadIdx = dim3(t, 0, 0);
      blockIdx = block;
      blockDim = threads;
      body(argument);
    });
  for (std::thread& thread : all) thread.join();
}

void wait_block() { whole->wait(); }
void wait_warp() { warps[threadIdx.x / kLanes]->barrier.wait(); }

// Two sets of slots by turns: who is ahead writes to the one that nobody reads any more.
const uint64_t* exchange_warp(uint64_t value) {
  Warp& warp = *warps[threadIdx.x / kLanes];
  const unsigned lane = threadIdx.x % kLanes;
  uint64_t* slots = warp.slots[warp.turn[lane]++ % 2];
  slots[lane] = value;
  warp.barrier.wait();
  return slots;
}
bool any_of_block(bool value) {
  votes[threadIdx.x] = value;
  whole->wait();
  bool any = false;
  for (const char vote : votes) any |= vote != 0;
  whole->wait();
  return any;
}

}  // namespace emulated
