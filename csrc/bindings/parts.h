// Parts of the Python module that have nothing to do with worlds.
#pragma once
#include <pybind11/pybind11.h>

namespace alpagym {
void bind_encoder(pybind11::module_& m);  // the fused encoder
void bind_forms(pybind11::module_& m);    // which form of the code runs
void bind_scan(pybind11::module_& m);     // what opening a store asks of every byte
}  // namespace alpagym
