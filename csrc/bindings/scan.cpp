#include "../scan.h"

#include "parts.h"

namespace py = pybind11;

namespace alpagym {
namespace {

// The sum of an array's words and whether its values lie in bounds; bytes that are mapped from a
// file may be anything, and begin anywhere.
py::tuple scan_array(const py::buffer& array, double low, double high, bool nan) {
  const py::buffer_info info = array.request();
  if (info.ndim != 1 || (info.size > 0 && info.strides[0] != info.itemsize))
    throw py::value_error("scan: expected one dimension without gaps");
  const auto scanned = [&](auto example) {
    const auto allowed = inside<decltype(example)>(low, high, nan);
    py::gil_scoped_release release;
    return scan(static_cast<const unsigned char*>(info.ptr), info.size, allowed);
  };
  Scanned found{};
  switch (info.format.back()) {  // what stands before it tells whether the array is aligned
    case 'f':
      found = scanned(float{});
      break;
    case 'i':
      found = scanned(int32_t{});
      break;
    case 'B':
      found = scanned(uint8_t{});
      break;
    default:
      throw py::value_error("scan: expected float32, int32 or uint8, got " + info.format);
  }
  return py::make_tuple(found.sum, found.fits);
}

}  // namespace

void bind_scan(py::module_& m) {
  m.def("scan", &scan_array, py::arg("array"), py::arg("low"), py::arg("high"), py::arg("nan"));
}

}  // namespace alpagym
