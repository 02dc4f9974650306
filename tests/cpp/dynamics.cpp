// A library for tests: the vehicle and its controller on arrays, called through ctypes.
#include "mpc.h"

using alpagym::bicycle::Command;
using alpagym::bicycle::Vehicle;

namespace {

template <class Real>
void advance(int n, const Real* state, const Real* command, const Real* dt, Real* to, Real* rate) {
  for (int i = 0; i < n; ++i) {
    const Real* s = state + 8 * i;
    const Command<Real> u{command[2 * i], command[2 * i + 1]};
    const Vehicle<Real> v =
        alpagym::bicycle::advance<Real>({s[0], s[1], s[2], s[3], s[4], s[5], s[6], s[7]}, u, dt[i]);
    const Vehicle<Real> r = alpagym::bicycle::rate_of(v, u);
    const Real after[] = {
        v.x, v.y, v.yaw, v.speed, v.lateral_speed, v.yaw_rate, v.steering_angle, v.accel};
    for (int k = 0; k < 8; ++k) to[8 * i + k] = after[k];
    rate[3 * i] = r.speed;
    rate[3 * i + 1] = r.lateral_speed;
    rate[3 * i + 2] = r.yaw_rate;
  }
}

}  // namespace

extern "C" {

// state [n, 8] and command [n, 2] after dt [n]: state [n, 8], and rates of its speeds [n, 3].
void advance_double(int n, const double* state, const double* command, const double* dt, double* to,
                    double* rate) {
  advance(n, state, command, dt, to, rate);
}
void advance_float(int n, const float* state, const float* command, const float* dt, float* to,
                   float* rate) {
  advance(n, state, command, dt, to, rate);
}

// Speed, lateral speed and yaw rate [n, 3] -> state [n, 8].
void moving(int n, const double* motion, double* to) {
  for (int i = 0; i < n; ++i) {
    const double* m = motion + 3 * i;
    const Vehicle<double> v = alpagym::bicycle::moving(m[0], m[1], m[2]);
    const double state[] = {
        v.x, v.y, v.yaw, v.speed, v.lateral_speed, v.yaw_rate, v.steering_angle, v.accel};
    for (int k = 0; k < 8; ++k) to[8 * i + k] = state[k];
  }
}

// state [n, 8] and targets [n, 11, 3] of periods 10 to 20 -> command [n, 2], and whether there is
// one [n].
void solve(int n, const double* state, const double* target, const int* horizon, double* command,
           int* solved) {
  using alpagym::mpc::kTracked;
  for (int i = 0; i < n; ++i) {
    const double* s = state + 8 * i;
    alpagym::mpc::Target targets[kTracked];
    for (int k = 0; k < kTracked; ++k) {
      const double* t = target + 3 * (kTracked * i + k);
      targets[k] = {t[0], t[1], t[2]};
    }
    const alpagym::mpc::Answer answer =
        alpagym::mpc::solve({s[0], s[1], s[2], s[3], s[4], s[5], s[6], s[7]}, targets, horizon[i]);
    command[2 * i] = answer.command.steering_angle;
    command[2 * i + 1] = answer.command.accel;
    solved[i] = answer.solved;
  }
}

}  // extern "C"
