// The tuned stages, in the form for this machine. Results are the plain kernels', bit for bit but
// for the order of slots where SlotOrder leaves it open.
#pragma once
#include "../kernels/contact.h"
#include "../kernels/observe.h"
#include "../sim.h"

namespace alpagym::cpu {

struct Worlds {
  int first, count;
};

void contact(Form form, const kernels::Contact& body, Worlds worlds);
void observe_agents(Form form, const kernels::ObserveAgents& body, Worlds worlds);
void observe_road(Form form, const kernels::ObserveRoad& body, Worlds worlds);

}  // namespace alpagym::cpu
