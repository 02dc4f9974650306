#include <random>
#include <utility>
#include <vector>

#include "check.h"
#include "cpu/choose.h"

using namespace alpagym::cpu;

namespace {

// The m smallest of (distance, index), by sorting all.
std::vector<int> by_sorting(const std::vector<float>& distance2, int m) {
  std::vector<std::pair<float, int>> all;
  for (size_t k = 0; k < distance2.size(); ++k) all.push_back({distance2[k], static_cast<int>(k)});
  std::sort(all.begin(), all.end());
  std::vector<int> first;
  for (int k = 0; k < std::min<int>(m, static_cast<int>(all.size())); ++k)
    first.push_back(all[k].second);
  std::sort(first.begin(), first.end());
  return first;
}

std::vector<int> chosen(const std::vector<float>& distance2, int m) {
  Candidates found;
  for (size_t k = 0; k < distance2.size(); ++k) found.add(distance2[k], static_cast<int>(k));
  std::vector<int32_t> out(distance2.size() + alpagym::simd::kLanes);
  out.resize(choose(found, m, out.data()));
  std::vector<int> set(out.begin(), out.end());
  std::sort(set.begin(), set.end());
  return set;
}

void check_all(const std::vector<float>& distance2) {
  const int n = static_cast<int>(distance2.size());
  for (const int m : {0, 1, 2, 3, n / 2, n - 1, n, n + 1})
    if (m >= 0) CHECK(chosen(distance2, m) == by_sorting(distance2, m));
}

}  // namespace

TEST(the_nearest_are_those_that_sorting_finds) {
  std::mt19937 draw(1);
  std::uniform_real_distribution<float> uniform(0.f, 1.f);
  for (int n = 1; n < 120; ++n) {
    std::vector<float> even(n), skewed(n), huge(n), tiny(n);
    for (int k = 0; k < n; ++k) {
      even[k] = 2500.f * uniform(draw);
      skewed[k] = powf(10.f, 76.f * uniform(draw) - 38.f);
      huge[k] = 3.4e38f * uniform(draw);
      tiny[k] = 1e-44f * uniform(draw);
    }
    check_all(even);
    check_all(skewed);
    check_all(huge);
    check_all(tiny);
  }
}

TEST(of_the_equally_near_those_with_smaller_indices_are_chosen) {
  std::mt19937 draw(2);
  for (int n = 1; n < 80; ++n) {
    std::vector<float> equal(n, 7.f), zero(n, 0.f), pairs(n), few(n);
    for (int k = 0; k < n; ++k) {
      pairs[k] = static_cast<float>(k / 2);
      few[k] = static_cast<float>(draw() % 4);
    }
    check_all(equal);
    check_all(zero);
    check_all(pairs);
    check_all(few);
  }
}
