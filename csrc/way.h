// The ways of agents: boxes around stretches of route, and the places where others will be.
#pragma once
#include "polyline.h"
#include "se2.h"

namespace alpagym {

// A box in an agent's own frame that holds a stretch of route: what is far from the box is far from
// the route, at the price of one rotation.
struct Corridor {
  Frame frame;
  float x0, x1, y0, y1;

  ALPAGYM_HD bool near(Vec2 point, float margin) const {
    const Vec2 q = to_local(frame, point);
    return q.x > x0 - margin && q.x < x1 + margin && q.y > y0 - margin && q.y < y1 + margin;
  }
};

ALPAGYM_HD Corridor corridor_of(const Route& route, int first, int last, Frame frame) {
  Corridor box{frame, INFINITY, -INFINITY, INFINITY, -INFINITY};
  for (int k = first; k <= last && k < route.n; ++k) {
    const Vec2 q = to_local(frame, {route.point[k].x, route.point[k].y});
    box.x0 = fminf(box.x0, q.x);
    box.x1 = fmaxf(box.x1, q.x);
    box.y0 = fminf(box.y0, q.y);
    box.y1 = fmaxf(box.y1, q.y);
  }
  return box;
}

// Sine of the angle by which a route turns at point k, left positive.
ALPAGYM_HD float bend_at(const Route& r, int k) {
  if (k < 1 || k > r.n - 2) return 0.f;
  const RoutePoint p = r.point[k - 1], q = r.point[k], e = r.point[k + 1];
  return ((q.x - p.x) * (e.y - q.y) - (q.y - p.y) * (e.x - q.x)) / (kRouteSpacing * kRouteSpacing);
}

// Where an agent will be, at places kRouteSpacing apart: the points of its route if it follows one,
// else straight on. Points stay where they are as the agent drives, and so does what follows from
// them.
struct Way {
  Route route;
  float s;
  Frame frame;
  bool follows;
  int first;  // point nearest to the agent, 0 if it follows no route

  ALPAGYM_HD int count() const { return follows ? route.n - first : 1 << 20; }
  // How far the agent must go to place k.
  ALPAGYM_HD float at(int k) const {
    return follows ? fmaxf((first + k) * kRouteSpacing - s, 0.f) : k * kRouteSpacing;
  }
  ALPAGYM_HD Vec2 position(int k) const {
    if (follows) return {route.point[first + k].x, route.point[first + k].y};
    const float way = k * kRouteSpacing;
    return {frame.x + way * frame.cos, frame.y + way * frame.sin};
  }
  ALPAGYM_HD Vec2 direction(int k) const {
    if (!follows) return {frame.cos, frame.sin};
    const int m = first + k < route.n - 1 ? first + k : route.n - 2;
    const RoutePoint a = route.point[m], b = route.point[m + 1];
    const Vec2 d{b.x - a.x, b.y - a.y};
    return 1.f / fmaxf(norm(d), 1e-6f) * d;
  }
  ALPAGYM_HD float bend(int k) const { return follows ? bend_at(route, first + k) : 0.f; }
};

}  // namespace alpagym
