// What lies near a small cell of a scenario's map, listed once for all worlds: road points by
// distance from the cell's center, lane pieces and road edges. Lists save a CPU the search; where
// there are none, or they do not serve, the plain kernels search the grid.
//
// A small cell is a quarter of a grid cell. Its point of reference is its center; no point of it is
// farther from the center than half its diagonal.
#pragma once
#include <cmath>

#include "grid.h"

namespace alpagym {

constexpr int kNearSteps = 256;  // distances of road points from a center are told in so many steps

struct Near {
  int lists;        // index of its lists, -1 where there are none
  Vec2 center;      // [m]
  float half_size;  // half the side of the cell [m]
};

// Where the road points near a cell differ in height by more, its list goes as far as the radius:
// which of them are on the level of an agent is not known before. Otherwise it may end sooner.
ALPAGYM_HD bool lists_all(float low, float high) { return high - low > 1.f; }

// The small cell of a point; without lists outside the grid.
ALPAGYM_HD Near near_of(const Scenarios& c, int s, Vec2 p) {
  const Grid g = grid_of(c, s);
  const float side = 0.5f * g.cell;
  const float column = floorf((p.x - g.x) / side), row = floorf((p.y - g.y) / side);
  const int columns = 2 * g.columns, rows = 2 * g.rows;
  if (!(column >= 0.f && row >= 0.f && column < columns && row < rows))
    return {-1, {0.f, 0.f}, 0.f};
  const int x = static_cast<int>(column), y = static_cast<int>(row);
  return {c.V ? c.near_cell[4 * g.first + y * columns + x] : -1,
          {g.x + (x + 0.5f) * side, g.y + (y + 0.5f) * side},
          0.5f * side};
}

}  // namespace alpagym
