// The part of the DLPack 1.3 C ABI that we use (https://dmlc.github.io/dlpack/latest/c_api.html).
// The layout is fixed by the standard; the major version is checked at import.
#pragma once
#include <cstdint>

#include "../device.h"

namespace alpagym::dlpack {

constexpr uint32_t kMajorVersion = 1;
enum TypeCode : uint8_t { kInt = 0, kUInt = 1, kFloat = 2, kBfloat = 4, kComplex = 5, kBool = 6 };

struct DType {
  uint8_t code;
  uint8_t bits;
  uint16_t lanes;
  bool operator==(const DType&) const = default;
};
struct Tensor {
  void* data;
  Device device;
  int32_t ndim;
  DType dtype;
  int64_t* shape;
  int64_t* strides;  // in elements
  uint64_t byte_offset;
};
struct Version {
  uint32_t major, minor;
};
struct ManagedTensor {  // owns a reference to the tensor until the deleter is called
  Version version;
  void* context;
  void (*deleter)(ManagedTensor* self);
  uint64_t flags;
  Tensor tensor;
};
struct ExchangeAPI {  // what torch.Tensor.__dlpack_c_exchange_api__ points to
  Version version;
  void* previous;
  void* allocate;
  int (*managed_from_object)(void* py_object, ManagedTensor** out);
  void* managed_to_object;
  int (*tensor_from_object)(void* py_object, Tensor* out);               // borrows, never copies
  int (*current_stream)(DeviceType type, int32_t index, void** stream);  // torch's current stream
};

}  // namespace alpagym::dlpack
