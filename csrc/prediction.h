// What the controller of mpc.h predicts: the bicycle linearized where it is, over periods of 0.1 s.
// After alpasim_controller/mpc_impl/linear_mpc.py (NVIDIA AlpaSim 3032e0c).
#pragma once
#include "bicycle.h"

namespace alpagym::mpc {

constexpr double kPeriod = 0.1;  // [s]
constexpr int kHorizon = 20;     // periods predicted, at most

// The linearized bicycle over one period: state' = a * state + b * command, a state being x, y,
// yaw, speed, lateral_speed, yaw_rate, steering_angle, accel. Columns 8 and 9 are b.
using Dynamics = double[8][10];

// to = one * other, for matrices [a b; 0 1].
ALPAGYM_HD void compose(const Dynamics& one, const Dynamics& other, Dynamics& to) {
  for (int i = 0; i < 8; ++i) {
    for (int j = 0; j < 10; ++j) to[i][j] = j < 8 ? 0.0 : one[i][j];
    for (int k = 0; k < 8; ++k)
      for (int j = 0; j < 10; ++j) to[i][j] += one[i][k] * other[k][j];
  }
}

// How the state changes [1/s]. Below kKinematicBelow what speed does to lateral speed and yaw rate
// is left out, as in AlpaSim at that commit: steering acts on lateral, acceleration on longitudinal
// motion alone, except that at speed x depends on yaw when the rear axle slips.
ALPAGYM_HD void differentiate(const bicycle::Vehicle<double>& v, Dynamics& rate) {
  using namespace bicycle;
  enum { X, Y, PSI, VX, VY, R, DELTA, A, STEERING_COMMAND, ACCEL_COMMAND };
  for (int i = 0; i < 8; ++i)
    for (int j = 0; j < 10; ++j) rate[i][j] = 0.0;
  rate[X][VX] = 1.0;
  rate[Y][PSI] = v.speed;
  rate[PSI][R] = 1.0;
  rate[VX][A] = 1.0;
  if (v.speed < kKinematicBelow) {
    rate[VY][VY] = rate[R][R] = -kNoSlipRate;
    rate[R][DELTA] = kNoSlipRate * v.speed / kWheelbase;
    rate[VY][DELTA] = kRearToMass * rate[R][DELTA];
  } else {
    const TireForces<double> f = tire_forces(v.speed);
    rate[X][PSI] = kRearToMass * v.yaw_rate - v.lateral_speed;
    rate[Y][VY] = 1.0;
    rate[Y][R] = -kRearToMass;
    rate[VY][VY] = f.drift;
    rate[VY][R] = f.swing;
    rate[VY][DELTA] = f.push;
    rate[R][VY] = f.weathervane;
    rate[R][R] = f.damping;
    rate[R][DELTA] = f.turn;
  }
  rate[DELTA][DELTA] = -1.0 / kSteeringLag;
  rate[DELTA][STEERING_COMMAND] = 1.0 / kSteeringLag;
  rate[A][A] = -1.0 / kAccelLag;
  rate[A][ACCEL_COMMAND] = 1.0 / kAccelLag;
}

// Zero-order hold by the exponential: a Taylor series over 1/64 of the period, squared six times.
ALPAGYM_HD void linearize(const bicycle::Vehicle<double>& v, Dynamics& held) {
  constexpr int kSquarings = 6, kTerms = 12;
  constexpr double kPart = kPeriod / (1 << kSquarings);
  Dynamics rate, next;
  differentiate(v, rate);
  for (int i = 0; i < 8; ++i)
    for (int j = 0; j < 10; ++j) held[i][j] = i == j ? 1.0 : 0.0;
  for (int n = kTerms; n >= 1;
       --n) {  // 1 + part rate (1 + part rate / 2 (1 + part rate / 3 (...)))
    compose(rate, held, next);
    for (int i = 0; i < 8; ++i)
      for (int j = 0; j < 10; ++j) held[i][j] = (i == j ? 1.0 : 0.0) + kPart / n * next[i][j];
  }
  for (int n = 0; n < kSquarings; ++n) {
    compose(held, held, next);
    for (int i = 0; i < 8; ++i)
      for (int j = 0; j < 10; ++j) held[i][j] = next[i][j];
  }
}

// What is predicted of the state: X to kAccel. Steering acts on the first three, acceleration on
// the next two and on kX, kXBySteering is what steering does to it.
enum Row : int { kY, kYaw, kSteering, kSpeed, kAccel, kX, kXBySteering, kPredicted };

// A row of the state in period k (1 to horizon) is
//   free[row][k - 1] + the sum over periods j < k of at(row, k)[j] * command[j].
struct Prediction {
  double free[kX + 1][kHorizon];
  double response[kPredicted][kHorizon];  // of a command longest ago first

  ALPAGYM_HD const double* at(int row, int k) const { return response[row] + kHorizon - k; }
};

ALPAGYM_HD void predict(const bicycle::Vehicle<double>& v, Prediction& p) {
  Dynamics held;
  linearize(v, held);
  constexpr int kMember[kX + 1] = {1, 2, 6, 3, 7, 0};
  double still[8] = {0.0,    0.0, 0.0, v.speed, v.lateral_speed, v.yaw_rate, v.steering_angle,
                     v.accel};
  double steered[8], accelerated[8];
  const auto follow = [&](double* state) {
    double next[8];
    for (int i = 0; i < 8; ++i) {
      next[i] = 0.0;
      for (int j = 0; j < 8; ++j) next[i] += held[i][j] * state[j];
    }
    for (int i = 0; i < 8; ++i) state[i] = next[i];
  };
  for (int i = 0; i < 8; ++i) {
    steered[i] = held[i][8];
    accelerated[i] = held[i][9];
  }
  for (int k = 0; k < kHorizon; ++k) {
    const int column = kHorizon - 1 - k;
    follow(still);
    for (int row = 0; row <= kX; ++row) {
      p.free[row][k] = still[kMember[row]];
      p.response[row][column] = (row < kSpeed ? steered : accelerated)[kMember[row]];
    }
    p.response[kXBySteering][column] = steered[kMember[kX]];
    follow(steered);
    follow(accelerated);
  }
}

}  // namespace alpagym::mpc
