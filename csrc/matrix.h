// Symmetric matrices in double precision, small enough for one thread: the upper triangle, row by
// row, in n (n + 1) / 2 numbers.
#pragma once
#include <cmath>

#include "hd.h"

namespace alpagym {

// Where row i of an n by n triangle begins, shifted such that column j is at [j].
template <class T>
ALPAGYM_HD T* triangle_row(T* m, int n, int i) {
  return m + i * n - i * (i + 1) / 2;
}

// In four sums, which need not wait for each other.
ALPAGYM_HD double dot(const double* a, const double* b, int n) {
  double s0 = 0.0, s1 = 0.0, s2 = 0.0, s3 = 0.0;
  int i = 0;
  for (; i + 4 <= n; i += 4) {
    s0 += a[i] * b[i];
    s1 += a[i + 1] * b[i + 1];
    s2 += a[i + 2] * b[i + 2];
    s3 += a[i + 3] * b[i + 3];
  }
  for (; i < n; ++i) s0 += a[i] * b[i];
  return (s0 + s1) + (s2 + s3);
}

// m += weight * v v^T for a v that is zero but for `count` values from `first` on.
ALPAGYM_HD void add_outer(double* m, int n, const double* values, int first, int count,
                          double weight) {
  for (int i = 0; i < count; ++i) {
    const double scaled = weight * values[i];
    double* row = triangle_row(m, n, first + i) + first;
    for (int j = i; j < count; ++j) row[j] += scaled * values[j];
  }
}

// m becomes the U of m = U^T U, with the inverse of its diagonal; false if m is not positive
// definite.
ALPAGYM_HD bool cholesky(double* m, int n) {
  for (int k = 0; k < n; ++k) {
    double* pivot = triangle_row(m, n, k);
    if (!(pivot[k] > 0.0 && pivot[k] < INFINITY)) return false;
    const double inverse = pivot[k] = 1.0 / sqrt(pivot[k]);
    for (int j = k + 1; j < n; ++j) pivot[j] *= inverse;
    for (int i = k + 1; i < n; ++i) {
      const double factor = pivot[i];
      double* row = triangle_row(m, n, i);
      for (int j = i; j < n; ++j) row[j] -= factor * pivot[j];
    }
  }
  return true;
}

// Solve U^T U x = b in place, with what `cholesky` gives.
ALPAGYM_HD void cholesky_solve(const double* u, int n, double* x) {
  for (int i = 0; i < n; ++i) {
    const double* row = triangle_row(u, n, i);
    const double value = x[i] *= row[i];
    for (int j = i + 1; j < n; ++j) x[j] -= value * row[j];
  }
  for (int i = n - 1; i >= 0; --i) {
    const double* row = triangle_row(u, n, i);
    x[i] = (x[i] - dot(row + i + 1, x + i + 1, n - i - 1)) * row[i];
  }
}

}  // namespace alpagym
