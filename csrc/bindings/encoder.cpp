#include "../cpu/encoder.h"

#include "parts.h"
#include "tensor_caster.h"

namespace alpagym {
namespace {

// A contiguous tensor of a shape; 0 leaves a size free.
template <class T>
T* borrowed(const char* name, py::handle h, std::initializer_list<int64_t> shape,
            int64_t* sizes = nullptr) {
  const auto label = [&] { return std::string("encode: ") + name; };
  const auto want = [&] {
    std::string s = "[";
    for (const int64_t size : shape) s += (s.size() > 1 ? ", " : "") + std::to_string(size);
    return s + "]";
  };
  const dlpack::Tensor t = borrow<T>(h, static_cast<int>(shape.size()), label, want);
  int d = 0;
  for (const int64_t size : shape) {
    if ((size > 0 && t.shape[d] != size) || t.device.type != kCPU)
      throw py::value_error(label() + ": expected " + want() + " on cpu, got " + describe(t));
    if (sizes) sizes[d] = t.shape[d];
    ++d;
  }
  return data<T>(t);
}

cpu::Elements elements_of(py::handle rows, py::handle mask, py::handle scale, int first_kind,
                          int num_kinds, py::handle w1, py::handle b1, py::handle w2,
                          py::handle b2) {
  cpu::Elements e{};
  int64_t sizes[3], scaled[1], features[1];
  e.rows = borrowed<const float>("rows", rows, {0, 0, 0}, sizes);
  e.scale = borrowed<const float>("scale", scale, {0}, scaled);
  e.b1 = borrowed<const float>("b1", b1, {0}, features);
  e.N = static_cast<int>(sizes[0]);
  e.K = static_cast<int>(sizes[1]);
  e.C = static_cast<int>(sizes[2]);
  e.F = static_cast<int>(features[0]);
  e.scaled = static_cast<int>(scaled[0]);
  e.first_kind = first_kind;
  e.num_kinds = num_kinds;
  if (num_kinds < 0 || num_kinds > cpu::kMaxInputs || e.scaled + (num_kinds > 0) > e.C ||
      e.inputs() > cpu::kMaxInputs)
    throw py::value_error("encode: expected rows of at least " +
                          std::to_string(e.scaled + (num_kinds > 0)) + " columns, got " +
                          std::to_string(e.C));
  if (e.F < 8 || e.F > cpu::kMaxFeatures || (e.F & (e.F - 1)))
    throw py::value_error("encode: expected 8, 16, 32, 64 or 128 features, got " +
                          std::to_string(e.F));
  e.mask = borrowed<const bool>("mask", mask, {e.N, e.K});
  e.w1 = borrowed<const float>("w1", w1, {e.F, e.inputs()});
  e.w2 = borrowed<const float>("w2", w2, {e.F, e.F});
  e.b2 = borrowed<const float>("b2", b2, {e.F});
  return e;
}

void encode(py::handle rows, py::handle mask, py::handle scale, int first_kind, int num_kinds,
            py::handle w1, py::handle b1, py::handle w2, py::handle b2, py::handle out,
            py::handle largest) {
  const auto e = elements_of(rows, mask, scale, first_kind, num_kinds, w1, b1, w2, b2);
  float* to = borrowed<float>("out", out, {e.N, e.F});
  int32_t* where = borrowed<int32_t>("largest", largest, {e.N, e.F});
  py::gil_scoped_release release;
  cpu::encode(e, to, where);
}

void encode_backward(py::handle rows, py::handle mask, py::handle scale, int first_kind,
                     int num_kinds, py::handle w1, py::handle b1, py::handle w2, py::handle b2,
                     py::handle largest, py::handle gradient, py::handle parts) {
  const auto e = elements_of(rows, mask, scale, first_kind, num_kinds, w1, b1, w2, b2);
  const int32_t* where = borrowed<const int32_t>("largest", largest, {e.N, e.F});
  const float* given = borrowed<const float>("gradient", gradient, {e.N, e.F});
  for (int64_t k = 0; k < static_cast<int64_t>(e.N) * e.F; ++k)
    if (where[k] < -1 || where[k] >= e.K)
      throw py::value_error("encode: largest: expected slots -1 to " + std::to_string(e.K - 1) +
                            ", got " + std::to_string(where[k]));
  float* to = borrowed<float>("parts", parts,
                              {(e.N + cpu::kSetsPerPart - 1) / cpu::kSetsPerPart, e.parameters()});
  py::gil_scoped_release release;
  cpu::encode_backward(e, where, given, to);
}

}  // namespace

void bind_encoder(py::module_& m) {
  m.attr("sets_per_part") = cpu::kSetsPerPart;
  m.def("encode", &encode, py::arg("rows"), py::arg("mask"), py::arg("scale"),
        py::arg("first_kind"), py::arg("num_kinds"), py::arg("w1"), py::arg("b1"), py::arg("w2"),
        py::arg("b2"), py::arg("out"), py::arg("largest"));
  m.def("encode_backward", &encode_backward, py::arg("rows"), py::arg("mask"), py::arg("scale"),
        py::arg("first_kind"), py::arg("num_kinds"), py::arg("w1"), py::arg("b1"), py::arg("w2"),
        py::arg("b2"), py::arg("largest"), py::arg("gradient"), py::arg("parts"));
}

}  // namespace alpagym
