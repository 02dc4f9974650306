// Stage contact by warps: one for each ego, where a block has many more threads than egos. What it
// writes is what kernels::Contact writes, whatever the order in which lanes find it.
#pragma once
#include "kernels/contact.h"
#include "warp.cuh"

namespace alpagym::cuda {

// Bits whose order as whole numbers is that of the numbers.
__device__ __forceinline__ uint32_t ordered(float value) {
  const uint32_t b = bits_of(value);
  return b & 0x80000000u ? ~b : b | 0x80000000u;
}
// The lane with the least value, the first of several.
__device__ __forceinline__ int lane_of_least(float value) {
  const uint32_t own = ordered(value);
  return __ffs(static_cast<int>(ballot(own == __reduce_min_sync(kAllLanes, own)))) - 1;
}
template <class T>
__device__ __forceinline__ T from_lane(T value, int from) {
  return __shfl_sync(kAllLanes, value, from);
}

// Contact::meet for all agents of the world.
__device__ __forceinline__ kernels::Met meet_all(const kernels::Contact& o,
                                                 const kernels::Judged& ego) {
  kernels::Met own;
  uint32_t decided = kAllLanes;  // by which agent
  for (int b = lane(); b < ego.world.agents; b += kLanes) {
    o.meet(ego, b, own);
    if (own.decided() && decided == kAllLanes) decided = b;
  }
  const uint32_t first = __reduce_min_sync(kAllLanes, decided);
  const uint32_t deciding = ballot(first != kAllLanes && decided == first);
  const uint32_t rear = ballot(own.worst == Collision::kRear);
  const uint32_t found = deciding ? deciding : rear;
  const int worst =
      from_lane(static_cast<int>(own.worst), found ? __ffs(static_cast<int>(found)) - 1 : 0);
  const float ttc = from_lane(own.ttc, lane_of_least(own.ttc));
  return {found ? static_cast<Collision>(worst) : Collision::kNone, ttc};
}

// is_offroad (world.h): the center and the corners at once.
__device__ __forceinline__ bool is_offroad_at_once(const Scenarios& c, int s, const Box& box,
                                                   float z) {
  float distance = 0.f;
  if (lane() < 5) {
    const Vec2 center{box.frame.x, box.frame.y};
    distance = signed_edge_distance(c, s, lane() == 4 ? center : corner(box, lane()), z);
  }
  const float center = from_lane(distance, 4);
  const uint32_t beyond = ballot(lane() < 4 && distance < 0.f);
  return fabsf(center) > radius(box) ? center < 0.f : beyond != 0;
}

// lane_at (lanes.h): each lane of the warp looks at some road points.
__device__ __forceinline__ LaneFix lane_of_all(const Scenarios& c, int s, Vec2 p, Vec2 heading,
                                               float z) {
  LaneSearch own;
  for_lane_points(c, s, p, [&](int first, int end) {
    for (int n = first + lane(); n < end; n += kLanes) own.visit(c, s, n, p, heading, z);
  });
  const uint32_t cost = ordered(own.best);
  const bool cheapest = cost == __reduce_min_sync(kAllLanes, cost);
  const uint32_t n = cheapest ? static_cast<uint32_t>(own.best_n) : kAllLanes;
  const uint32_t least = __reduce_min_sync(kAllLanes, n);
  const int from = __ffs(static_cast<int>(ballot(cheapest && n == least))) - 1;
  // The lane that runs most nearly its way; those that found none say 2.
  const float alignment = own.fix.alignment > 1.5f ? -INFINITY : own.fix.alignment;
  const float most = from_lane(alignment, lane_of_least(-alignment));
  return {from_lane(own.fix.element, from),
          from_lane(own.fix.offset, from),
          {from_lane(own.fix.direction.x, from), from_lane(own.fix.direction.y, from)},
          most == -INFINITY ? 2.f : most};
}

__device__ __forceinline__ void contact(const kernels::Contact& o, int k) {
  kernels::Judged ego;
  if (lane() == 0) o.clear(k);
  if (!o.judges(k, ego)) return;
  const int s = ego.world.s;
  const float z = o.st.z[ego.i];
  const Vec2 heading{ego.box.frame.cos, ego.box.frame.sin};
  const Vec2 center{ego.box.frame.x, ego.box.frame.y};
  const kernels::Met met = meet_all(o, ego);
  const bool offroad = is_offroad_at_once(o.c, s, ego.box, z);
  const LaneFix fix = lane_of_all(o.c, s, center, heading, z);
  if (lane() == 0) o.finish(ego, met, offroad, fix);
}

}  // namespace alpagym::cuda
