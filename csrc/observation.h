// What each ego sees, in its own frame (x forward, y left), SI units, unseen slots zero.
// O = agent slots, B = road slots, H = route waypoints, I = light slots; CE, CA, CR = columns of
// ego, agents and road. Sizes and the format of rows are the tensors': fewer columns than there are
// features leave out the last ones.
#pragma once
#include <cstdint>

#include "device.h"
#include "rows.h"

namespace alpagym {

// Columns of each tensor: name them here, and nowhere by number.
enum EgoFeature : int {
  kEgoSpeed,         // [m/s]
  kEgoAccel,         // [m/s^2]
  kEgoCurvature,     // [1/m]
  kEgoLength,        // [m]
  kEgoWidth,         // [m]
  kEgoRouteOffset,   // signed distance from the route, left positive [m]
  kEgoHeadingError,  // heading relative to the route [rad]
  kEgoSpeedLimit,    // [m/s]
  kEgoGoalDistance,  // arc length left to the end of the logged path [m]
  kEgoStopDistance,  // from the front bumper to the next stop that holds now, or
                     // Params.route_horizon [m]
  kNumEgoFeatures,
};
// The first four of agents and of road are turned into the ego's frame alike.
enum AgentFeature : int {
  kAgentX,  // box center [m]
  kAgentY,
  kAgentCos,  // heading relative to the ego's
  kAgentSin,
  kAgentSpeed,   // along its heading [m/s]
  kAgentLength,  // [m]
  kAgentWidth,   // [m]
  kAgentKind,    // AgentType
  kNumAgentFeatures,
};
enum RoadFeature : int {
  kRoadX,  // midpoint [m]
  kRoadY,
  kRoadCos,  // direction
  kRoadSin,
  kRoadHalfLength,  // [m]
  kRoadKind,        // MapType
  kRoadHeight,      // above the ego [m]
  kNumRoadFeatures,
};
enum RouteFeature : int {
  kRouteX,  // waypoint ahead on the route [m]
  kRouteY,
  kRouteCos,  // direction
  kRouteSin,
  kRouteSpeedLimit,  // [m/s]
  kNumRouteFeatures,
};
enum LightFeature : int {
  kLightX,  // stop point [m]
  kLightY,
  kLightDistance,  // along the route, 0 if not on it [m]
  kLightOnRoute,
  kLightIsRed,
  kLightIsYellow,
  kLightIsGreen,
  kNumLightFeatures,
};

struct Observation {
  int W, E, O, B, H, I, CE, CA, CR;
  Device device;

  float* pose;        // [W, E, 4] x, y, z [m], yaw [rad] in the world: no feature, but what turns
                      // the road points of compact rows into the ego's frame
  float* ego;         // [W, E, CE] EgoFeature
  Rows agents;        // [W, E, O, CA] AgentFeature, the nearest
  bool* agents_mask;  // [W, E, O] whether the slot is filled
  Rows road;          // [W, E, B, CR] RoadFeature, the nearest; or [W, E, B, 1] indices into
                      // Scenarios.road
  bool* road_mask;    // [W, E, B]
  float* route;       // [W, E, H, 5] RouteFeature, in order of arc length
  bool* route_mask;   // [W, E, H]
  float* lights;      // [W, E, I, 7] LightFeature, those on the route first, then nearest
  bool* lights_mask;  // [W, E, I]

  static constexpr auto& python_name = "Observation";
  template <class F>
  static constexpr void fields(F&& f) {
    f("pose", &Observation::pose, "W", "E", "4");
    f("ego", &Observation::ego, "W", "E", "CE");
    f("agents", &Observation::agents, "W", "E", "O", "CA");
    f("agents_mask", &Observation::agents_mask, "W", "E", "O");
    f("road", &Observation::road, "W", "E", "B", "CR");
    f("road_mask", &Observation::road_mask, "W", "E", "B");
    f("route", &Observation::route, "W", "E", "H", "5");
    f("route_mask", &Observation::route_mask, "W", "E", "H");
    f("lights", &Observation::lights, "W", "E", "I", "7");
    f("lights_mask", &Observation::lights_mask, "W", "E", "I");
  }
  template <class Size>
  void bind(Size&& size) {
    W = size("W");
    E = size("E");
    O = size("O");
    B = size("B");
    H = size("H");
    I = size("I");
    CE = size("CE");
    CA = size("CA");
    CR = size("CR");
  }
};
static_assert(kNumRouteFeatures == 5 && kNumLightFeatures == 7);

}  // namespace alpagym
