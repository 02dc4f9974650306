// Making the lists of near.h: once a map, on the host.
#pragma once
#include <algorithm>
#include <vector>

#include "../lanes.h"
#include "../near.h"

namespace alpagym::cpu {

// What is near one small cell.
struct NearLists {
  static constexpr int kMaxRoad = 1 << 16, kMaxEdge = 64;

  int roads = 0, lanes = 0, edges = 0;  // entries
  float low = INFINITY, high = -INFINITY;
  uint16_t road[kMaxRoad];
  uint8_t step[kMaxRoad];
  uint16_t lane[kMaxRoad], edge[kMaxEdge];
};

// Lists of the small cells of one scenario, one after the other in the same memory.
class NearMaker {
 public:
  static constexpr float kBesideLanes = 4.f;  // cells farther from every lane need no lists [m]

  NearMaker(const Scenarios& c, int s)
      : c_(c),
        s_(s),
        grid_(grid_of(c, s)),
        radius_(c.near_limits[0]),
        slots_(static_cast<int>(c.near_limits[1])),
        step_(c.near_limits[2]),
        half_(0.25f * grid_.cell),
        diagonal_(half_ * sqrtf(2.f)),
        first_road_(c.cell_road[grid_.first]),
        first_edge_(c.cell_edge[grid_.first]),
        marked_(cells()) {
    const int last = grid_.first + grid_.columns * grid_.rows;
    if (c.cell_road[last] - first_road_ > kIndices || c.cell_edge[last] - first_edge_ > kIndices)
      return;
    for (int k = first_road_; k < c.cell_road[last]; ++k)
      if (c.road[k].type == kLaneType) mark(c.road[k]);
  }

  int cells() const { return 4 * grid_.columns * grid_.rows; }

  // Whether small cell n has lists: those beside a lane. On a map too large for 16 bits none has.
  bool wanted(int n) const { return marked_[n]; }

  // The lists of small cell n of the scenario.
  void make(int n, NearLists& out) {
    out.roads = out.lanes = out.edges = 0;
    out.low = INFINITY;
    out.high = -INFINITY;
    const int columns = 2 * grid_.columns;
    const Vec2 center{grid_.x + (n % columns + 0.5f) * 2.f * half_,
                      grid_.y + (n / columns + 0.5f) * 2.f * half_};
    list_lanes(center, out);
    list_road(center, out);
    list_edges(center, out);
  }

 private:
  template <class Visit>
  void for_cells(Vec2 center, float reach, Visit&& visit) const {
    const float x = center.x - grid_.x, y = center.y - grid_.y;
    const int x0 = cell_index(x - reach, grid_.cell, grid_.columns),
              x1 = cell_index(x + reach, grid_.cell, grid_.columns);
    const int y0 = cell_index(y - reach, grid_.cell, grid_.rows),
              y1 = cell_index(y + reach, grid_.cell, grid_.rows);
    for (int row = y0; row <= y1; ++row)
      visit(grid_.first + row * grid_.columns + x0, grid_.first + row * grid_.columns + x1 + 1);
  }

  // The small cells in a box around a piece of lane.
  void mark(const RoadPoint& r) {
    const float x = fabsf(r.dx) * r.half_length + kBesideLanes,
                y = fabsf(r.dy) * r.half_length + kBesideLanes;
    const int columns = 2 * grid_.columns, rows = 2 * grid_.rows;
    const int x0 = cell_index(r.x - x - grid_.x, 2.f * half_, columns),
              x1 = cell_index(r.x + x - grid_.x, 2.f * half_, columns);
    const int y0 = cell_index(r.y - y - grid_.y, 2.f * half_, rows),
              y1 = cell_index(r.y + y - grid_.y, 2.f * half_, rows);
    for (int row = y0; row <= y1; ++row)
      for (int column = x0; column <= x1; ++column) marked_[row * columns + column] = true;
  }

  // All lane pieces within reach of a point of the cell.
  void list_lanes(Vec2 center, NearLists& out) const {
    for_cells(center, kLaneReach + kHalfPiece + diagonal_, [&](int from, int to) {
      for (int k = c_.cell_road[from]; k < c_.cell_road[to]; ++k) {
        const RoadPoint& r = c_.road[k];
        if (r.type != kLaneType) continue;
        const Vec2 d{center.x - r.x, center.y - r.y}, direction{r.dx, r.dy};
        const float beyond = fmaxf(fabsf(dot(d, direction)) - r.half_length, 0.f);
        if (norm({cross(direction, d), beyond}) <= kLaneReach + diagonal_ + kSlack)
          out.lane[out.lanes++] = static_cast<uint16_t>(k - first_road_);
      }
    });
  }

  // Sorted by distance in steps, as many as can be among the nearest `slots` of a point of the
  // cell.
  void list_road(Vec2 center, NearLists& out) {
    int found = 0;
    int counts[kNearSteps + 1] = {};
    for_cells(center, radius_ + diagonal_, [&](int from, int to) {
      for (int k = c_.cell_road[from]; k < c_.cell_road[to]; ++k) {
        const RoadPoint& r = c_.road[k];
        const float distance = norm({r.x - center.x, r.y - center.y});
        if (distance > radius_ + diagonal_ + kSlack || found == NearLists::kMaxRoad) continue;
        index_[found] = static_cast<uint16_t>(k - first_road_);
        const int step = std::min(static_cast<int>(distance / step_), kNearSteps - 1);
        steps_[found++] = static_cast<uint8_t>(step);
        ++counts[step + 1];
        out.low = fminf(out.low, r.z);
        out.high = fmaxf(out.high, r.z);
      }
    });
    if (!found) out.low = out.high = 0.f;
    for (int k = 0; k < kNearSteps; ++k) counts[k + 1] += counts[k];
    int last = kNearSteps - 1;
    if (found > slots_ && !(c_.has_z[s_] && lists_all(out.low, out.high))) {
      last = 0;
      while (counts[last + 1] < slots_) ++last;
      last = std::min(last + static_cast<int>(ceilf(2.f * diagonal_ / step_)) + 2, kNearSteps - 1);
    }
    out.roads = counts[last + 1];
    for (int k = 0; k < found; ++k) {
      if (steps_[k] > last) continue;
      const int at = counts[steps_[k]]++;
      out.road[at] = index_[k];
      out.step[at] = steps_[k];
    }
  }

  // Every segment that is nearest to some point of the cell: not farther from its center than the
  // nearest by more than the cell's diagonal.
  void list_edges(Vec2 center, NearLists& out) const {
    if (c_.cell_edge[grid_.first] == c_.cell_edge[grid_.first + grid_.columns * grid_.rows]) return;
    float nearest = INFINITY, reach = grid_.cell;
    const float widest = grid_.cell * static_cast<float>(std::max(grid_.columns, grid_.rows) + 1);
    while (nearest > reach && reach < 2.f * widest) {
      reach *= 2.f;
      each_edge(center, reach, [&](int, float distance) { nearest = fminf(nearest, distance); });
    }
    const float limit = nearest + 2.f * diagonal_ + kSlack;
    bool fits = true;
    each_edge(center, limit, [&](int k, float distance) {
      if (distance > limit || listed(out, k)) return;
      if (out.edges == NearLists::kMaxEdge)
        fits = false;
      else
        out.edge[out.edges++] = static_cast<uint16_t>(k - first_edge_);
    });
    if (!fits) out.edges = 0;
  }

  template <class Visit>
  void each_edge(Vec2 center, float reach, Visit&& visit) const {
    for_cells(center, reach, [&](int from, int to) {
      for (int k = c_.cell_edge[from]; k < c_.cell_edge[to]; ++k) {
        const EdgeSegment& e = c_.edge[k];
        const Vec2 a{e.x0, e.y0}, ab{e.x1 - e.x0, e.y1 - e.y0}, ap = center - a;
        const float t = fminf(fmaxf(dot(ap, ab) / fmaxf(dot(ab, ab), 1e-12f), 0.f), 1.f);
        visit(k, norm(ap - t * ab));
      }
    });
  }

  // Segments are repeated in every grid cell that they touch.
  bool listed(const NearLists& out, int k) const {
    const EdgeSegment& e = c_.edge[k];
    for (int n = 0; n < out.edges; ++n) {
      const EdgeSegment& o = c_.edge[first_edge_ + out.edge[n]];
      if (o.x0 == e.x0 && o.y0 == e.y0 && o.x1 == e.x1 && o.y1 == e.y1 && o.z == e.z) return true;
    }
    return false;
  }

  static constexpr int kIndices = 1 << 16;  // what 16 bits can tell apart
  static constexpr float kSlack = 0.01f;    // for rounding [m]

  const Scenarios& c_;
  int s_;
  Grid grid_;
  float radius_;
  int slots_;
  float step_, half_, diagonal_;
  int first_road_, first_edge_;
  std::vector<bool> marked_;
  uint16_t index_[NearLists::kMaxRoad];
  uint8_t steps_[NearLists::kMaxRoad];
};

}  // namespace alpagym::cpu
