// The threads of a block, by turns: each runs until it waits.
#include <ucontext.h>

#include <cstdio>
#include <cstdlib>
#include <memory>
#include <vector>

#include "cuda_runtime.h"

namespace emulated {
namespace {

constexpr size_t kStack = 1 << 18;
constexpr unsigned kLanes = 32;

struct Barrier {
  unsigned expected = 0, arrived = 0;
  uint64_t passed = 0;
};
struct Fiber {
  ucontext_t context;
  bool done;
};
struct Warp {
  Barrier barrier;
  uint64_t slots[2][kLanes];
  unsigned turn[kLanes];
};

std::vector<std::unique_ptr<char[]>> stacks;
std::vector<Fiber> fibers;
std::vector<Warp> warps;
Barrier whole;
unsigned votes[2];
std::vector<unsigned> vote_turn;
ucontext_t scheduler;
size_t running;
uint64_t progress;
void (*job)(void*);
void* job_argument;

void wait(Barrier& barrier) {
  const uint64_t before = barrier.passed;
  if (++barrier.arrived == barrier.expected) {
    barrier.arrived = 0;
    ++barrier.passed;
    ++progress;
    return;
  }
  while (barrier.passed == before) swapcontext(&fibers[running].context, &scheduler);
}
void enter() {
  job(job_argument);
  fibers[running].done = true;
  ++progress;
}
unsigned index() { return static_cast<unsigned>(running); }

}  // namespace

void run_block(dim3 block, dim3 threads, void (*body)(void*), void* argument) {
  job = body;
  job_argument = argument;
  const size_t n = threads.x;
  fibers.resize(n);
  vote_turn.assign(n, 0);
  warps.assign((n + kLanes - 1) / kLanes, {});
  for (Warp& warp : warps) warp.barrier.expected = kLanes;
  if (n % kLanes) warps.back().barrier.expected = n % kLanes;
  whole = {static_cast<unsigned>(n), 0, 0};
  votes[0] = votes[1] = 0;
  while (stacks.size() < n) stacks.push_back(std::make_unique<char[]>(kStack));
  for (size_t t = 0; t < n; ++t) {
    Fiber& fiber = fibers[t];
    fiber.done = false;
    getcontext(&fiber.context);
    fiber.context.uc_stack.ss_sp = stacks[t].get();
    fiber.context.uc_stack.ss_size = kStack;
    fiber.context.uc_link = &scheduler;
    makecontext(&fiber.context, enter, 0);
  }
  blockIdx = block;
  blockDim = threads;
  for (bool all_done = false; !all_done;) {
    const uint64_t before = progress;
    all_done = true;
    for (size_t turn = 0; turn < n; ++turn) {
      running = backward ? n - 1 - turn : turn;
      if (fibers[running].done) continue;
      threadIdx = dim3(static_cast<unsigned>(running), 0, 0);
      swapcontext(&scheduler, &fibers[running].context);
      all_done &= fibers[running].done;
    }
    if (!all_done && progress == before) {
      std::fprintf(stderr, "emulated: threads of block %u wait for others that never come\n",
                   block.x);
      std::abort();
    }
  }
}

void wait_block() { wait(whole); }
void wait_warp() { wait(warps[index() / kLanes].barrier); }

// Two sets of slots by turns: who is ahead writes to the one that nobody reads any more.
const uint64_t* exchange_warp(uint64_t value) {
  Warp& warp = warps[index() / kLanes];
  const unsigned lane = index() % kLanes;
  uint64_t* slots = warp.slots[warp.turn[lane]++ % 2];
  slots[lane] = value;
  wait(warp.barrier);
  return slots;
}
bool any_of_block(bool value) {
  const unsigned turn = vote_turn[index()]++ % 2;
  wait(whole);  // the last vote in these slots has been read
  if (index() == 0) votes[turn] = 0;
  wait(whole);
  votes[turn] |= value;
  wait(whole);
  return votes[turn] != 0;
}

}  // namespace emulated
