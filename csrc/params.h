// The scalars that kernels read: one list, filled from Python's SimConfig.
#pragma once
#include <cstdint>

namespace alpagym {

// Events that end an episode, as bits.
enum EndOn : int {
  kEndAtFault = 1,
  kEndCollision = 2,
  kEndOffroad = 4,
  kEndRedLight = 8,
  kEndGoal = 16,
  kEndStopSign = 32
};

// What becomes of an action that is not finite: the agent coasts on, or its episode ends.
enum BadAction : int { kCoast = 0, kTerminate = 1 };

// Which elements fill the slots of an observation: the nearest, sorted or not, or about the
// nearest. Where that gains nothing, the first is as good an answer as any.
enum SlotOrder : int { kNearestFirst = 0, kNearest = 1, kBounded = 2 };

// What is observed: everything, or what AlpaSim tells its drivers.
enum ObservationKind : int { kFull = 0, kAlpaSim = 1 };

constexpr int kMaxPlanSteps = 1024;  // waypoints in a plan, and steps that an action lasts

struct Params {
  float dt;                    // [s]
  int action;                  // ActionKind (actions.h)
  int plan_steps;              // waypoints in a plan
  int replan_every;            // steps from one action to the next
  int traffic;                 // Traffic of the worlds that name none
  int end_on;                  // EndOn bits
  int bad_action;              // BadAction
  int max_steps;               // an episode's length; 0 for the record's, which bounds log replay
  float min_accel;             // bounds of the control [m/s^2]
  float max_accel;             // [m/s^2]
  float max_curvature;         // [1/m]
  float max_lateral_accel;     // bounds curvature at speed [m/s^2]
  float ttc_horizon;           // [s]
  int observation;             // ObservationKind
  int slot_order;              // SlotOrder
  float agent_radius;          // agents beyond are not observed [m]
  float road_radius;           // road points beyond are not observed [m]
  float light_radius;          // lights beyond are not observed [m]
  float route_step;            // arc length between observed route waypoints [m]
  float route_horizon;         // stops beyond are not observed [m]
  float idm_accel;             // IDM: maximum acceleration [m/s^2]
  float idm_decel;             // comfortable deceleration [m/s^2]
  float idm_headway;           // time headway [s]
  float idm_gap;               // gap at standstill [m]
  float idm_max_decel;         // hardest braking [m/s^2]
  float idm_speed_spread;      // desired speeds are drawn from 1 -+ this, times the limit
  int lane_changes;            // whether IDM drivers change lanes (MOBIL)
  float idm_politeness;        // MOBIL: weight of what others gain or lose
  float idm_change_threshold;  // gain in acceleration that a lane change is worth [m/s^2]
  float idm_safe_decel;        // hardest braking that a lane change may ask of others [m/s^2]
  float idm_change_wait;       // time between two lane changes [s]
  float reactive_distance;     // deviation of an ego at which IDM takes over from the log [m]

  template <class F>
  static constexpr void fields(F&& f) {
    f("dt", &Params::dt);
    f("action", &Params::action);
    f("plan_steps", &Params::plan_steps);
    f("replan_every", &Params::replan_every);
    f("traffic", &Params::traffic);
    f("end_on", &Params::end_on);
    f("bad_action", &Params::bad_action);
    f("max_steps", &Params::max_steps);
    f("min_accel", &Params::min_accel);
    f("max_accel", &Params::max_accel);
    f("max_curvature", &Params::max_curvature);
    f("max_lateral_accel", &Params::max_lateral_accel);
    f("ttc_horizon", &Params::ttc_horizon);
    f("observation", &Params::observation);
    f("slot_order", &Params::slot_order);
    f("agent_radius", &Params::agent_radius);
    f("road_radius", &Params::road_radius);
    f("light_radius", &Params::light_radius);
    f("route_step", &Params::route_step);
    f("route_horizon", &Params::route_horizon);
    f("idm_accel", &Params::idm_accel);
    f("idm_decel", &Params::idm_decel);
    f("idm_headway", &Params::idm_headway);
    f("idm_gap", &Params::idm_gap);
    f("idm_max_decel", &Params::idm_max_decel);
    f("idm_speed_spread", &Params::idm_speed_spread);
    f("lane_changes", &Params::lane_changes);
    f("idm_politeness", &Params::idm_politeness);
    f("idm_change_threshold", &Params::idm_change_threshold);
    f("idm_safe_decel", &Params::idm_safe_decel);
    f("idm_change_wait", &Params::idm_change_wait);
    f("reactive_distance", &Params::reactive_distance);
  }
};

}  // namespace alpagym
