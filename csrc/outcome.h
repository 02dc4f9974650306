// What one step produced. R = reward terms.
#pragma once
#include <cstdint>

#include "device.h"

namespace alpagym {

// Raw quantities of a step, each multiplied by its weight into the reward.
enum RewardTerm : int {
  kProgress,          // route arc length gained [m]
  kCollisionAtFault,  // 1 when a front or lateral collision began
  kCollisionAny,      // 1 when any collision began
  kOffroad,           // 1 when a corner of the box left the drivable area
  kRedLight,          // 1 when the front bumper crossed the stop line of a red light
  kGoal,              // 1 when the end of the logged path was reached
  kLane,              // distance from the route [m]
  kWrongWay,          // 1 while the heading differs from the route's by more than 120 degrees
  kDistanceToGt,      // distance from the logged position at the same time [m]
  kSpeedLimit,        // speed above the limit [m/s]
  kComfort,           // 1 while acceleration, jerk or yaw rate exceeds nuPlan's comfort bounds
  kTtc,               // shortfall of the time to collision below Params.ttc_horizon, as a fraction
  kNumRewardTerms,
};

enum class Collision : uint8_t { kNone = 0, kFront = 1, kRear = 2, kLateral = 3 };

struct Outcome {
  int W, E, R;
  Device device;

  float* reward;      // [W, E] weighted sum of terms
  float* terms;       // [W, E, R] RewardTerm
  uint8_t* collision;  // [W, E] Collision that began this step
  float* progress_fraction;  // [W, E] route arc length over the logged path's, 1 at its end
  float* ttc;         // [W, E] time to collision, +inf if none [s]

  static constexpr auto& python_name = "Outcome";
  template <class F>
  static constexpr void fields(F&& f) {
    f("reward", &Outcome::reward, "W", "E");
    f("terms", &Outcome::terms, "W", "E", "R");
    f("collision", &Outcome::collision, "W", "E");
    f("progress_fraction", &Outcome::progress_fraction, "W", "E");
    f("ttc", &Outcome::ttc, "W", "E");
  }
  template <class Size>
  void bind(Size&& size) {
    W = size("W");
    E = size("E");
    R = size("R");
  }
};

}  // namespace alpagym
