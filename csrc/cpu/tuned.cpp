// The tuned stages, compiled for several machines.
#include "tuned.h"

#include "contact.h"
#include "observe_rows.h"

// `flatten` brings all that a function calls into it, and so under its target.
#if defined(__x86_64__)
#define ALPAGYM_FORMS(STAGE, BODY)                                                               \
  [[gnu::flatten]] void STAGE##_vector(const kernels::BODY& body, Worlds worlds) {               \
    run(body, worlds);                                                                           \
  }                                                                                              \
  [[gnu::flatten, gnu::target("avx2,bmi,bmi2,lzcnt,popcnt")]] void STAGE##_avx2(                 \
      const kernels::BODY& body, Worlds worlds) {                                                \
    run(body, worlds);                                                                           \
  }                                                                                              \
  [[gnu::flatten, gnu::target("arch=x86-64-v4")]] void STAGE##_avx512(const kernels::BODY& body, \
                                                                      Worlds worlds) {           \
    run(body, worlds);                                                                           \
  }
#define ALPAGYM_RUN(STAGE)                                        \
  if (form == Form::kAvx512) return STAGE##_avx512(body, worlds); \
  if (form == Form::kAvx2) return STAGE##_avx2(body, worlds);     \
  return STAGE##_vector(body, worlds)
#else
#define ALPAGYM_FORMS(STAGE, BODY)                                                 \
  [[gnu::flatten]] void STAGE##_vector(const kernels::BODY& body, Worlds worlds) { \
    run(body, worlds);                                                             \
  }
#define ALPAGYM_RUN(STAGE) return STAGE##_vector(body, worlds)
#endif

namespace alpagym::cpu {
namespace {

// visit(present, k) for every ego slot k of the worlds; those with too many agents go the plain
// way.
template <class Body, class Visit>
inline void with_present(const Body& body, const bool* mask, Worlds worlds, Visit&& visit) {
  Present present;
  const int each = body.st.E;
  for (int w = worlds.first; w < worlds.first + worlds.count; ++w) {
    if (mask && !mask[w]) continue;
    const World world = world_of(body.c, body.st, w);
    const bool fits = world.agents <= Present::kMax;
    if (fits) gather_present(body.c, body.st, w, world, present);
    for (int k = w * each; k < (w + 1) * each; ++k) {
      if (fits)
        visit(present, k);
      else
        body(k);
    }
  }
}

inline void run(const kernels::Contact& body, Worlds worlds) {
  with_present(body, nullptr, worlds,
               [&](const Present& present, int k) { contact(body, present, k); });
}
inline void run(const kernels::ObserveAgents& body, Worlds worlds) {
  with_present(body, body.mask, worlds,
               [&](const Present& present, int k) { observe_agents(body, present, k); });
}
inline void run(const kernels::ObserveRoad& body, Worlds worlds) {
  const int each = body.st.E;
  for (int k = worlds.first * each; k < (worlds.first + worlds.count) * each; ++k)
    if (!body.mask || body.mask[k / each]) observe_road(body, k);
}

ALPAGYM_FORMS(contact, Contact)
ALPAGYM_FORMS(agents, ObserveAgents)
ALPAGYM_FORMS(road, ObserveRoad)

}  // namespace

void contact(Form form, const kernels::Contact& body, Worlds worlds) { ALPAGYM_RUN(contact); }
void observe_agents(Form form, const kernels::ObserveAgents& body, Worlds worlds) {
  ALPAGYM_RUN(agents);
}
void observe_road(Form form, const kernels::ObserveRoad& body, Worlds worlds) { ALPAGYM_RUN(road); }

}  // namespace alpagym::cpu
