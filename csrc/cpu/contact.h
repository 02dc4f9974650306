// Stage contact, tuned for a CPU: agents that cannot meet the ego are passed over eight at a time,
// road edges and lanes come from the lists of near.h. What it writes is what kernels/contact.h
// writes.
#pragma once
#include "../kernels/contact.h"
#include "../near.h"
#include "near_lists.h"
#include "present.h"

namespace alpagym::cpu {

// Those whose circles come no closer than touching within the horizon, at constant velocities, are
// out of the question; so are those at other heights, which `meet` finds.
inline kernels::Met collide(const kernels::Contact& o, const kernels::Judged& ego,
                            const Present& present) {
  const Frame f = ego.box.frame;
  const float speed = o.st.speed[ego.i], reach = radius(ego.box);
  const float vx = speed * f.cos, vy = speed * f.sin;
  kernels::Met met;
  for (int at = 0; at < present.padded; at += simd::kLanes) {
    const simd::Float8 dx = simd::load(present.x + at) - f.x, dy = simd::load(present.y + at) - f.y;
    const simd::Float8 other = simd::load(present.speed + at);
    const simd::Float8 rx = other * simd::load(present.cos + at) - vx,
                       ry = other * simd::load(present.sin + at) - vy;
    const simd::Float8 t =
        simd::min(simd::max(-(dx * rx + dy * ry) / simd::max(rx * rx + ry * ry, simd::splat(1e-6f)),
                            simd::splat(0.f)),
                  simd::splat(o.p.ttc_horizon));
    const simd::Float8 x = dx + t * rx, y = dy + t * ry;
    const simd::Float8 touching = simd::load(present.radius + at) + (reach + 0.01f);
    const simd::Int8 near = x * x + y * y <= touching * touching * 1.001f;
    for (uint64_t lanes = simd::lanes_of(near); lanes; lanes = simd::without_first(lanes)) {
      const int b = present.agent[at + simd::first_lane(lanes)];
      if (b >= 0) o.meet(ego, b, met);
    }
  }
  return met;
}

// signed_edge_distance (grid.h) from a list; NaN where the list does not serve.
inline float listed_edge_distance(const Scenarios& c, int s, Vec2 p, float z) {
  const Near near = near_of(c, s, p);
  if (near.lists < 0) return NAN;
  const int from = c.near_edge_start[near.lists], n = c.near_edge_start[near.lists + 1] - from;
  constexpr int kMax = NearLists::kMaxEdge;
  if (n <= 0 || n > kMax) return NAN;
  const EdgeSegment* edges = c.edge + c.cell_edge[c.cell_start[s]];
  alignas(32) float distance2[kMax], off[kMax];
  simd::Float8 least = simd::splat(INFINITY);
  for (int k = 0; k < n; k += simd::kLanes) {
    const auto [e] = simd::gather(edges, c.near_edge + from + k, n - k);
    if (c.has_z[s] && simd::lanes_of(simd::abs(z - e[4]) >= kSameLevel)) return NAN;
    const simd::Float8 abx = e[2] - e[0], aby = e[3] - e[1], apx = p.x - e[0], apy = p.y - e[1];
    const simd::Float8 length2 = simd::max(abx * abx + aby * aby, simd::splat(1e-12f));
    const simd::Float8 t = (apx * abx + apy * aby) / length2;
    const simd::Float8 bpx = p.x - e[2], bpy = p.y - e[3];
    const simd::Float8 fx = t <= 0.f ? apx : t >= 1.f ? bpx : apx - t * abx;
    const simd::Float8 fy = t <= 0.f ? apy : t >= 1.f ? bpy : apy - t * aby;
    const simd::Float8 d2 = fx * fx + fy * fy;
    least = simd::min(least, d2);
    simd::store(distance2 + k, d2);
    simd::store(off + k, (abx * apy - aby * apx) / simd::sqrt(length2));
  }
  float best2 = INFINITY;
  for (int k = 0; k < simd::kLanes; ++k) best2 = least[k] < best2 ? least[k] : best2;
  const float limit = best2 + 1e-4f * sqrtf(best2);
  float side = 0.f;
  for (int k = 0; k < n; ++k)
    if (distance2[k] <= limit && fabsf(off[k]) > fabsf(side)) side = off[k];
  const float distance = sqrtf(best2);
  return side < 0.f ? -distance : distance;
}

inline float edge_distance(const Scenarios& c, int s, Vec2 p, float z) {
  const float listed = listed_edge_distance(c, s, p, z);
  return listed == listed ? listed : signed_edge_distance(c, s, p, z);
}

// is_offroad (world.h) by lists.
inline bool offroad(const Scenarios& c, int s, const Box& box, float z) {
  const float center = edge_distance(c, s, {box.frame.x, box.frame.y}, z);
  if (fabsf(center) > radius(box)) return center < 0.f;
  for (int n = 0; n < 4; ++n)
    if (edge_distance(c, s, corner(box, n), z) < 0.f) return true;
  return false;
}

// lane_at (lanes.h) by lists.
inline LaneFix lane(const Scenarios& c, int s, Vec2 p, Vec2 heading, float z) {
  const Near near = near_of(c, s, p);
  if (near.lists < 0) return lane_at(c, s, p, heading, z);
  const int from = c.near_lane_start[near.lists], n = c.near_lane_start[near.lists + 1] - from;
  const int first = c.cell_road[c.cell_start[s]];
  const RoadPoint* road = c.road + first;
  LaneFix fix{-1, 0.f, {1.f, 0.f}, 2.f};
  float best = INFINITY, alignment = -INFINITY;
  int best_n = -1;
  for (int k = 0; k < n; k += simd::kLanes) {
    const auto [r] = simd::gather(road, c.near_lane + from + k, n - k);
    const simd::Float8 dx = p.x - r[0], dy = p.y - r[1];
    const simd::Float8 along = dx * r[2] + dy * r[3], off = r[2] * dy - r[3] * dx;
    const simd::Float8 beyond = simd::max(simd::abs(along) - r[4], simd::splat(0.f));
    const simd::Float8 distance = simd::sqrt(off * off + beyond * beyond);
    const simd::Float8 cosine = heading.x * r[2] + heading.y * r[3];
    simd::Int8 reached = distance <= kLaneReach;
    if (c.has_z[s]) reached &= simd::abs(z - r[6]) < kSameLevel;
    const simd::Float8 cost = distance + kTurnCost * (1.f - cosine);
    const simd::Int8 better = reached & (cost <= best);
    for (uint64_t lanes = simd::lanes_of(reached & (distance <= kLaneHalfWidth)); lanes;
         lanes = simd::without_first(lanes))
      alignment = fmaxf(alignment, cosine[simd::first_lane(lanes)]);
    for (uint64_t lanes = simd::lanes_of(better); lanes; lanes = simd::without_first(lanes)) {
      const int j = simd::first_lane(lanes);
      const int at = c.near_lane[from + std::min(k + j, n - 1)];
      if (!(cost[j] < best || (cost[j] == best && at < best_n))) continue;
      best = cost[j];
      best_n = at;
      fix.element = static_cast<int>(r[7][j]);
      fix.offset = off[j] < 0.f ? -distance[j] : distance[j];
      fix.direction = {r[2][j], r[3][j]};
    }
  }
  if (alignment >= -2.f) fix.alignment = alignment;
  return fix;
}

inline void contact(const kernels::Contact& o, const Present& present, int k) {
  o.clear(k);
  kernels::Judged ego;
  if (!o.judges(k, ego)) return;
  const float z = o.st.z[ego.i];
  const Frame f = ego.box.frame;
  const kernels::Met met = collide(o, ego, present);
  o.finish(ego, met, offroad(o.c, ego.world.s, ego.box, z),
           lane(o.c, ego.world.s, {f.x, f.y}, {f.cos, f.sin}, z));
}

}  // namespace alpagym::cpu
