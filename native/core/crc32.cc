#include "core/crc32.h"

#include <cstring>

namespace vhost_net {
namespace {

constexpr uint32_t kPolynomial = 0xedb88320;
constexpr size_t kStep = 8;

/// Row k is for a byte that has k more behind it in its step of eight.
struct Tables {
  uint32_t row[kStep][256];

  constexpr Tables() : row() {
    for (uint32_t byte = 0; byte < 256; byte++) {
      uint32_t crc = byte;
      for (int bit = 0; bit < 8; bit++) crc = crc >> 1 ^ ((crc & 1) != 0 ? kPolynomial : 0);
      row[0][byte] = crc;
    }
    for (size_t k = 1; k < kStep; k++) {
      for (size_t byte = 0; byte < 256; byte++) {
        row[k][byte] = row[k - 1][byte] >> 8 ^ row[0][row[k - 1][byte] & 0xff];
      }
    }
  }
};

constexpr Tables kTables;

}  // namespace

uint32_t Crc32(const uint8_t* bytes, size_t length, uint32_t crc) {
  crc = ~crc;
  for (; length >= kStep; bytes += kStep, length -= kStep) {
    uint32_t low, high;
    memcpy(&low, bytes, sizeof low);
    memcpy(&high, bytes + sizeof low, sizeof high);
    low ^= crc;
    crc = kTables.row[7][low & 0xff] ^ kTables.row[6][low >> 8 & 0xff] ^ kTables.row[5][low >> 16 & 0xff] ^
          kTables.row[4][low >> 24] ^ kTables.row[3][high & 0xff] ^ kTables.row[2][high >> 8 & 0xff] ^
          kTables.row[1][high >> 16 & 0xff] ^ kTables.row[0][high >> 24];
  }
  for (; length > 0; bytes++, length--) crc = crc >> 8 ^ kTables.row[0][(crc ^ *bytes) & 0xff];
  return ~crc;
}

}  // namespace vhost_net
