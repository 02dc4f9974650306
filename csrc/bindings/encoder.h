// Python's way to the fused encoder.
#pragma once
#include <pybind11/pybind11.h>

namespace alpagym {
void bind_encoder(pybind11::module_& m);
}  // namespace alpagym
