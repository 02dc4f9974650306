// torch.Tensor -> C++ without libtorch: borrow the memory through DLPack's C exchange API.
// Nothing is copied; the caller's Python objects keep the memory alive for the call.
#pragma once
#include <pybind11/pybind11.h>

#include <string>
#include <string_view>
#include <type_traits>

#include "../rows.h"
#include "borrowed.h"
#include "dlpack.h"

namespace alpagym {
namespace py = pybind11;

// The tensor dtype behind a C++ element; a record of floats is a row of a float32 tensor.
template <class T>
struct DTypeOf {
  static_assert(sizeof(T) == T::kColumns * sizeof(float));
  static constexpr dlpack::DType value{dlpack::kFloat, 32, 1};
  static constexpr auto name = "float32";
};
#define ALPAGYM_DTYPE(type, code, bits, label)                   \
  template <>                                                    \
  struct DTypeOf<type> {                                         \
    static constexpr dlpack::DType value{dlpack::code, bits, 1}; \
    static constexpr auto name = label;                          \
  }
ALPAGYM_DTYPE(float, kFloat, 32, "float32");
ALPAGYM_DTYPE(int32_t, kInt, 32, "int32");
ALPAGYM_DTYPE(int64_t, kInt, 64, "int64");
ALPAGYM_DTYPE(uint8_t, kUInt, 8, "uint8");
ALPAGYM_DTYPE(uint16_t, kUInt, 16, "uint16");
ALPAGYM_DTYPE(bool, kBool, 8, "bool");
#undef ALPAGYM_DTYPE

// Rows take several dtypes; the tensor's tells the format.
template <>
struct DTypeOf<Rows> {
  static constexpr auto name = "rows";
};
inline bool read_format(const dlpack::DType& dtype, RowFormat* format) {
  if (dtype == dlpack::DType{dlpack::kFloat, 32, 1})
    *format = RowFormat::kFloat32;
  else if (dtype == dlpack::DType{dlpack::kFloat, 16, 1})
    *format = RowFormat::kFloat16;
  else if (dtype == dlpack::DType{dlpack::kBfloat, 16, 1})
    *format = RowFormat::kBfloat16;
  else if (dtype == dlpack::DType{dlpack::kInt, 32, 1})
    *format = RowFormat::kIndex;
  else
    return false;
  return true;
}

inline std::string describe(const dlpack::Tensor& t) {
  std::string s;
  switch (t.dtype.code) {
    case dlpack::kFloat:
      s = "float";
      break;
    case dlpack::kInt:
      s = "int";
      break;
    case dlpack::kUInt:
      s = "uint";
      break;
    case dlpack::kBfloat:
      s = "bfloat";
      break;
    case dlpack::kComplex:
      s = "complex";
      break;
    case dlpack::kBool:
      s = "bool";
      break;
    default:
      s = "dtype";
  }
  if (t.dtype.code != dlpack::kBool) s += std::to_string(t.dtype.bits);
  s += "[";
  for (int d = 0; d < t.ndim; ++d) s += (d ? ", " : "") + std::to_string(t.shape[d]);
  s += "] on ";
  if (t.device.type == kCPU) return s + "cpu";
  if (t.device.type == kCUDA) return s + "cuda:" + std::to_string(t.device.index);
  return s + "device type " + std::to_string(t.device.type);
}

// Exactly torch.Tensor or torch.nn.Parameter: other subclasses (FakeTensor, DTensor) may have no
// storage.
inline bool is_plain_tensor(py::handle h) {
  static PyObject* tensor = py::object(py::module_::import("torch").attr("Tensor")).release().ptr();
  static PyObject* parameter =
      py::object(py::module_::import("torch.nn").attr("Parameter")).release().ptr();
  auto* type = reinterpret_cast<PyObject*>(Py_TYPE(h.ptr()));
  return type == tensor || type == parameter;
}

// Borrow `h` as a contiguous tensor of `rank` whose dtype is fit.  `name()` and `want()` are called
// only to word an error.
template <class Fits, class Name, class Want>
dlpack::Tensor borrow_if(py::handle h, int rank, Fits&& fits, const char* dtype, Name&& name,
                         Want&& want) {
  if (!is_plain_tensor(h))
    throw py::type_error(name() + ": expected torch.Tensor, got " + Py_TYPE(h.ptr())->tp_name);
  dlpack::Tensor t;
  if (exchange_api().tensor_from_object(h.ptr(), &t) != 0) {
    const std::string reason =
        py::str(py::error_already_set().value());  // the first line; a trace may follow
    throw py::value_error(name() + ": expected contiguous " + dtype + want() +
                          ", got a tensor without plain memory (" +
                          reason.substr(0, reason.find('\n')) + ")");
  }
  bool contiguous = true;
  int64_t size = 1;
  for (int d = t.ndim - 1; d >= 0; --d) {
    contiguous &= t.shape[d] == 1 || t.strides[d] == size;
    size *= t.shape[d];
  }
  if (t.ndim != rank || !fits(t.dtype) || (size > 0 && !contiguous))
    throw py::value_error(name() + ": expected contiguous " + dtype + want() + ", got " +
                          describe(t) + (size > 0 && !contiguous ? ", not contiguous" : ""));
  if (t.device.type != kCPU && t.device.type != kCUDA)
    throw py::value_error(name() + ": expected a tensor on cpu or cuda, got " + describe(t));
  if (!t.data && size > 0) throw py::value_error(name() + ": tensor has no memory");
  return t;
}
template <class T, class Name, class Want>
dlpack::Tensor borrow(py::handle h, int rank, Name&& name, Want&& want) {
  using D = DTypeOf<std::remove_const_t<T>>;
  return borrow_if(
      h, rank, [](const dlpack::DType& dtype) { return dtype == D::value; }, D::name, name, want);
}

template <class T>
T* data(const dlpack::Tensor& t) {
  return reinterpret_cast<T*>(static_cast<char*>(t.data) + t.byte_offset);
}

// A GPU reads records in accesses of 16 bytes (ALPAGYM_RECORD); a slice of a tensor may begin
// between two of them.
template <class T>
bool is_aligned(const dlpack::Tensor& t) {
  constexpr bool record = requires { T::kColumns; };
  return !record || t.device.type != kCUDA || reinterpret_cast<uintptr_t>(data<T>(t)) % 16 == 0;
}

// The sizes of named dimensions, as they are met field by field.  "W" is a name, "4" a fixed size,
// "S+1" one more than a name.
class Dimensions {
 public:
  // Whether `size` agrees; the first tensor that shows a name gives it its size.
  bool agrees(std::string_view symbol, int64_t size, const char* field) {
    if (symbol[0] >= '0' && symbol[0] <= '9') return size == std::stoi(std::string(symbol));
    int64_t base = size;
    if (symbol.size() > 2 && symbol.substr(symbol.size() - 2) == "+1") {
      symbol.remove_suffix(2);
      base = size - 1;
    }
    for (int i = 0; i < count_; ++i)
      if (known_[i].symbol == symbol) return known_[i].size == base;
    known_[count_++] = {symbol, base, field};
    return true;
  }
  // " with A=3 (from State.x)", or nothing for a fixed size.
  std::string explain(std::string_view symbol, const std::string& owner) const {
    if (symbol.size() > 2 && symbol.substr(symbol.size() - 2) == "+1") symbol.remove_suffix(2);
    for (int i = 0; i < count_; ++i)
      if (known_[i].symbol == symbol)
        return " with " + std::string(symbol) + "=" + std::to_string(known_[i].size) + " (from " +
               owner + known_[i].field + ")";
    return "";
  }
  int size_of(std::string_view symbol) const {
    for (int i = 0; i < count_; ++i)
      if (known_[i].symbol == symbol) return static_cast<int>(known_[i].size);
    return 0;
  }

 private:
  struct Known {
    std::string_view symbol;
    int64_t size;
    const char* field;
  };
  Known known_[32];
  int count_ = 0;
};

}  // namespace alpagym

namespace pybind11::detail {

// Any Python object with one tensor attribute per field of S.  Checks type, dtype, layout and
// device, and that all fields agree on the size of each named dimension; or, with an object that
// keeps what an earlier call found (borrowed.h), only that nothing has changed.
template <class S>
struct tensor_struct_caster {
  PYBIND11_TYPE_CASTER(S, const_name(S::python_name));
  bool load(handle src, bool) {
    using namespace alpagym;
    const object kept = kept_by(src);
    if (const auto* borrowed = kept ? borrowed_in<S>(kept) : nullptr;
        borrowed && borrowed->holds(src)) {
      value = borrowed->value;
      return true;
    }
    std::vector<Held> held;
    check(src, kept ? &held : nullptr);
    if (kept) keep(src, Borrowed<S>{value, std::move(held)});
    return true;
  }

 private:
  // Fills `value`, and `held` with its tensors if wanted.
  void check(handle src, std::vector<alpagym::Held>* held) {
    using namespace alpagym;
    Dimensions dimensions;
    const char* device_field = nullptr;
    auto key = field_names<S>().begin();
    S::fields([&](const char* field, auto member, auto... symbols) {
      using T = std::remove_pointer_t<std::remove_reference_t<decltype(value.*member)>>;
      constexpr int rank = sizeof...(symbols);
      static_assert(rank <= Held::kMaxRank);
      const char* symbol[] = {symbols...};
      auto owner = [&] { return std::string(S::python_name) + "."; };
      auto name = [&] { return owner() + field; };
      auto want = [&] {
        std::string s = "[";
        for (int d = 0; d < rank; ++d) s += (d ? ", " : "") + std::string(symbol[d]);
        return s + "]";
      };
      object attr = reinterpret_steal<object>(PyObject_GetAttr(src.ptr(), *key++));
      if (!attr) {
        PyErr_Clear();
        throw type_error("expected " + std::string(S::python_name) + " with a tensor " + field +
                         ", got " + Py_TYPE(src.ptr())->tp_name);
      }
      dlpack::Tensor t;
      if constexpr (std::is_same_v<T, Rows>)
        t = borrow_if(
            attr, rank,
            [&](const dlpack::DType& dtype) { return read_format(dtype, &(value.*member).format); },
            "float32, float16, bfloat16 or int32 ", name, want);
      else
        t = borrow<T>(attr, rank, name, want);
      if (!is_aligned<std::remove_const_t<T>>(t))
        throw value_error(name() + ": expected rows that begin at a multiple of 16 bytes, got " +
                          describe(t) + " at another place; clone it");
      for (int d = 0; d < rank; ++d)
        if (!dimensions.agrees(symbol[d], t.shape[d], field))
          throw value_error(name() + ": expected " + DTypeOf<std::remove_const_t<T>>::name +
                            want() + dimensions.explain(symbol[d], owner()) + ", got " +
                            describe(t));
      if (!device_field) {
        value.device = t.device;
        device_field = field;
      } else if (t.device != value.device) {
        throw value_error(name() + ": expected the device of " + owner() + device_field + ", got " +
                          describe(t));
      }
      if constexpr (std::is_same_v<T, Rows>)
        (value.*member).data = data<char>(t);
      else
        value.*member = data<T>(t);
      if (held) held->emplace_back(std::move(attr), t);
    });
    value.bind([&](std::string_view symbol) { return dimensions.size_of(symbol); });
  }
};

}  // namespace pybind11::detail
