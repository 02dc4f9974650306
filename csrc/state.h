// Everything that changes from step to step, as a struct of arrays.
// W = worlds, A = agents per world (capacity), E = egos per world (1, or A in multi-agent mode),
// M = numbers of an action that goes on (0 where every step has its own). Pointers are borrowed
// from contiguous torch tensors; element (w, a) of a [W, A] field is at w * A
// + a.
#pragma once
#include <cstdint>

#include "device.h"
#include "hd.h"

namespace alpagym {

enum class Controller : uint8_t { kPolicy = 0, kLog = 1, kIdm = 2, kConstantVelocity = 3 };

// What the agents that are not egos do: a controller, or the log until it no longer fits, then IDM.
enum class Traffic : uint8_t { kLog = 1, kIdm = 2, kConstantVelocity = 3, kLogThenIdm = 4 };

struct State {
  int W, A, E, M;
  Device device;

  float* x;               // [W, A] box center, world frame [m]
  float* y;               // [W, A]
  float* z;               // [W, A]
  float* yaw;             // [W, A] counter-clockwise from +x, in [-pi, pi) [rad]
  float* speed;           // [W, A] along yaw, negative in reverse [m/s]
  float* accel;           // [W, A] longitudinal acceleration of the last step [m/s^2]
  float* curvature;       // [W, A] path curvature of the last step, left positive [1/m]
  float* route_s;         // [W, A] arc length reached on the route followed [m]
  int32_t* route;         // [W, A] route followed: 0 its own, k > 0 lane route k - 1
  float* change_wait;     // [W, A] time until the next lane change may begin [s]
  float* stood;           // [W, A] time since it first stood, or stood at its sign [s]
  bool* valid;            // [W, A] whether the slot holds an agent now
  uint8_t* controller;    // [W, A] Controller
  uint8_t* stops_served;  // [W, A] stops of the route that no longer hold the agent

  float* prev_x;      // [W, A] the same one step earlier: what began this step is judged by these
  float* prev_y;      // [W, A]
  float* prev_yaw;    // [W, A]
  float* prev_speed;  // [W, A]
  float* prev_accel;  // [W, A]
  float* prev_curvature;       // [W, A]
  float* prev_route_s;         // [W, A]
  int32_t* prev_route;         // [W, A]
  bool* prev_valid;            // [W, A]
  int32_t* slot;               // [W, A] of this step: the ego slot that drives the agent, or -1
  uint8_t* prev_stops_served;  // [W, A]

  int32_t* ego;      // [W, E] agent index of each ego, -1 for none
  bool* terminated;  // [W, E] the task ended for this ego; stays until reset
  bool* truncated;   // [W, E] time ran out before; stays until reset
  bool* offroad;     // [W, E] some corner of the box is off-road now

  // What the vehicle that follows plans (bicycle.h) has besides a pose and a speed.
  float* lateral_speed;   // [W, E] of its center of mass, left positive [m/s]
  float* yaw_rate;        // [W, E] [rad/s]
  float* steering_angle;  // [W, E] of the front wheels, behind what is asked [rad]
  float* lagged_accel;    // [W, E] longitudinal acceleration, behind what is asked [m/s^2]
  float* ongoing;  // [W, E, M] the action that goes on; a plan's waypoints in the world frame

  int32_t* scenario;  // [W] index into Scenarios
  bool* still;        // [W] of this step: no ego is left to drive, nothing moves
  int32_t* step;      // [W] steps since reset
  int64_t* seed;      // [W] what random numbers are drawn from, with the scenario's key
  int32_t* member;    // [W] index within a group of forks
  uint8_t* traffic;   // [W] Traffic; 0 for that of Params

  static constexpr auto& python_name = "State";
  template <class F>
  ALPAGYM_HD static constexpr void fields(F&& f) {
    f("x", &State::x, "W", "A");
    f("y", &State::y, "W", "A");
    f("z", &State::z, "W", "A");
    f("yaw", &State::yaw, "W", "A");
    f("speed", &State::speed, "W", "A");
    f("accel", &State::accel, "W", "A");
    f("curvature", &State::curvature, "W", "A");
    f("route_s", &State::route_s, "W", "A");
    f("route", &State::route, "W", "A");
    f("change_wait", &State::change_wait, "W", "A");
    f("stood", &State::stood, "W", "A");
    f("valid", &State::valid, "W", "A");
    f("controller", &State::controller, "W", "A");
    f("stops_served", &State::stops_served, "W", "A");
    f("prev_x", &State::prev_x, "W", "A");
    f("prev_y", &State::prev_y, "W", "A");
    f("prev_yaw", &State::prev_yaw, "W", "A");
    f("prev_speed", &State::prev_speed, "W", "A");
    f("prev_accel", &State::prev_accel, "W", "A");
    f("prev_curvature", &State::prev_curvature, "W", "A");
    f("prev_route_s", &State::prev_route_s, "W", "A");
    f("prev_route", &State::prev_route, "W", "A");
    f("prev_valid", &State::prev_valid, "W", "A");
    f("slot", &State::slot, "W", "A");
    f("prev_stops_served", &State::prev_stops_served, "W", "A");
    f("ego", &State::ego, "W", "E");
    f("terminated", &State::terminated, "W", "E");
    f("truncated", &State::truncated, "W", "E");
    f("offroad", &State::offroad, "W", "E");
    f("lateral_speed", &State::lateral_speed, "W", "E");
    f("yaw_rate", &State::yaw_rate, "W", "E");
    f("steering_angle", &State::steering_angle, "W", "E");
    f("lagged_accel", &State::lagged_accel, "W", "E");
    f("ongoing", &State::ongoing, "W", "E", "M");
    f("scenario", &State::scenario, "W");
    f("still", &State::still, "W");
    f("step", &State::step, "W");
    f("seed", &State::seed, "W");
    f("member", &State::member, "W");
    f("traffic", &State::traffic, "W");
  }
  template <class Size>
  void bind(Size&& size) {
    W = size("W");
    A = size("A");
    E = size("E");
    M = size("M");
  }

  // The ego slot that drives agent a of world w, or -1.
  ALPAGYM_HD int ego_slot(int w, int a) const {
    for (int e = 0; e < E; ++e)
      if (ego[w * E + e] == a) return e;
    return -1;
  }
  ALPAGYM_HD bool ego_done(int w, int e) const {
    return terminated[w * E + e] || truncated[w * E + e];
  }
  // A world stands still once all its egos are done; an ego slot without an agent counts as done.
  ALPAGYM_HD bool world_done(int w) const {
    for (int e = 0; e < E; ++e)
      if (ego[w * E + e] >= 0 && !ego_done(w, e)) return false;
    return true;
  }
};

}  // namespace alpagym
