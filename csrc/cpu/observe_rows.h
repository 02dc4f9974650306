// The rows of an observation that cost most, tuned for a CPU: agents from records made once for
// all egos of a world, road points from the lists of near.h. What they write is what ObserveAgents
// and ObserveRoad of kernels/observe.h write, up to the order of slots.
#pragma once
#include "../kernels/observe.h"
#include "../near.h"
#include "choose.h"
#include "present.h"

namespace alpagym::cpu {

// How a record of eight floats, of which the first four are a point and a direction, turns into
// the frame of an ego: its origin is taken away, and the pairs are rotated.
struct Turn {
  simd::Float8 origin, cos, sin;
};
inline Turn turn_of(const Frame& f, float height) {
  return {simd::Float8{f.x, f.y, 0.f, 0.f, 0.f, 0.f, height, 0.f},
          simd::Float8{f.cos, f.cos, f.cos, f.cos, 1.f, 1.f, 1.f, 1.f},
          simd::Float8{f.sin, -f.sin, f.sin, -f.sin, 0.f, 0.f, 0.f, 0.f}};
}
inline simd::Float8 turned(const Turn& t, simd::Float8 record) {
  const simd::Float8 v = record - t.origin;
  return v * t.cos + simd::swap_pairs(v) * t.sin;
}

typedef uint16_t Half8 __attribute__((vector_size(16)));

inline Half8 bfloat16_of(simd::Float8 v) {
  const simd::UInt8 b = reinterpret_cast<simd::UInt8>(v);
  return __builtin_convertvector((b + 0x7fffu + ((b >> 16) & 1u)) >> 16, Half8);
}
// As in rows.h, for finite values; what is too small for a normal number is rounded by adding the
// number whose last bit is that of the smallest.
inline Half8 float16_of(simd::Float8 v) {
  const simd::UInt8 b = reinterpret_cast<simd::UInt8>(v), sign = (b >> 16) & 0x8000u;
  const simd::UInt8 a = b & 0x7fffffffu;
  const simd::UInt8 normal = (a - 0x38000000u + 0xfffu + ((a >> 13) & 1u)) >> 13;
  const simd::UInt8 small =
      reinterpret_cast<simd::UInt8>(reinterpret_cast<simd::Float8>(a) + 0.5f) - 0x3f000000u;
  const simd::UInt8 finite = a < 0x38800000u ? small : normal;
  return __builtin_convertvector(sign | (a >= 0x477ff000u ? simd::UInt8{} + 0x7c00u : finite),
                                 Half8);
}

template <RowFormat format>
inline void store_row(void* to, simd::Float8 row) {
  if constexpr (format == RowFormat::kFloat32) {
    std::memcpy(to, &row, sizeof row);
  } else {
    const Half8 half = format == RowFormat::kFloat16 ? float16_of(row) : bfloat16_of(row);
    std::memcpy(to, &half, sizeof half);
  }
}

// Rows first..first + slots - 1 of a tensor: the records named, turned, then zeros. Whole vectors
// are stored, of which the next row overwrites what is too much; the last one is cut to size.
template <RowFormat format, class Record>
inline void write_rows(const Rows& rows, int64_t first, int slots, int columns, const Turn& turn,
                       const Record* records, const int32_t* index, int n) {
  const int bytes = bytes_of(format), stride = columns * bytes;
  char* to = static_cast<char*>(rows.data) + first * stride;
  const auto row = [&](int k) {
    return turned(turn, simd::load(reinterpret_cast<const float*>(records + index[k])));
  };
  if (columns == 0) return;
  const int whole = std::clamp(slots - (8 + columns - 1) / columns + 1, 0, n);
  for (int k = 0; k < whole; ++k) store_row<format>(to + k * stride, row(k));
  for (int k = whole; k < n; ++k) {
    char cut[32];
    store_row<format>(cut, row(k));
    std::memcpy(to + k * stride, cut, stride);
  }
  std::memset(to + n * stride, 0, static_cast<size_t>(slots - n) * stride);
}
template <class Record>
inline void write_rows(const Rows& rows, int64_t first, int slots, int columns, const Turn& turn,
                       const Record* records, const int32_t* index, int n) {
  switch (rows.format) {
    case RowFormat::kFloat32:
      return write_rows<RowFormat::kFloat32>(rows, first, slots, columns, turn, records, index, n);
    case RowFormat::kFloat16:
      return write_rows<RowFormat::kFloat16>(rows, first, slots, columns, turn, records, index, n);
    case RowFormat::kBfloat16:
      return write_rows<RowFormat::kBfloat16>(rows, first, slots, columns, turn, records, index, n);
    case RowFormat::kIndex: {
      int32_t* to = static_cast<int32_t*>(rows.data) + first;
      std::copy(index, index + n, to);
      std::fill(to + n, to + slots, 0);
    }
  }
}

inline void write_mask(bool* seen, int slots, int n) {
  std::memset(seen, 1, n);
  std::memset(seen + n, 0, slots - n);
}

// Sort the chosen by distance, ties to the smaller index.
template <class Record>
inline void sort_by_distance(const Record* records, int32_t* index, int n, Vec2 from) {
  std::pair<float, int32_t> order[kMaxNearest];
  for (int k = 0; k < n; ++k) {
    const Vec2 d{records[index[k]].x - from.x, records[index[k]].y - from.y};
    order[k] = {dot(d, d), index[k]};
  }
  std::sort(order, order + n);
  for (int k = 0; k < n; ++k) index[k] = order[k].second;
}

inline void observe_agents(const kernels::ObserveAgents& o, const Present& present, int k) {
  const kernels::Viewer v = kernels::viewer(o.c, o.st, k);
  if (!v.present && kernels::is_clear(o.obs, k)) return;
  const int64_t first = static_cast<int64_t>(k) * o.obs.O;
  int32_t index[kMaxNearest + simd::kLanes];
  int n = 0;
  if (v.present) {
    Candidates found;
    const float z = o.st.z[v.i], radius2 = o.p.agent_radius * o.p.agent_radius;
    const bool has_z = o.c.has_z[v.world.s];
    for (int at = 0; at < present.padded; at += simd::kLanes) {
      const simd::Float8 dx = simd::load(present.x + at) - v.frame.x,
                         dy = simd::load(present.y + at) - v.frame.y;
      const simd::Float8 d2 = dx * dx + dy * dy;
      simd::Int8 in = d2 <= radius2;
      if (has_z) in &= simd::abs(z - simd::load(present.z + at)) < kSameLevel;
      for (uint64_t lanes = simd::lanes_of(in); lanes; lanes = simd::without_first(lanes)) {
        const int j = simd::first_lane(lanes);
        if (present.agent[at + j] >= 0 && present.agent[at + j] != v.a) found.add(d2[j], at + j);
      }
    }
    n = choose(found, o.obs.O, index);
    if (o.p.slot_order == kNearestFirst)
      sort_by_distance(present.record, index, n, {v.frame.x, v.frame.y});
  }
  write_rows(o.obs.agents, first, o.obs.O, o.obs.CA, turn_of(v.frame, 0.f), present.record, index,
             n);
  write_mask(o.obs.agents_mask + first, o.obs.O, n);
}

// Road points near an ego, sorted by distance from the center of its small cell.
struct NearRoad {
  const uint16_t* index;  // counted from the scenario's first road point
  const uint8_t* step;
  int n;
};

// Those of a list on the ego's level, as far as the nearest `slots` of them can reach.
struct Leveled {
  uint16_t index[Candidates::kMax];
  uint8_t step[Candidates::kMax];

  NearRoad keep(const NearRoad& all, const RoadPoint* road, float z, int slots, int reach) {
    int n = 0, last = kNearSteps;
    for (int k = 0; k < all.n && all.step[k] <= last; ++k) {
      index[n] = all.index[k];
      step[n] = all.step[k];
      n += fabsf(z - road[all.index[k]].z) < kSameLevel;
      if (n == slots && last == kNearSteps) last = all.step[k] + reach;
    }
    return {index, step, n};
  }
};

// Squared distances of listed points from `p`; those beyond the radius are left out.
inline void measure(const NearRoad& near, int from, int to, const RoadPoint* road, int first,
                    Vec2 p, float radius2, Candidates& out) {
  typedef double Pair4 __attribute__((vector_size(32)));
  const simd::Float8 origin{p.x, p.y, p.x, p.y, p.x, p.y, p.x, p.y};
  const auto square = [](float v) { return v * v; };
  int k = from;
  for (; k + simd::kLanes <= to; k += simd::kLanes) {
    Pair4 a, b;  // x and y of four points each
    for (int j = 0; j < 4; ++j) {
      std::memcpy(&a[j], road + near.index[k + j], 8);
      std::memcpy(&b[j], road + near.index[k + j + 4], 8);
    }
    const simd::Float8 da = reinterpret_cast<simd::Float8>(a) - origin,
                       db = reinterpret_cast<simd::Float8>(b) - origin;
    const simd::Float8 qa = da * da, qb = db * db;
    const simd::Float8 d2 = __builtin_shufflevector(qa, qb, 0, 2, 4, 6, 8, 10, 12, 14) +
                            __builtin_shufflevector(qa, qb, 1, 3, 5, 7, 9, 11, 13, 15);
    if (simd::count(simd::lanes_of(d2 <= radius2)) == simd::kLanes) {
      simd::store(out.distance2 + out.n, d2);
      for (int j = 0; j < simd::kLanes; ++j) out.index[out.n + j] = first + near.index[k + j];
      out.n += simd::kLanes;
    } else {
      for (int j = 0; j < simd::kLanes; ++j)
        if (d2[j] <= radius2) out.add(d2[j], first + near.index[k + j]);
    }
  }
  for (; k < to; ++k) {
    const RoadPoint& r = road[near.index[k]];
    const float d2 = square(r.x - p.x) + square(r.y - p.y);
    if (d2 <= radius2) out.add(d2, first + near.index[k]);
  }
}

// The road points that fill the slots of an ego, as indices into Scenarios.road, or -1 where the
// lists do not serve.
//
// The list of the ego's small cell is sorted by distance from the cell's center, and the ego is
// `off` from it: true distances differ by at most that. So those of the list that are nearer than
// the last one wanted by twice that are wanted for sure, those farther by as much are not, and
// only those between are measured.
inline int choose_road(const kernels::ObserveRoad& o, const kernels::Viewer& v, int32_t* index) {
  const Scenarios& c = o.c;
  const int slots = o.obs.B;
  if (c.V == 0 || o.p.road_radius > c.near_limits[0] || slots > c.near_limits[1]) return -1;
  if (slots == 0) return 0;
  const Vec2 p{v.frame.x, v.frame.y};
  const Near cell = near_of(c, v.world.s, p);
  if (cell.lists < 0) return -1;
  const float low = c.near_level[2 * cell.lists], high = c.near_level[2 * cell.lists + 1];
  const int start = c.near_road_start[cell.lists];
  NearRoad near{c.near_road + start, c.near_step + start,
                c.near_road_start[cell.lists + 1] - start};
  const int first = c.cell_road[c.cell_start[v.world.s]];
  const float size = c.near_limits[2], radius = o.p.road_radius, z = o.st.z[v.i];
  const float off = norm({p.x - cell.center.x, p.y - cell.center.y});
  const bool level =
      !c.has_z[v.world.s] || (fabsf(z - low) < kSameLevel && fabsf(z - high) < kSameLevel);
  if (!level && !lists_all(low, high)) return -1;
  Leveled leveled;
  if (!level) {
    if (near.n > Candidates::kMax) return -1;
    near = leveled.keep(near, c.road + first, z, slots, static_cast<int>(2.f * off / size) + 2);
  }
  const auto count_up_to = [&](int last) {  // entries of at most so many steps
    return last < 0 ? 0
           : last >= kNearSteps - 1
               ? near.n
               : static_cast<int>(std::upper_bound(near.step, near.step + near.n, last) -
                                  near.step);
  };
  // Below this many steps an entry is nearer than the distance for sure; above the other it is not.
  const auto surely = [&](float distance) { return static_cast<int>(floorf(distance / size)) - 2; };
  const auto maybe = [&](float distance) { return static_cast<int>(floorf(distance / size)) + 1; };
  const bool more = near.n > slots;
  const float last = more ? near.step[slots - 1] * size : 0.f;
  int n = std::min({near.n, slots, count_up_to(surely(radius - off))});
  if (o.p.slot_order != kBounded && more) n = std::min(n, count_up_to(surely(last - 2.f * off)));
  for (int k = 0; k < n; ++k) index[k] = first + near.index[k];
  if (o.p.slot_order == kBounded) return n;
  const int end =
      count_up_to(maybe(more ? fminf(last + size + 2.f * off, radius + off) : radius + off));
  if (end - n > Candidates::kMax) return -1;
  Candidates between;
  measure(near, n, end, c.road + first, first, p, radius * radius, between);
  return n + choose(between, slots - n, index + n);
}

inline void observe_road(const kernels::ObserveRoad& o, int k) {
  const kernels::Viewer v = kernels::viewer(o.c, o.st, k);
  if (!v.present && kernels::is_clear(o.obs, k)) return;
  int32_t index[kMaxNearest + simd::kLanes];
  const int n = v.present ? choose_road(o, v, index) : 0;
  if (n < 0) return o(k);
  if (o.p.slot_order == kNearestFirst) sort_by_distance(o.c.road, index, n, {v.frame.x, v.frame.y});
  const int64_t first = static_cast<int64_t>(k) * o.obs.B;
  write_rows(o.obs.road, first, o.obs.B, o.obs.CR, turn_of(v.frame, v.present ? o.st.z[v.i] : 0.f),
             o.c.road, index, n);
  write_mask(o.obs.road_mask + first, o.obs.B, n);
}

}  // namespace alpagym::cpu
