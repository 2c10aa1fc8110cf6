// IEEE float16.
#pragma once

#include <cstdint>
#include <cstring>

namespace ragrig {

// Exact: every float16 is a float32.
inline float half_to_float(uint16_t half) {
  const uint32_t sign = static_cast<uint32_t>(half & 0x8000u) << 16;
  const uint32_t exponent = (half >> 10) & 0x1Fu;
  const uint32_t fraction = half & 0x3FFu;
  if (exponent == 0) {
    // Zero or denormal: fraction * 2^-24, exact in float32.
    const float value = static_cast<float>(fraction) * 5.9604644775390625e-08f;
    return sign ? -value : value;
  }
  const uint32_t bits = exponent == 31 ? sign | 0x7F800000u | (fraction << 13)
                                       : sign | ((exponent + 112) << 23) | (fraction << 13);
  float value;
  std::memcpy(&value, &bits, sizeof value);
  return value;
}

}  // namespace ragrig
