#ifndef VHOST_NET_CORE_DIRTY_LOG_H_
#define VHOST_NET_CORE_DIRTY_LOG_H_

#include <cstddef>
#include <cstdint>

namespace vhost_net {

/// Bitmaps of u64 words: page n is bit n % 64 of word n / 64, as vhost writes them on little-endian hosts.

/// Takes the bits that other threads and the kernel set concurrently in `log`, leaving 0, and ORs them into `target`.
/// Answers how many were new there.
uint64_t TakeDirtyLog(uint64_t* log, uint64_t* target, size_t words);
/// Bits set.
uint64_t CountBits(const uint64_t* bitmap, size_t words);
/// Writes the index of every set bit from bit `from` on into `out` until `capacity` are found. Answers how many.
size_t FindBits(const uint64_t* bitmap, size_t words, uint64_t from, uint32_t* out, size_t capacity);
/// Sets `count` bits from `first`; bits behind the bitmap's end are left out. Answers how many were clear before.
uint64_t SetBits(uint64_t* bitmap, size_t words, uint64_t first, uint64_t count);

}  // namespace vhost_net

#endif
