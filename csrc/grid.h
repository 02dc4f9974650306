// The uniform grid of a scenario: which edges and road points are near here.
#pragma once
#include "scenarios.h"
#include "se2.h"

namespace alpagym {

constexpr float kSameLevel = 2.5f;  // heights differ by less on one level of a road [m]

ALPAGYM_HD bool same_level(const Scenarios& c, int s, float z0, float z1) {
  return !c.has_z[s] || fabsf(z0 - z1) < kSameLevel;
}

struct Grid {
  float x, y, cell;  // corner and cell size [m]
  int columns, rows, first;
};

ALPAGYM_HD Grid grid_of(const Scenarios& c, int s) {
  const float* g = c.grid + 4 * s;
  return {g[0], g[1], g[2], static_cast<int>(g[3]), c.grid_rows[s], c.cell_start[s]};
}

// Column or row of a coordinate, clamped to the grid; NaN gives 0.
ALPAGYM_HD int cell_index(float offset, float cell, int count) {
  return static_cast<int>(fminf(fmaxf(floorf(offset / cell), 0.f), static_cast<float>(count - 1)));
}

// Signed distance from `p` to the drivable area's border: positive on the drivable side (left) of
// the nearest edge segment, +INFINITY if the scenario has no edge at this height.
//
// Searches rings of cells outward from the cell of `p`; a ring r holds nothing nearer than
// (r - 1) cells plus the way out of the first cell, so the search stops once that exceeds the best.
// Where two segments meet, both are equally near, but for rounding (0.05 mm is more); the one that
// the point lies further off decides (its side is the corner's side whether the corner is convex or
// not).
ALPAGYM_HD float signed_edge_distance(const Scenarios& c, int s, Vec2 p, float z) {
  const Grid g = grid_of(c, s);
  const int cx = cell_index(p.x - g.x, g.cell, g.columns),
            cy = cell_index(p.y - g.y, g.cell, g.rows);
  const float inside_x = fminf(fmaxf(p.x, g.x), g.x + g.cell * g.columns);
  const float inside_y = fminf(fmaxf(p.y, g.y), g.y + g.cell * g.rows);
  const float to_border =
      fminf(fminf(inside_x - (g.x + cx * g.cell), g.x + (cx + 1) * g.cell - inside_x),
            fminf(inside_y - (g.y + cy * g.cell), g.y + (cy + 1) * g.cell - inside_y));
  float best2 = INFINITY, tie = 0.f, side = 0.f;
  const int rings = g.columns > g.rows ? g.columns : g.rows;
  for (int r = 0; r < rings; ++r) {
    const float reach = (r - 1) * g.cell + to_border;
    if (r > 0 && reach > 0.f && reach * reach > best2) break;
    for (int y = cy - r; y <= cy + r; ++y) {
      if (y < 0 || y >= g.rows) continue;
      const bool full_row = y == cy - r || y == cy + r;
      for (int x = cx - r; x <= cx + r; x += full_row || r == 0 ? 1 : 2 * r) {
        if (x < 0 || x >= g.columns) continue;
        const int cell = g.first + y * g.columns + x;
        for (int k = c.cell_edge[cell]; k < c.cell_edge[cell + 1]; ++k) {
          const EdgeSegment e = c.edge[k];
          if (!same_level(c, s, z, e.z)) continue;
          const Vec2 a{e.x0, e.y0}, b{e.x1, e.y1}, ab = b - a, ap = p - a;
          const float length2 = fmaxf(dot(ab, ab), 1e-12f), t = dot(ap, ab) / length2;
          const Vec2 foot = t <= 0.f ? ap : t >= 1.f ? p - b : ap - t * ab;
          const float distance2 = dot(foot, foot);
          if (distance2 > best2 + tie) continue;
          const float off = cross(ab, ap) / sqrtf(length2);
          if (distance2 < best2 - tie || fabsf(off) > fabsf(side)) side = off;
          if (distance2 < best2) {
            best2 = distance2;
            tie = 1e-4f * sqrtf(best2);
          }
        }
      }
    }
  }
  const float distance = sqrtf(best2);
  return side < 0.f ? -distance : distance;
}

}  // namespace alpagym
