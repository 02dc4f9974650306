// TEST(name) { CHECK(condition); CHECK_NEAR(actual, expected, tolerance); }
#pragma once
#include <cmath>
#include <cstdio>
#include <vector>

struct Test {
  const char* name;
  void (*body)();
};

inline std::vector<Test>& tests() {
  static std::vector<Test> all;
  return all;
}

inline int& failures() {
  static int count = 0;
  return count;
}

struct Register {
  Register(const char* name, void (*body)()) { tests().push_back({name, body}); }
};

#define TEST(name)                                    \
  static void name();                                 \
  static const Register register_##name{#name, name}; \
  static void name()

#define CHECK(condition)                                                   \
  do {                                                                     \
    if (!(condition)) {                                                    \
      std::printf("%s:%d: %s is false\n", __FILE__, __LINE__, #condition); \
      ++failures();                                                        \
    }                                                                      \
  } while (false)

// Fails on NaN too.
#define CHECK_NEAR(actual, expected, tolerance)                                                \
  do {                                                                                         \
    const double actual_ = (actual), expected_ = (expected);                                   \
    if (!(std::fabs(actual_ - expected_) <= (tolerance))) {                                    \
      std::printf("%s:%d: %s is %.9g, expected %.9g within %g\n", __FILE__, __LINE__, #actual, \
                  actual_, expected_, static_cast<double>(tolerance));                         \
      ++failures();                                                                            \
    }                                                                                          \
  } while (false)
