// Views that kernels share: which scenario a world runs, where its agents, routes and logs lie.
#pragma once
#include "bicycle.h"
#include "box.h"
#include "grid.h"
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

// Kinds of entries in Scenarios.stop_light that are not indices of lights.
constexpr int kStopSign = -1, kYieldLine = -2;

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

// Whether some corner of a box lies beyond the nearest road edge. A box that reaches no edge is
// off-road if its center is.
ALPAGYM_HD bool is_offroad(const Scenarios& c, int s, const Box& box, float z) {
  const float center = signed_edge_distance(c, s, {box.frame.x, box.frame.y}, z);
  if (fabsf(center) > radius(box)) return center < 0.f;
  for (int n = 0; n < 4; ++n)
    if (signed_edge_distance(c, s, corner(box, n), z) < 0.f) return true;
  return false;
}

ALPAGYM_HD Pose pose_of(const State& st, int i) { return {st.x[i], st.y[i], st.yaw[i]}; }
ALPAGYM_HD Pose prev_pose_of(const State& st, int i) {
  return {st.prev_x[i], st.prev_y[i], st.prev_yaw[i]};
}

// The motion that an agent's pose one step earlier tells of, and writing that of ego slot k.
ALPAGYM_HD bicycle::Vehicle<double> motion_of(const State& st, int i, float dt) {
  const float turned = st.prev_valid[i] ? wrap_angle(st.yaw[i] - st.prev_yaw[i]) : 0.f;
  return bicycle::moving<double>(st.speed[i], 0.0, turned / dt);
}
ALPAGYM_HD void keep_motion(const State& st, int k, const bicycle::Vehicle<double>& v) {
  st.lateral_speed[k] = static_cast<float>(v.lateral_speed);
  st.yaw_rate[k] = static_cast<float>(v.yaw_rate);
  st.steering_angle[k] = static_cast<float>(v.steering_angle);
  st.lagged_accel[k] = static_cast<float>(v.accel);
}

ALPAGYM_HD Box box_of(const Scenarios& c, int agent_row, Pose p) {
  return box_at(p, c.agent[agent_row].length, c.agent[agent_row].width);
}

// Whether the heights of two boxes overlap; touching counts.
ALPAGYM_HD bool heights_overlap(const Scenarios& c, int s, float z0, float height0, float z1,
                                float height1) {
  return !c.has_z[s] || 2.f * fabsf(z0 - z1) <= height0 + height1;
}

constexpr uint8_t kLightRed = 2, kLightYellow = 3, kLightGreen = 4, kLightFlashingRed = 5;
constexpr float kLaneType = 0.f;  // MapType of a RoadPoint that is a piece of lane

}  // namespace alpagym
