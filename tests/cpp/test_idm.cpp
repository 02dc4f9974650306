#include "idm.h"

#include "check.h"

using namespace alpagym;

namespace {

Params params() {
  Params p{};
  p.idm_accel = 1.5f;
  p.idm_decel = 2.f;
  p.idm_headway = 1.2f;
  p.idm_gap = 2.f;
  p.idm_max_decel = 8.f;
  return p;
}

}  // namespace

TEST(idm_rests_at_the_equilibrium_gap) {
  // s_e(v) = (s0 + v T) / sqrt(1 - (v / v0)^4)
  for (const float speed : {0.f, 5.f, 10.f, 14.f}) {
    const float gap = (2.f + 1.2f * speed) / std::sqrt(1.f - std::pow(speed / 15.f, 4.f));
    CHECK_NEAR(idm_accel(params(), speed, 15.f, gap, 0.f), 0.0, 1e-5);
    CHECK(idm_accel(params(), speed, 15.f, 1.1f * gap, 0.f) > 0.f);
    CHECK(idm_accel(params(), speed, 15.f, 0.9f * gap, 0.f) < 0.f);
  }
}

TEST(idm_on_a_free_road) {
  CHECK_NEAR(idm_accel(params(), 0.f, 15.f, INFINITY, 0.f), 1.5, 1e-6);
  CHECK_NEAR(idm_accel(params(), 15.f, 15.f, INFINITY, 0.f), 0.0, 1e-6);
  CHECK(idm_accel(params(), 20.f, 15.f, INFINITY, 0.f) < 0.f);
}

TEST(idm_never_brakes_harder_than_its_limit) {
  CHECK(idm_accel(params(), 30.f, 15.f, 0.f, 30.f) == -8.f);
}

TEST(time_to_cover_is_kinematics) {
  CHECK_NEAR(time_to_cover(16.f, 0.f, 2.f), 4.0, 1e-5);  // d = a t^2 / 2
  CHECK_NEAR(time_to_cover(16.f, 6.f, 2.f), 2.0, 1e-5);  // 16 = 6 t + t^2
}
