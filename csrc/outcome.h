// What one step produced. R = reward terms.
#pragma once
#include <cstdint>

#include "device.h"

namespace alpagym {

enum class Collision : uint8_t { kNone = 0, kFront = 1, kRear = 2, kLateral = 3 };

struct Outcome {
  int W, E, R;
  Device device;

  float* reward;             // [W, E] weighted sum of terms
  float* terms;              // [W, E, R] raw quantities by RewardTerm (reward_terms.h)
  uint8_t* collision;        // [W, E] Collision that began this step
  float* progress_fraction;  // [W, E] route arc length over the logged path's, 1 at its end
  float* ttc;                // [W, E] time to collision, 0 in contact, +inf if none [s]
  int32_t* lane;             // [W, E] map element of the own lane, -1 for none (lanes.h)
  float* lane_offset;        // [W, E] from its center line, left positive [m]
  float* lane_heading;       // [W, E] heading relative to it [rad]
  bool* bad_action;          // [W, E] the action held NaN or infinity

  static constexpr auto& python_name = "Outcome";
  template <class F>
  static constexpr void fields(F&& f) {
    f("reward", &Outcome::reward, "W", "E");
    f("terms", &Outcome::terms, "W", "E", "R");
    f("collision", &Outcome::collision, "W", "E");
    f("progress_fraction", &Outcome::progress_fraction, "W", "E");
    f("ttc", &Outcome::ttc, "W", "E");
    f("lane", &Outcome::lane, "W", "E");
    f("lane_offset", &Outcome::lane_offset, "W", "E");
    f("lane_heading", &Outcome::lane_heading, "W", "E");
    f("bad_action", &Outcome::bad_action, "W", "E");
  }
  template <class Size>
  void bind(Size&& size) {
    W = size("W");
    E = size("E");
    R = size("R");
  }
};

}  // namespace alpagym
