#include "crc32.hpp"

#include <array>
#include <cstring>

namespace ragrig {
namespace {

constexpr int kSlices = 16;
using Tables = std::array<std::array<uint32_t, 256>, kSlices>;

// Table s advances a byte by s more zero bytes than table 0.
constexpr Tables make_tables() {
  Tables tables{};
  for (uint32_t byte = 0; byte < 256; ++byte) {
    uint32_t crc = byte;
    for (int bit = 0; bit < 8; ++bit) crc = (crc >> 1) ^ ((crc & 1) ? 0xEDB88320u : 0u);
    tables[0][byte] = crc;
  }
  for (size_t s = 1; s < kSlices; ++s)
    for (size_t byte = 0; byte < 256; ++byte) {
      const uint32_t before = tables[s - 1][byte];
      tables[s][byte] = (before >> 8) ^ tables[0][before & 0xFF];
    }
  return tables;
}

constexpr Tables kTables = make_tables();

}  // namespace

uint32_t crc32(const uint8_t* data, size_t size, uint32_t crc) {
  crc = ~crc;
  while (size >= kSlices) {
    uint8_t bytes[kSlices];
    std::memcpy(bytes, data, kSlices);
    for (size_t i = 0; i < 4; ++i) bytes[i] = static_cast<uint8_t>(bytes[i] ^ (crc >> (8 * i)));
    crc = 0;
    for (size_t i = 0; i < kSlices; ++i) crc ^= kTables[kSlices - 1 - i][bytes[i]];
    data += kSlices;
    size -= kSlices;
  }
  while (size-- > 0) crc = (crc >> 8) ^ kTables[0][(crc ^ *data++) & 0xFF];
  return ~crc;
}

}  // namespace ragrig
