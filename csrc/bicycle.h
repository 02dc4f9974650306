// AlpaSim's vehicle: a dynamic bicycle with lags in steering and acceleration, as pure functions.
// After alpasim_controller/vehicle_model.py (NVIDIA AlpaSim 3032e0c); its parameters are those of a
// mid-size sedan and do not follow the agent's box. `Real` is float or double.
#pragma once
#include "se2.h"

namespace alpagym::bicycle {

constexpr double kMass = 2014.4;              // [kg]
constexpr double kInertia = 3414.2;           // about the vertical axis [kg m^2]
constexpr double kRearToMass = 1.59;          // from the rear axle to the center of mass [m]
constexpr double kWheelbase = 2.85;           // [m]
constexpr double kFrontStiffness = 93534.5;   // cornering stiffness of a front tire [N/rad]
constexpr double kRearStiffness = 176162.1;   // of a rear tire [N/rad]
constexpr double kSteeringLag = 0.1;          // time constant [s]
constexpr double kAccelLag = 0.1;             // time constant [s]
constexpr double kKinematicBelow = 5.0;       // slower than this there is no tire slip [m/s]
constexpr double kNoSlipRate = 10.0;          // how fast slip vanishes then [1/s]
constexpr double kLongestSubstep = 0.01;      // [s]
constexpr double kSlowestWithHeading = 0.25;  // slower than this the steering is unknown [m/s]

// x, y, yaw: of the rear axle, since some origin [m, m, rad]. Speeds are those of the center of
// mass in axes of the body, yaw_rate in rad/s; steering_angle [rad] and accel [m/s^2] lag behind
// what is asked.
template <class Real>
struct Vehicle {
  Real x, y, yaw, speed, lateral_speed, yaw_rate, steering_angle, accel;
};
template <class Real>
struct Command {
  Real steering_angle, accel;
};

ALPAGYM_HD float cosine(float a) { return cosf(a); }
ALPAGYM_HD float sine(float a) { return sinf(a); }
ALPAGYM_HD double cosine(double a) { return cos(a); }
ALPAGYM_HD double sine(double a) { return sin(a); }

// How yaw and lateral motion couple above kKinematicBelow, at a speed.
template <class Real>
struct TireForces {
  // lateral_speed' = drift * lateral_speed + swing * yaw_rate + push * steering_angle
  // yaw_rate' = weathervane * lateral_speed + damping * yaw_rate + turn * steering_angle
  Real drift, swing, push, weathervane, damping, turn;
};
template <class Real>
ALPAGYM_HD TireForces<Real> tire_forces(Real speed) {
  constexpr double front = kWheelbase - kRearToMass, rear = kRearToMass;
  constexpr double moment = front * kFrontStiffness - rear * kRearStiffness;
  constexpr double squared = front * front * kFrontStiffness + rear * rear * kRearStiffness;
  const Real momentum = Real(kMass) * speed, angular = Real(kInertia) * speed;
  return {Real(-2.0 * (kFrontStiffness + kRearStiffness)) / momentum,
          -speed - Real(2.0 * moment) / momentum,
          Real(2.0 * kFrontStiffness / kMass),
          Real(-2.0 * moment) / angular,
          Real(-2.0 * squared) / angular,
          Real(2.0 * front * kFrontStiffness / kInertia)};
}

// Time derivative of every member.
template <class Real>
ALPAGYM_HD Vehicle<Real> rate_of(const Vehicle<Real>& v, const Command<Real>& u) {
  Real sideways, lateral, turning;  // of the rear axle; derivatives of lateral_speed, yaw_rate
  if (v.speed < Real(kKinematicBelow)) {
    const Real rate = v.speed * v.steering_angle / Real(kWheelbase);
    sideways = Real(0);
    lateral = Real(kNoSlipRate) * (rate * Real(kRearToMass) - v.lateral_speed);
    turning = Real(kNoSlipRate) * (rate - v.yaw_rate);
  } else {
    const TireForces<Real> f = tire_forces(v.speed);
    sideways = v.lateral_speed - Real(kRearToMass) * v.yaw_rate;
    lateral = f.drift * v.lateral_speed + f.swing * v.yaw_rate + f.push * v.steering_angle;
    turning = f.weathervane * v.lateral_speed + f.damping * v.yaw_rate + f.turn * v.steering_angle;
  }
  const Real c = cosine(v.yaw), s = sine(v.yaw);
  return {v.speed * c - sideways * s,
          v.speed * s + sideways * c,
          v.yaw_rate,
          v.accel,
          lateral,
          turning,
          (u.steering_angle - v.steering_angle) / Real(kSteeringLag),
          (u.accel - v.accel) / Real(kAccelLag)};
}

template <class Real>
ALPAGYM_HD Vehicle<Real> moved(const Vehicle<Real>& v, const Vehicle<Real>& rate, Real dt) {
  return {v.x + dt * rate.x,
          v.y + dt * rate.y,
          v.yaw + dt * rate.yaw,
          v.speed + dt * rate.speed,
          v.lateral_speed + dt * rate.lateral_speed,
          v.yaw_rate + dt * rate.yaw_rate,
          v.steering_angle + dt * rate.steering_angle,
          v.accel + dt * rate.accel};
}

// A command held for dt: midpoint rule in substeps, which choose between slip and none anew at each
// evaluation. Braking stops at standstill, where the lagged acceleration stays as it is.
template <class Real>
ALPAGYM_HD Vehicle<Real> advance(Vehicle<Real> v, const Command<Real>& u, Real dt) {
  constexpr Real tiny = Real(1e-6);  // what rounding leaves of the last substep
  for (Real left = dt; left > tiny; left -= Real(kLongestSubstep)) {
    const Real h = left < Real(kLongestSubstep) + tiny ? left : Real(kLongestSubstep);
    v = moved(v, rate_of(moved(v, rate_of(v, u), Real(0.5) * h), u), h);
    if (!(v.speed > Real(0))) v.speed = Real(0);
    if (h == left) break;
  }
  return v;
}

// A vehicle at the origin that moves so, its front wheels where a car without slip has them.
template <class Real>
ALPAGYM_HD Vehicle<Real> moving(Real speed, Real lateral_speed, Real yaw_rate) {
  const Real steering = speed > Real(kSlowestWithHeading)
                            ? Real(atan(double(yaw_rate / speed * Real(kWheelbase))))
                            : Real(0);
  return {Real(0), Real(0), Real(0), speed, lateral_speed, yaw_rate, steering, Real(0)};
}

}  // namespace alpagym::bicycle
