// What never changes while simulating: maps, logs, routes and lights of S scenarios, shared by all
// worlds that refer to them by index.
//
// S = scenarios, N = agents of all scenarios, U = routes (one of each agent, then the lane routes
// of all scenarios), L = log cells, Q = route points, M = stops, G = stretches beside another lane,
// K = lights, J = light-state cells, C = grid cells, P = road points, D = edge segments in cells,
// V = small cells (near.h; 0 without lists), F = those with lists of what is near, NP, NL, NE =
// their entries. Ragged arrays lie one scenario (or agent) after the other; "X+1" arrays hold the
// offsets.
#pragma once
#include <cstdint>

#include "device.h"
#include "hd.h"

namespace alpagym {

// Rows of float32, as one 16- or 32-byte access.
struct ALPAGYM_RECORD AgentInfo {
  static constexpr int kColumns = 4;
  float length, width, height;  // box [m]
  float rear_axle;              // distance from box center back to the rear axle [m]
};
struct ALPAGYM_RECORD LogPose {
  static constexpr int kColumns = 4;
  float x, y, yaw, speed;  // box center [m, m, rad], signed speed along yaw [m/s]
};
struct ALPAGYM_RECORD RoutePoint {
  static constexpr int kColumns = 4;
  float x, y, z, speed_limit;  // [m, m, m, m/s]
};
struct ALPAGYM_RECORD LaneBeside {
  static constexpr int kColumns = 4;
  float first, last;  // the stretch of a route along which a lane runs beside it [m]
  float shift;        // arc length on that lane's route less the one here [m]
  float lane;         // 1 + its lane route within the scenario; negative on the right
};
struct ALPAGYM_RECORD RoadPoint {
  static constexpr int kColumns = 8;
  float x, y;         // midpoint of a piece of polyline [m]
  float dx, dy;       // its unit direction
  float half_length;  // [m]
  float type;         // MapType
  float z;            // of the midpoint [m]
  float element;      // map element that it is a piece of
};
struct ALPAGYM_RECORD EdgeSegment {
  static constexpr int kColumns = 8;
  float x0, y0, x1, y1;  // directed: the drivable area is on the left [m]
  float z;               // mean height [m]
  float unused[3];
};

struct Scenarios {
  int S, N;
  Device device;

  const int64_t* key;           // [S] hash of the scenario's id, for random numbers
  const int32_t* num_frames;    // [S] frames recorded
  const int32_t* start_frame;   // [S] frame of step 0
  const int32_t* light_frames;  // [S] frames of the lights: those after the record repeat
  const bool* has_z;            // [S] whether heights are real
  const int32_t* agent_start;   // [S+1] scenario s owns agents agent_start[s]..agent_start[s+1]
  const int32_t* num_egos;      // [S] how many entries of ego_order may be policy-controlled
  const int32_t* log_start;     // [S] first log cell; cell = log_start + frame * agents + agent
  const int32_t* light_start;   // [S+1] lights of scenario s
  const int32_t* lane_start;    // [S+1] lane routes of scenario s, as routes N + lane_start[s]...
  const int32_t*
      signal_start;  // [S] first light-state cell; cell = signal_start + frame * lights + light

  const AgentInfo* agent;       // [N, 4]
  const uint8_t* type;          // [N] AgentType
  const int32_t* id_rank;       // [N] place of its id among those of the scenario's agents
  const int32_t* ego_order;     // [N] agent indices of the scenario, the ego first
  const float* log_length;      // [N] route arc length at the last logged position [m]
  const int32_t* route_start;   // [U+1] points of route u; agent n's own is route n
  const int32_t* stop_start;    // [U+1] its stops
  const int32_t* beside_start;  // [U+1] its stretches beside other lanes
  const int32_t* next_route;    // [U] lane route of the scenario that goes on beyond it, or -1
  const float* next_shift;      // [U] arc length there less the one here [m]

  const LogPose* log;          // [L, 4]
  const float* log_z;          // [L] [m]
  const bool* log_valid;       // [L]
  const RoutePoint* route;     // [Q, 4] one every kRouteSpacing of arc length
  const float* pace;           // [Q] speed that the limit and the bends here and ahead allow [m/s]
  const LaneBeside* beside;    // [G, 4]
  const float* stop_s;         // [M] arc length of a stop line on the agent's route [m]
  const int32_t* stop_light;   // [M] index of its light within the scenario, -1 for a stop sign, -2
                               // for a yield line
  const float* light_xy;       // [K, 2] stop points [m]
  const uint8_t* light_state;  // [J] LightState

  const float* grid;          // [S, 4] x and y of the grid's corner [m], cell size [m], columns
  const int32_t* grid_rows;   // [S]
  const int32_t* cell_start;  // [S] first cell of the scenario's grid
  const int32_t* cell_road;   // [C+1] road points whose midpoint lies in a cell
  const int32_t* cell_edge;   // [C+1] edge segments that touch a cell
  const RoadPoint* road;      // [P, 8] sorted by cell
  const EdgeSegment* edge;    // [D, 8] sorted by cell, repeated in every cell they touch

  int V;
  const float* near_limits;        // [3] radius [m] and number of road points that the lists serve,
                                   // and the step in which they tell distances [m]
  const int32_t* near_cell;        // [V] the lists of a small cell, -1 for none
  const float* near_level;         // [F, 2] lowest and highest of the road points listed [m]
  const int32_t* near_road_start;  // [F+1] road points near a small cell
  const int32_t* near_lane_start;  // [F+1] its lane pieces
  const int32_t* near_edge_start;  // [F+1] its edge segments
  const uint16_t* near_road;       // [NP] by distance from its center, counted from the scenario's
                                   // first road point
  const uint8_t* near_step;        // [NP] that distance, in steps, rounded down
  const uint16_t* near_lane;       // [NL] all that may be within kLaneReach
  const uint16_t* near_edge;  // [NE] all that may be nearest, counted from the scenario's first

  static constexpr auto& python_name = "Scenarios";
  template <class F>
  static constexpr void fields(F&& f) {
    f("key", &Scenarios::key, "S");
    f("num_frames", &Scenarios::num_frames, "S");
    f("start_frame", &Scenarios::start_frame, "S");
    f("light_frames", &Scenarios::light_frames, "S");
    f("has_z", &Scenarios::has_z, "S");
    f("agent_start", &Scenarios::agent_start, "S+1");
    f("num_egos", &Scenarios::num_egos, "S");
    f("log_start", &Scenarios::log_start, "S");
    f("light_start", &Scenarios::light_start, "S+1");
    f("lane_start", &Scenarios::lane_start, "S+1");
    f("signal_start", &Scenarios::signal_start, "S");
    f("agent", &Scenarios::agent, "N", "4");
    f("type", &Scenarios::type, "N");
    f("id_rank", &Scenarios::id_rank, "N");
    f("ego_order", &Scenarios::ego_order, "N");
    f("log_length", &Scenarios::log_length, "N");
    f("route_start", &Scenarios::route_start, "U+1");
    f("stop_start", &Scenarios::stop_start, "U+1");
    f("beside_start", &Scenarios::beside_start, "U+1");
    f("next_route", &Scenarios::next_route, "U");
    f("next_shift", &Scenarios::next_shift, "U");
    f("log", &Scenarios::log, "L", "4");
    f("log_z", &Scenarios::log_z, "L");
    f("log_valid", &Scenarios::log_valid, "L");
    f("route", &Scenarios::route, "Q", "4");
    f("pace", &Scenarios::pace, "Q");
    f("beside", &Scenarios::beside, "G", "4");
    f("stop_s", &Scenarios::stop_s, "M");
    f("stop_light", &Scenarios::stop_light, "M");
    f("light_xy", &Scenarios::light_xy, "K", "2");
    f("light_state", &Scenarios::light_state, "J");
    f("grid", &Scenarios::grid, "S", "4");
    f("grid_rows", &Scenarios::grid_rows, "S");
    f("cell_start", &Scenarios::cell_start, "S");
    f("cell_road", &Scenarios::cell_road, "C+1");
    f("cell_edge", &Scenarios::cell_edge, "C+1");
    f("road", &Scenarios::road, "P", "8");
    f("edge", &Scenarios::edge, "D", "8");
    f("near_limits", &Scenarios::near_limits, "3");
    f("near_cell", &Scenarios::near_cell, "V");
    f("near_level", &Scenarios::near_level, "F", "2");
    f("near_road_start", &Scenarios::near_road_start, "F+1");
    f("near_lane_start", &Scenarios::near_lane_start, "F+1");
    f("near_edge_start", &Scenarios::near_edge_start, "F+1");
    f("near_road", &Scenarios::near_road, "NP");
    f("near_step", &Scenarios::near_step, "NP");
    f("near_lane", &Scenarios::near_lane, "NL");
    f("near_edge", &Scenarios::near_edge, "NE");
  }
  template <class Size>
  void bind(Size&& size) {
    S = size("S");
    N = size("N");
    V = size("V");
  }
};

}  // namespace alpagym
