#include "../sim.h"
#include "parts.h"

namespace py = pybind11;

namespace alpagym {
namespace {

std::string cpu_form() {
  static constexpr const char* names[] = {"plain", "vector", "avx2", "avx512"};
  return names[static_cast<int>(cpu::form())];
}
void use_cpu_form(const std::string& name) {
  for (const auto& [known, form] : {std::pair{"plain", cpu::Form::kPlain},
                                    {"vector", cpu::Form::kVector},
                                    {"avx2", cpu::Form::kAvx2},
                                    {"avx512", cpu::Form::kAvx512}}) {
    if (name != known) continue;
    if (cpu::use_form(form)) return;
    throw py::value_error("use_cpu_form: this CPU cannot run " + name);
  }
  throw py::value_error("use_cpu_form: expected plain, vector, avx2 or avx512, got " + name);
}

// Without a CUDA backend there is no form of it to choose.
std::string cuda_form() {
#ifdef ALPAGYM_CUDA
  return cuda::form() == cuda::Form::kFused ? "fused" : "plain";
#else
  return "none";
#endif
}
void use_cuda_form(const std::string& name) {
  if (name != "plain" && name != "fused")
    throw py::value_error("use_cuda_form: expected plain or fused, got " + name);
#ifdef ALPAGYM_CUDA
  cuda::use_form(name == "fused" ? cuda::Form::kFused : cuda::Form::kPlain);
#else
  throw py::value_error("use_cuda_form: this build of alpagym has no CUDA backend");
#endif
}

}  // namespace

void bind_forms(py::module_& m) {
  m.def("cpu_form", &cpu_form);
  m.def("use_cpu_form", &use_cpu_form, py::arg("name"));
  m.def("cuda_form", &cuda_form);
  m.def("use_cuda_form", &use_cuda_form, py::arg("name"));
}

}  // namespace alpagym
