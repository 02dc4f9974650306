// The pipeline for a block of worlds: every stage of a few worlds, then the next few, so that what
// a stage wrote is still near when the next one reads it. Stages with a tuned form take it.
#pragma once
#include <algorithm>

#include "../pipeline.h"
#include "tuned.h"

namespace alpagym::cpu {

// Runs the bodies' indices that belong to some of `num_worlds` worlds.
struct Block {
  Worlds worlds;
  int num_worlds;
  Form form;

  template <class Body>
  void operator()(const Body& body) const {
    const int each = body.size() / num_worlds;
    for (int w = worlds.first; w < worlds.first + worlds.count; ++w) {
      if constexpr (requires { Body::kOnlyMoving; })
        if (body.st.still[w]) continue;
      for (int i = w * each; i < (w + 1) * each; ++i) body(i);
    }
  }
  void operator()(const kernels::Remember& body) const {
    if (form == Form::kPlain) return operator()<kernels::Remember>(body);
    for (int w = worlds.first; w < worlds.first + worlds.count; ++w) remember(body.st, w);
  }
  void operator()(const kernels::Contact& body) const {
    if (form == Form::kPlain) return operator()<kernels::Contact>(body);
    contact(form, body, worlds);
  }
  void operator()(const kernels::ObserveAgents& body) const {
    if (form == Form::kPlain) return operator()<kernels::ObserveAgents>(body);
    observe_agents(form, body, worlds);
  }
  void operator()(const kernels::ObserveRoad& body) const {
    if (form == Form::kPlain) return operator()<kernels::ObserveRoad>(body);
    observe_road(form, body, worlds);
  }

  // kernels::Remember for all agents of a world at once.
  static void remember(const State& st, int w) {
    st.still[w] = st.world_done(w);
    if (st.still[w]) return;
    const int first = w * st.A, last = first + st.A;
    std::fill(st.slot + first, st.slot + last, -1);
    for (int e = st.E - 1; e >= 0; --e) {
      const int a = st.ego[w * st.E + e];
      if (a >= 0 && a < st.A) st.slot[first + a] = e;
    }
    const auto keep = [&](const auto* now, auto* before) {
      std::copy(now + first, now + last, before + first);
    };
    keep(st.x, st.prev_x);
    keep(st.y, st.prev_y);
    keep(st.yaw, st.prev_yaw);
    keep(st.speed, st.prev_speed);
    keep(st.accel, st.prev_accel);
    keep(st.curvature, st.prev_curvature);
    keep(st.route_s, st.prev_route_s);
    keep(st.route, st.prev_route);
    keep(st.valid, st.prev_valid);
    keep(st.stops_served, st.prev_stops_served);
  }
};

}  // namespace alpagym::cpu
