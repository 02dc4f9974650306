// Routes: polylines with a point at every kRouteSpacing of arc length.
#pragma once
#include <cstdint>

#include "scenarios.h"
#include "se2.h"

namespace alpagym {

constexpr float kRouteSpacing = 2.f;  // [m]

struct Route {
  const RoutePoint* point;
  int n;
  const float* pace = nullptr;  // [n] speed that the limit and the bends here and ahead allow [m/s]
  ALPAGYM_HD float length() const { return (n - 1) * kRouteSpacing; }
};

struct RouteSample {
  Vec2 position, direction;
  float z, speed_limit;
};

// The route point at or before arc length s, which is clamped to the route; NaN gives the first.
ALPAGYM_HD int point_before(const Route& r, float s) {
  return static_cast<int>(fminf(fmaxf(s, 0.f), r.length()) / kRouteSpacing);
}

// A point at arc length s, which is clamped to the route. Needs n >= 2.
ALPAGYM_HD RouteSample sample(const Route& r, float s) {
  const float u = fminf(fmaxf(s / kRouteSpacing, 0.f), static_cast<float>(r.n - 1));
  const int i = u < static_cast<float>(r.n - 2) ? static_cast<int>(u) : r.n - 2;
  const float t = u - static_cast<float>(i);
  const RoutePoint a = r.point[i], b = r.point[i + 1];
  const Vec2 d{b.x - a.x, b.y - a.y};
  const float inverse = 1.f / fmaxf(norm(d), 1e-6f);
  return {{a.x + t * d.x, a.y + t * d.y},
          {d.x * inverse, d.y * inverse},
          a.z + t * (b.z - a.z),
          a.speed_limit};
}

// The speed at arc length s that the limit and the bends here and ahead allow.
ALPAGYM_HD float pace_at(const Route& r, float s) {
  const float u = fminf(fmaxf(s / kRouteSpacing, 0.f), static_cast<float>(r.n - 1));
  const int i = u < static_cast<float>(r.n - 2) ? static_cast<int>(u) : r.n - 2;
  return r.pace[i] + (u - static_cast<float>(i)) * (r.pace[i + 1] - r.pace[i]);
}

struct Projection {
  float s;          // arc length of the foot point [m]
  float d;          // signed distance, left positive [m]
  float distance2;  // squared distance to the foot point [m^2]
  Vec2 direction;   // of the route there
};

// The nearest point of the route to `p` among segments first..last (clamped). Needs n >= 2.
ALPAGYM_HD Projection project(const Route& r, Vec2 p, int first, int last) {
  first = first < 0 ? 0 : first > r.n - 2 ? r.n - 2 : first;
  last = last > r.n - 2 ? r.n - 2 : last < first ? first : last;
  float nearest2 = INFINITY, along = 0.f;
  int segment = -1;
  for (int i = first; i <= last; ++i) {
    const Vec2 a{r.point[i].x, r.point[i].y}, ab{r.point[i + 1].x - a.x, r.point[i + 1].y - a.y};
    const Vec2 ap = p - a;
    const float t = fminf(fmaxf(dot(ap, ab) / fmaxf(dot(ab, ab), 1e-12f), 0.f), 1.f);
    const Vec2 foot = ap - t * ab;
    const float distance2 = dot(foot, foot);
    const bool nearer = distance2 < nearest2;
    nearest2 = nearer ? distance2 : nearest2;
    along = nearer ? t : along;
    segment = nearer ? i : segment;
  }
  if (segment < 0) return {0.f, 0.f, INFINITY, {1.f, 0.f}};
  const Vec2 a{r.point[segment].x, r.point[segment].y};
  const Vec2 ab{r.point[segment + 1].x - a.x, r.point[segment + 1].y - a.y};
  const float inverse = 1.f / fmaxf(norm(ab), 1e-6f);
  return {(static_cast<float>(segment) + along) * kRouteSpacing, cross(ab, p - a) * inverse,
          nearest2, inverse * ab};
}

// Projection near the arc length reached before, so that a route which crosses itself is followed
// in order: from 10 m behind to 20 m ahead.
ALPAGYM_HD Projection project_near(const Route& r, Vec2 p, float s) {
  const int i = point_before(r, s);
  return project(r, p, i - 5, i + 10);
}

}  // namespace alpagym
