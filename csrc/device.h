// Where a struct's memory lives: the same two numbers as in DLPack.
#pragma once
#include <cstdint>

namespace alpagym {

enum DeviceType : int32_t { kCPU = 1, kCUDA = 2 };
struct Device {
  DeviceType type;
  int32_t index;
  bool operator==(const Device&) const = default;
};

}  // namespace alpagym
