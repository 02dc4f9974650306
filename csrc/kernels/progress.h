// Stage: progress. Where agents are on their routes.
#pragma once
#include "../traffic.h"

namespace alpagym::kernels {

// One thread per agent: those who need it, that is egos and IDM traffic. Heights follow the route,
// since vehicle models are planar.
struct Progress {
  Scenarios c;
  State st;
  Params p;
  static constexpr bool kOnlyMoving = true;
  ALPAGYM_HD int size() const { return st.W * st.A; }

  ALPAGYM_HD void operator()(int i) const {
    const int w = i / st.A, a = i % st.A;
    if (!st.valid[i] || st.still[w]) return;
    const Controller controller = static_cast<Controller>(st.controller[i]);
    if (controller == Controller::kLog && st.slot[i] < 0) return;
    const World world = world_of(c, st, w);
    if (a >= world.agents) return;
    const int index = route_index(c, world, a, st.route[i]);
    const Route route = route_of(c, index);
    if (route.n < 2) return;
    if (st.speed[i] > 3.f)
      st.stood[i] = 0.f;
    else if (st.stood[i] > 0.f || st.speed[i] < 0.5f)
      st.stood[i] += p.dt;
    st.route_s[i] = project_near(route, {st.x[i], st.y[i]}, st.route_s[i]).s;
    if (controller != Controller::kLog) st.z[i] = sample(route, st.route_s[i]).z;
    serve_stop(i, world.first + a, index);
  }

  // A stop no longer holds once the bumper is past it, a stop sign once the agent has stood before
  // it.
  ALPAGYM_HD void serve_stop(int i, int row, int route) const {
    const int m = c.stop_start[route] + st.stops_served[i];
    if (m >= c.stop_start[route + 1] || st.stops_served[i] == 255) return;
    const float gap = c.stop_s[m] - st.route_s[i] - 0.5f * c.agent[row].length;
    const bool stands = c.stop_light[m] == kStopSign && st.speed[i] < 0.5f && gap < 4.f;
    if (stands) st.stood[i] = p.dt;  // from here on others count its time at the sign
    if (gap < -1.f || stands) st.stops_served[i] += 1;
  }
};

}  // namespace alpagym::kernels
