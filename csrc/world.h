// Views that kernels share: which scenario a world runs, where its agents, routes and logs lie.
#pragma once
#include "box.h"
#include "params.h"
#include "polyline.h"
#include "scenarios.h"
#include "state.h"

namespace alpagym {

struct World {
  int s, first, agents;  // scenario, first agent row, number of agents (at most State.A)
};

// An index outside 0..S-1 is clamped: a wrong number in State.scenario must not reach foreign
// memory.
ALPAGYM_HD World world_of(const Scenarios& c, const State& st, int w) {
  const int given = st.scenario[w];
  const int s = given < 0 ? 0 : given >= c.S ? c.S - 1 : given;
  const int agents = c.agent_start[s + 1] - c.agent_start[s];
  return {s, c.agent_start[s], agents < st.A ? agents : st.A};
}

// A route by its index in Scenarios; an agent's own has its row.
ALPAGYM_HD Route route_of(const Scenarios& c, int index) {
  return {c.route + c.route_start[index], c.route_start[index + 1] - c.route_start[index],
          c.pace + c.route_start[index]};
}

// The index of the route that agent a follows when State.route says `given`; its own for a wrong
// number.
ALPAGYM_HD int route_index(const Scenarios& c, World world, int a, int given) {
  const int first = c.lane_start[world.s], lanes = c.lane_start[world.s + 1] - first;
  return given > 0 && given <= lanes ? c.N + first + given - 1 : world.first + a;
}

// The frame that belongs to a world's step; it may lie beyond the record.
ALPAGYM_HD int frame_of_step(const Scenarios& c, int s, int step) {
  const int frame = c.start_frame[s] + step;
  return frame < 0 ? 0 : frame;
}

// Frames beyond the record give its last.
ALPAGYM_HD int log_cell(const Scenarios& c, int s, int frame, int a) {
  const int last = c.num_frames[s] - 1;
  return c.log_start[s] +
         (frame < last ? frame : last) * (c.agent_start[s + 1] - c.agent_start[s]) + a;
}

// Beyond the record, what follows it repeats; without any, the last state stays.
ALPAGYM_HD uint8_t light_state(const Scenarios& c, int s, int frame, int light) {
  const int recorded = c.num_frames[s], known = c.light_frames[s];
  if (frame >= known)
    frame = known > recorded ? recorded + (frame - recorded) % (known - recorded) : known - 1;
  return c
      .light_state[c.signal_start[s] + frame * (c.light_start[s + 1] - c.light_start[s]) + light];
}

// What drives a world's agents that are not egos.
ALPAGYM_HD Traffic traffic_of(const State& st, const Params& p, int w) {
  const int own = st.traffic[w];
  return static_cast<Traffic>(own >= 1 && own <= 4 ? own : p.traffic);
}

// Steps that an episode lasts at most. A log cannot be replayed beyond its end; other traffic can
// drive on.
ALPAGYM_HD int episode_steps(const Scenarios& c, const State& st, const Params& p, int w, int s) {
  const int recorded = c.num_frames[s] - 1 - c.start_frame[s];
  if (p.max_steps <= 0) return recorded;
  return traffic_of(st, p, w) == Traffic::kLog && recorded < p.max_steps ? recorded : p.max_steps;
}

constexpr uint8_t kVehicle = 1, kPedestrian = 2, kCyclist = 3;

// Whether an agent can drive by itself: not if parked, nor on foot.
ALPAGYM_HD bool drives(const Scenarios& c, int row, const Route& own) {
  return own.n >= 2 && c.type[row] != kPedestrian;
}

ALPAGYM_HD Pose pose_of(const State& st, int i) { return {st.x[i], st.y[i], st.yaw[i]}; }
ALPAGYM_HD Pose prev_pose_of(const State& st, int i) {
  return {st.prev_x[i], st.prev_y[i], st.prev_yaw[i]};
}
ALPAGYM_HD Box box_of(const Scenarios& c, int agent_row, Pose p) {
  return box_at(p, c.agent[agent_row].length, c.agent[agent_row].width);
}

ALPAGYM_HD bool same_level(const Scenarios& c, int s, float z0, float z1) {
  return !c.has_z[s] || fabsf(z0 - z1) < 2.5f;
}

constexpr uint8_t kLightRed = 2, kLightYellow = 3, kLightGreen = 4, kLightFlashingRed = 5;
}  // namespace alpagym
