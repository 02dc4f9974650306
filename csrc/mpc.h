// AlpaSim's linear model predictive controller: which command makes the vehicle follow a plan.
// After alpasim_controller/mpc_impl/linear_mpc.py (NVIDIA AlpaSim 3032e0c): the bicycle is
// linearized once where it is, without the constant term, and held over periods of 0.1 s; commands
// for 2.0 s minimize a quadratic cost of the last 1.0 s of it, within bounds on commands and
// states.
//
// In double precision. One thread solves one problem with about 16 kB of its own: rows of the state
// depend on a command by how long ago it was given, so that responses are kept once for all periods
// and matrices are made from them anew in each iteration.
#pragma once
#include "bicycle.h"
#include "matrix.h"
#include "prediction.h"

namespace alpagym::mpc {

constexpr int kFirstTracked = 10;  // from this period on, distance from the plan costs
constexpr int kTracked = kHorizon - kFirstTracked + 1;
constexpr int kCommands = 2 * kHorizon;  // steering of all periods, then acceleration
constexpr int kRows = kCommands + 4 * kHorizon;

constexpr double kSteeringCommandCost = 5.0, kAccelCommandCost = 1.0;
constexpr double kRidge = 1e-6;  // added to the cost of every command squared
constexpr double kXCost = 2.0, kYCost = 1.0, kYawCost = 1.0, kAccelCost = 0.1;

// What the plan asks of the rear axle, in the frame of where that is now.
struct Target {
  double x, y, yaw;
};
struct Answer {
  bicycle::Command<double> command;  // of the first period; 0, 0 if there is none
  bool solved;
};

// A quadratic program in the commands: least cost, with every row within its bounds. Rows are the
// commands, then yaw, steering angle, speed and acceleration of each period.
struct Problem {
  Prediction prediction;
  const Target* target;  // of periods kFirstTracked..horizon
  int horizon;

  ALPAGYM_HD int commands() const { return 2 * horizon; }
  ALPAGYM_HD int rows() const { return 6 * horizon; }
};

// A sum over `count` commands from `first` on, plus `free`.
struct Line {
  const double* values;
  int first, count;
  double free;
};
ALPAGYM_HD double change_of(const Line& line, const double* u) {
  return dot(line.values, u + line.first, line.count);
}
ALPAGYM_HD double value_of(const Line& line, const double* u) {
  return line.free + change_of(line, u);
}
ALPAGYM_HD void add(const Line& line, double weight, double* to) {
  for (int i = 0; i < line.count; ++i) to[line.first + i] += weight * line.values[i];
}
ALPAGYM_HD Line state_line(const Problem& p, int row, int k) {
  const int first = row < kSpeed || row == kXBySteering ? 0 : p.horizon;
  return {p.prediction.at(row, k), first, k, row <= kX ? p.prediction.free[row][k - 1] : 0.0};
}

struct Bound {
  double low, high;
};
struct Constraint {
  Line line;
  Bound bound;
};
ALPAGYM_HD Bound command_bound(const Problem& p, int i) {
  return i < p.horizon ? Bound{-2.0, 2.0} : Bound{-9.0, 6.0};
}
ALPAGYM_HD Bound state_bound(int row) {
  constexpr double kQuarter = 0.78539816339744830962;
  switch (row) {
    case kYaw:
      return {-2.0 * kQuarter, 2.0 * kQuarter};
    case kSteering:
      return {-kQuarter, kQuarter};
    case kSpeed:
      return {0.0, 35.0};
    default:
      return {-8.0, 6.0};
  }
}
ALPAGYM_HD Constraint constraint(const Problem& p, const double& one, int i) {
  if (i < p.commands()) return {{&one, i, 1, 0.0}, command_bound(p, i)};
  const int row = kYaw + (i - p.commands()) % 4, k = 1 + (i - p.commands()) / 4;
  return {state_line(p, row, k), state_bound(row)};
}

// The derivative of the cost at u, which is another array.
ALPAGYM_HD void gradient(const Problem& p, const double* u, double* to) {
  for (int i = 0; i < p.commands(); ++i)
    to[i] = ((i < p.horizon ? kSteeringCommandCost : kAccelCommandCost) + kRidge) * u[i];
  for (int k = kFirstTracked; k <= p.horizon; ++k) {
    const Target& t = p.target[k - kFirstTracked];
    const Line y = state_line(p, kY, k), yaw = state_line(p, kYaw, k),
               accel = state_line(p, kAccel, k), x = state_line(p, kX, k),
               x_by_steering = state_line(p, kXBySteering, k);
    add(y, kYCost * (value_of(y, u) - t.y), to);
    add(yaw, kYawCost * (value_of(yaw, u) - t.yaw), to);
    add(accel, kAccelCost * value_of(accel, u), to);
    const double off = kXCost * (value_of(x, u) + change_of(x_by_steering, u) - t.x);
    add(x, off, to);
    add(x_by_steering, off, to);
  }
}

// The second derivative of the cost.
ALPAGYM_HD void hessian(const Problem& p, double* m) {
  const int n = p.commands();
  for (int i = 0; i < n * (n + 1) / 2; ++i) m[i] = 0.0;
  for (int i = 0; i < n; ++i)
    triangle_row(m, n, i)[i] = (i < p.horizon ? kSteeringCommandCost : kAccelCommandCost) + kRidge;
  const auto add_square = [&](const Line& line, double cost) {
    add_outer(m, n, line.values, line.first, line.count, cost);
  };
  for (int k = kFirstTracked; k <= p.horizon; ++k) {
    add_square(state_line(p, kY, k), kYCost);
    add_square(state_line(p, kYaw, k), kYawCost);
    add_square(state_line(p, kAccel, k), kAccelCost);
    const Line x = state_line(p, kX, k), x_by_steering = state_line(p, kXBySteering, k);
    add_square(x, kXCost);
    add_square(x_by_steering, kXCost);
    for (int i = 0; i < k; ++i)
      add({x.values, x.first, k, 0.0}, kXCost * x_by_steering.values[i], triangle_row(m, n, i));
  }
}

// One side of a constraint: how far within its bound the row is held, and the multiplier of that.
struct Side {
  double slack, price;
};
ALPAGYM_HD double inward(int side) { return side == 0 ? 1.0 : -1.0; }
ALPAGYM_HD double within(const Bound& b, int side, double value) {
  return side == 0 ? value - b.low : b.high - value;
}
// How a side changes when its row, now at `value`, changes so and slack * price is led to
// `product`: its slack by that and by how far the row is further within than the slack says.
ALPAGYM_HD Side change_of(const Side& s, const Bound& b, int side, double value, double change,
                          double product = 0.0) {
  const double slack = inward(side) * change + within(b, side, value) - s.slack;
  return {slack, (product - s.price * slack) / s.slack - s.price};
}

// Mehrotra's predictor and corrector for both sides of all rows, from commands `u` that may be
// anywhere; `m` is room for a matrix. Slacks need not fit the commands at first: what they and the
// gradient are off by shrinks by the same factor in each step, so that one number, `off`, tells how
// much is left. False where the bounds cannot all hold.
ALPAGYM_HD bool interior_point(const Problem& p, double* u, double* m) {
  constexpr int kMaxIterations = 30;
  const int n = p.commands(), rows = p.rows();
  const double one = 1.0;
  Side sides[2 * kRows];
  double value[kRows], guessed[kRows];  // of the rows, and their change under `predicted`
  double predicted[kCommands], step[kCommands];

  for (int i = 0; i < n; ++i) {
    const Bound b = command_bound(p, i);
    u[i] = fmin(fmax(u[i], b.low), b.high);
  }
  for (int i = 0; i < rows; ++i) {
    const Constraint row = constraint(p, one, i);
    value[i] = value_of(row.line, u);
    const double least = 0.05 * (row.bound.high - row.bound.low);
    for (int side = 0; side < 2; ++side)
      sides[2 * i + side] = {fmax(within(row.bound, side, value[i]), least), 1.0};
  }

  double off = 1.0;
  for (int iteration = 0;; ++iteration) {
    double gap = 0.0, scale = 1.0;
    for (int i = 0; i < 2 * rows; ++i) {
      gap += sides[i].slack * sides[i].price;
      scale = fmax(scale, sides[i].price);
    }
    gap /= 2 * rows;
    if (gap < 1e-12 * scale && off < 1e-10) return true;
    // Rounding may stop it before that.
    const bool near = gap < 1e-7 * scale && off < 1e-8;
    if (iteration == kMaxIterations) return near;

    hessian(p, m);
    gradient(p, u, step);
    for (int i = 0; i < n; ++i) predicted[i] = step[i] = -step[i];
    for (int i = 0; i < rows; ++i) {
      const Constraint row = constraint(p, one, i);
      double weight = 0.0, pull = 0.0;
      for (int side = 0; side < 2; ++side) {
        const Side s = sides[2 * i + side];
        const double stiffness = s.price / s.slack;
        weight += stiffness;
        pull -= inward(side) * stiffness * (within(row.bound, side, value[i]) - s.slack);
      }
      add_outer(m, n, row.line.values, row.line.first, row.line.count, weight);
      add(row.line, pull, predicted);
    }
    if (!cholesky(m, n)) return near;
    cholesky_solve(m, n, predicted);

    // How far `predicted` may be taken, and what it would leave of the gap.
    double reach = 1.0, linear = 0.0, square = 0.0;
    const auto limit = [&](const Side& s, const Side& d) {
      if (s.slack < -reach * d.slack) reach = -s.slack / d.slack;
      if (s.price < -reach * d.price) reach = -s.price / d.price;
    };
    for (int i = 0; i < rows; ++i) {
      const Constraint row = constraint(p, one, i);
      guessed[i] = change_of(row.line, predicted);
      for (int side = 0; side < 2; ++side) {
        const Side s = sides[2 * i + side], d = change_of(s, row.bound, side, value[i], guessed[i]);
        limit(s, d);
        linear += s.slack * d.price + s.price * d.slack;
        square += d.slack * d.price;
      }
    }
    const double ratio = 1.0 + reach * (linear + reach * square) / (2 * rows * gap),
                 center = ratio * ratio * ratio * gap;

    // The same with every slack * price led to `center`, less what `predicted` leaves out.
    for (int i = 0; i < rows; ++i) {
      const Constraint row = constraint(p, one, i);
      double pull = 0.0;
      for (int side = 0; side < 2; ++side) {
        const Side s = sides[2 * i + side], d = change_of(s, row.bound, side, value[i], guessed[i]);
        const double miss = within(row.bound, side, value[i]) - s.slack;
        pull += inward(side) * (center - d.slack * d.price - s.price * miss) / s.slack;
      }
      add(row.line, pull, step);
    }
    cholesky_solve(m, n, step);
    const auto corrected = [&](const Constraint& row, int i, int side, double change) {
      const Side s = sides[2 * i + side], d = change_of(s, row.bound, side, value[i], guessed[i]);
      return change_of(s, row.bound, side, value[i], change, center - d.slack * d.price);
    };
    reach = 1.0 / 0.995;
    for (int i = 0; i < rows; ++i) {
      const Constraint row = constraint(p, one, i);
      const double change = change_of(row.line, step);
      for (int side = 0; side < 2; ++side)
        limit(sides[2 * i + side], corrected(row, i, side, change));
    }
    reach = fmin(1.0, 0.995 * reach);
    for (int i = 0; i < rows; ++i) {
      const Constraint row = constraint(p, one, i);
      const double change = change_of(row.line, step);
      for (int side = 0; side < 2; ++side) {
        const Side d = corrected(row, i, side, change);
        sides[2 * i + side].slack += reach * d.slack;
        sides[2 * i + side].price += reach * d.price;
      }
      value[i] += reach * change;
    }
    for (int i = 0; i < n; ++i) u[i] += reach * step[i];
    off *= 1.0 - reach;
  }
}

// The command that follows a plan; none where the bounds cannot all hold, and where something is
// not a number. `target` is for periods kFirstTracked..horizon, 1.0 s ahead and further.
ALPAGYM_HD Answer solve(const bicycle::Vehicle<double>& v, const Target* target,
                        int horizon = kHorizon) {
  constexpr Answer kCoast{{0.0, 0.0}, false};
  Problem p;
  p.target = target;
  p.horizon = horizon;
  predict(v, p.prediction);
  const int n = p.commands();
  double u[kCommands], m[kCommands * (kCommands + 1) / 2];
  const double still[kCommands] = {};
  hessian(p, m);
  gradient(p, still, u);
  for (int i = 0; i < n; ++i) u[i] = -u[i];
  if (!cholesky(m, n)) return kCoast;
  cholesky_solve(m, n, u);
  for (int i = 0; i < n; ++i)
    if (!(fabs(u[i]) < INFINITY)) return kCoast;
  const double one = 1.0;
  bool free = true;  // the minimum without bounds is within them
  for (int i = 0; i < p.rows() && free; ++i) {
    const Constraint row = constraint(p, one, i);
    const double value = value_of(row.line, u);
    free = row.bound.low <= value && value <= row.bound.high;
  }
  if (!free && !interior_point(p, u, m)) return kCoast;
  return {{u[0], u[horizon]}, true};
}

}  // namespace alpagym::mpc
