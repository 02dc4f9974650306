// The tuned stages, compiled for several machines.
#include "tuned.h"

#include "contact.h"
#include "forms.h"
#include "observe_rows.h"

namespace alpagym::cpu {
namespace {

// visit(present, k) for every ego slot k of the worlds; those with too many agents go the plain
// way, and those for which `plain(w)` holds.
template <class Body, class Plain, class Visit>
inline void with_present(const Body& body, const bool* mask, Worlds worlds, Plain&& plain,
                         Visit&& visit) {
  Present present;
  const int each = body.st.E;
  for (int w = worlds.first; w < worlds.first + worlds.count; ++w) {
    if (mask && !mask[w]) continue;
    const World world = world_of(body.c, body.st, w);
    const bool fits = world.agents <= Present::kMax && !plain(w);
    if (fits) gather_present(body.c, body.st, w, world, present);
    for (int k = w * each; k < (w + 1) * each; ++k) {
      if (fits)
        visit(present, k);
      else
        body(k);
    }
  }
}

template <class Body>
struct Stage {
  const Body& body;
  Worlds worlds;
};

inline void run(const Stage<kernels::Contact>& s) {
  const auto still = [&](int w) { return s.body.st.still[w]; };  // nobody is judged
  with_present(s.body, nullptr, s.worlds, still,
               [&](const Present& present, int k) { contact(s.body, present, k); });
}
inline void run(const Stage<kernels::ObserveAgents>& s) {
  with_present(
      s.body, s.body.mask, s.worlds, [](int) { return false; },
      [&](const Present& present, int k) { observe_agents(s.body, present, k); });
}
inline void run(const Stage<kernels::ObserveRoad>& s) {
  const kernels::ObserveRoad& body = s.body;
  const int each = body.st.E;
  for (int k = s.worlds.first * each; k < (s.worlds.first + s.worlds.count) * each; ++k)
    if (!body.mask || body.mask[k / each]) observe_road(body, k);
}

ALPAGYM_FORMS(contact_form, Stage<kernels::Contact>)
ALPAGYM_FORMS(agents_form, Stage<kernels::ObserveAgents>)
ALPAGYM_FORMS(road_form, Stage<kernels::ObserveRoad>)

}  // namespace

void contact(Form form, const kernels::Contact& body, Worlds worlds) {
  contact_form(form, {body, worlds});
}
void observe_agents(Form form, const kernels::ObserveAgents& body, Worlds worlds) {
  agents_form(form, {body, worlds});
}
void observe_road(Form form, const kernels::ObserveRoad& body, Worlds worlds) {
  road_form(form, {body, worlds});
}

}  // namespace alpagym::cpu
