#ifndef VHOST_NET_CORE_CRC32_H_
#define VHOST_NET_CORE_CRC32_H_

#include <cstddef>
#include <cstdint>

namespace vhost_net {

/// CRC-32 of IEEE 802.3, as zlib's crc32: goes on with `crc`, 0 before the first byte.
uint32_t Crc32(const uint8_t* bytes, size_t length, uint32_t crc);

}  // namespace vhost_net

#endif
