// zlib's CRC-32, sixteen bytes a step.
#pragma once

#include <cstddef>
#include <cstdint>

namespace ragrig {

// crc: the value of the bytes before, 0 at the start; as zlib.crc32 counts it.
uint32_t crc32(const uint8_t* data, size_t size, uint32_t crc = 0);

}  // namespace ragrig
