#include "rng.h"

#include "check.h"

using namespace alpagym;

TEST(mix_gives_the_published_splitmix64_sequence) {
  CHECK(mix(0) == 0xe220a8397b1dcdafull);
  CHECK(mix(0x9e3779b97f4a7c15ull) == 0x6e789e6aa1b965f4ull);
  CHECK(mix(2 * 0x9e3779b97f4a7c15ull) == 0x06c45d188009454full);
}

TEST(keys_differ_by_value_and_by_order) {
  CHECK(combine(1, 2) != combine(2, 1));
  CHECK(combine(combine(7, 1), 2) != combine(combine(7, 2), 1));
  CHECK(combine(0, 0) != combine(0, 1));
}

TEST(uniform_is_open_and_even) {
  double sum = 0, sum2 = 0;
  int count[10] = {};
  constexpr int n = 100000;
  for (uint64_t i = 0; i < n; ++i) {
    const float u = uniform(combine(42, i));
    CHECK(u > 0.f && u < 1.f);
    sum += u;
    sum2 += static_cast<double>(u) * u;
    ++count[static_cast<int>(10.f * u)];
  }
  CHECK_NEAR(sum / n, 0.5, 0.005);  // 5 standard errors: 0.0046
  CHECK_NEAR(sum2 / n, 1.0 / 3.0, 0.005);
  for (const int c : count) CHECK_NEAR(c, n / 10, 500);
}

TEST(normal_has_the_moments_of_a_standard_normal) {
  double sum = 0, sum2 = 0, sum4 = 0;
  constexpr int n = 100000;
  for (uint64_t i = 0; i < n; ++i) {
    const double x = normal(combine(43, i));
    sum += x;
    sum2 += x * x;
    sum4 += x * x * x * x;
  }
  CHECK_NEAR(sum / n, 0.0, 0.016);
  CHECK_NEAR(sum2 / n, 1.0, 0.023);
  CHECK_NEAR(sum4 / n, 3.0, 0.16);
}

TEST(neighboring_keys_are_uncorrelated) {
  double sum = 0;
  constexpr int n = 100000;
  for (uint64_t i = 0; i < n; ++i) sum += normal(combine(44, i)) * normal(combine(44, i + 1));
  CHECK_NEAR(sum / n, 0.0, 0.016);
}
