// Which lane an agent is on, and whether it drives against the lanes under it.
#pragma once
#include "world.h"

namespace alpagym {

constexpr float kLaneReach = 6.f;        // lanes farther away are nobody's own [m]
constexpr float kLaneHalfWidth = 1.85f;  // of a lane whose borders are unknown [m] (AlpaSim's)
constexpr float kTurnCost = 2.f;         // a lane that runs across counts as this much farther [m]
constexpr float kHalfPiece = 5.01f;      // road points stand for pieces at most twice as long [m]

struct LaneFix {
  int element;      // map element of the own lane, -1 if none is within kLaneReach
  float offset;     // signed distance from its center line, left positive [m]
  Vec2 direction;   // its direction there
  float alignment;  // of the lane under the agent that runs most nearly its way: cosine, 2 for none
};

// The own lane is the nearest one, where a lane counts as kTurnCost * (1 - cosine of the angle to
// the heading) farther than it is: at a crossing it is the one that goes the agent's way, and who
// drives on the wrong side is assigned the right one. Road points come in any order.
struct LaneSearch {
  LaneFix fix{-1, 0.f, {1.f, 0.f}, 2.f};
  float best = INFINITY;  // its cost
  int best_n = -1;        // its road point

  ALPAGYM_HD void visit(const Scenarios& c, int s, int n, Vec2 p, Vec2 heading, float z) {
    const RoadPoint r = c.road[n];
    if (r.type != kLaneType || !same_level(c, s, z, r.z)) return;
    const Vec2 d{p.x - r.x, p.y - r.y}, direction{r.dx, r.dy};
    const float along = dot(d, direction), off = cross(direction, d);
    const float beyond = fmaxf(fabsf(along) - r.half_length, 0.f);
    const float distance = sqrtf(off * off + beyond * beyond);
    if (distance > kLaneReach) return;
    const float cosine = dot(heading, direction);
    if (distance <= kLaneHalfWidth)
      fix.alignment = fix.alignment > 1.5f ? cosine : fmaxf(fix.alignment, cosine);
    const float cost = distance + kTurnCost * (1.f - cosine);
    if (cost < best || (cost == best && n < best_n)) {
      best = cost;
      best_n = n;
      fix.element = static_cast<int>(r.element);
      fix.offset = off < 0.f ? -distance : distance;
      fix.direction = direction;
    }
  }
};

// visit(first, end) for every row of cells that may hold a lane of a point: road points that lie
// one after the other.
template <class Visit>
ALPAGYM_HD void for_lane_points(const Scenarios& c, int s, Vec2 p, Visit&& visit) {
  const Grid g = grid_of(c, s);
  const float reach = kLaneReach + kHalfPiece, x = p.x - g.x, y = p.y - g.y;
  const int x0 = cell_index(x - reach, g.cell, g.columns),
            x1 = cell_index(x + reach, g.cell, g.columns);
  const int y0 = cell_index(y - reach, g.cell, g.rows), y1 = cell_index(y + reach, g.cell, g.rows);
  for (int row = y0; row <= y1; ++row) {
    const int line = g.first + row * g.columns;
    visit(c.cell_road[line + x0], c.cell_road[line + x1 + 1]);
  }
}

ALPAGYM_HD LaneFix lane_at(const Scenarios& c, int s, Vec2 p, Vec2 heading, float z) {
  LaneSearch search;
  for_lane_points(c, s, p, [&](int first, int end) {
    for (int n = first; n < end; ++n) search.visit(c, s, n, p, heading, z);
  });
  return search.fix;
}

}  // namespace alpagym
