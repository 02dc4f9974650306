// What a call found of a struct of tensors, kept on the Python object that holds them, so that the
// next call need not check everything again but only look whether something has changed.
#pragma once
#include <pybind11/pybind11.h>

#include <algorithm>
#include <array>
#include <memory>
#include <utility>
#include <vector>

#include "dlpack.h"

namespace alpagym {
namespace py = pybind11;

inline const dlpack::ExchangeAPI& exchange_api() {
  static const dlpack::ExchangeAPI& api = []() -> const dlpack::ExchangeAPI& {
    py::object tensor = py::module_::import("torch").attr("Tensor");
    if (!py::hasattr(tensor, "__dlpack_c_exchange_api__"))
      throw py::import_error("alpagym needs torch >= 2.10");
    py::object capsule = tensor.attr("__dlpack_c_exchange_api__");
    auto* p = static_cast<dlpack::ExchangeAPI*>(
        PyCapsule_GetPointer(capsule.ptr(), "dlpack_exchange_api"));
    if (!p) throw py::error_already_set();
    if (p->version.major != dlpack::kMajorVersion)
      throw py::import_error("alpagym speaks DLPack 1.x, torch offers " +
                             std::to_string(p->version.major));
    return *p;
  }();
  return api;
}

// One tensor as it was when it was checked.
class Held {
 public:
  static constexpr int kMaxRank = 4;
  Held(py::object tensor, const dlpack::Tensor& found) : tensor_(std::move(tensor)), found_(found) {
    std::copy_n(found.shape, found.ndim, shape_.begin());
    std::copy_n(found.strides, found.ndim, strides_.begin());
    found_.shape = found_.strides = nullptr;  // torch's own, which may move
    // A second reference makes looking three times as fast: torch need not keep the Python object
    // alive anew each time.  Without one, looking works all the same.
    dlpack::ManagedTensor* owned = nullptr;
    if (exchange_api().managed_from_object(tensor_.ptr(), &owned) == 0)
      owned_.reset(owned);
    else
      PyErr_Clear();
  }

  // Whether `now` is this tensor, at the same place in memory and of the same layout: it may have
  // been resized, moved to shared memory or given other storage in place.
  bool is(PyObject* now) const {
    if (now != tensor_.ptr()) return false;
    dlpack::Tensor t;
    if (exchange_api().tensor_from_object(now, &t) != 0) {
      PyErr_Clear();
      return false;
    }
    return t.data == found_.data && t.byte_offset == found_.byte_offset &&
           t.device == found_.device && t.dtype == found_.dtype && t.ndim == found_.ndim &&
           std::equal(t.shape, t.shape + t.ndim, shape_.begin()) &&
           std::equal(t.strides, t.strides + t.ndim, strides_.begin());
  }

 private:
  struct Release {
    void operator()(dlpack::ManagedTensor* owned) const {
      if (owned->deleter) owned->deleter(owned);
    }
  };
  py::object tensor_;
  std::unique_ptr<dlpack::ManagedTensor, Release> owned_;
  dlpack::Tensor found_;
  std::array<int64_t, kMaxRank> shape_{}, strides_{};
};

// The names of S's fields as Python strings, made once.
template <class S>
const std::vector<PyObject*>& field_names() {
  static const std::vector<PyObject*> names = [] {
    std::vector<PyObject*> made;
    S::fields([&](const char* name, auto&&...) {
      made.push_back(PyUnicode_InternFromString(name));
      if (!made.back()) throw py::error_already_set();
    });
    return made;
  }();
  return names;
}

// Never changed once made, so that threads may share it.
template <class S>
struct Borrowed {
  S value;
  std::vector<Held> tensors;  // by field

  // Fields are looked up in the object's own dictionary: half the work of asking for attributes.
  bool holds(py::handle owner) const {
    const auto own =
        py::reinterpret_steal<py::object>(PyObject_GenericGetDict(owner.ptr(), nullptr));
    if (!own) PyErr_Clear();
    auto name = field_names<S>().begin();
    for (const Held& tensor : tensors) {
      PyObject* now = own ? PyDict_GetItemWithError(own.ptr(), *name++) : nullptr;
      if (!now || !tensor.is(now)) {
        PyErr_Clear();
        return false;
      }
    }
    return true;
  }
};

// The attribute in which alpagym.types.TensorStruct lets the core keep a Borrowed; None before.
inline PyObject* kept_name() {
  static PyObject* name = PyUnicode_InternFromString("_borrowed");
  return name;
}
// Nothing for objects without that attribute.
inline py::object kept_by(py::handle owner) {
  auto kept = py::reinterpret_steal<py::object>(PyObject_GetAttr(owner.ptr(), kept_name()));
  if (!kept) PyErr_Clear();
  return kept;
}
template <class S>
const Borrowed<S>* borrowed_in(py::handle kept) {
  if (!PyCapsule_IsValid(kept.ptr(), S::python_name)) return nullptr;
  return static_cast<const Borrowed<S>*>(PyCapsule_GetPointer(kept.ptr(), S::python_name));
}
template <class S>
void keep(py::handle owner, Borrowed<S>&& found) {
  auto borrowed = std::make_unique<Borrowed<S>>(std::move(found));
  const auto capsule = py::reinterpret_steal<py::object>(
      PyCapsule_New(borrowed.get(), S::python_name, [](PyObject* self) {
        delete static_cast<Borrowed<S>*>(PyCapsule_GetPointer(self, S::python_name));
      }));
  if (!capsule) throw py::error_already_set();
  borrowed.release();
  if (PyObject_SetAttr(owner.ptr(), kept_name(), capsule.ptr()) != 0) throw py::error_already_set();
}

}  // namespace alpagym
