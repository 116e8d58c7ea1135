#include "core/dirty_log.h"

namespace vhost_net {
namespace {

/// Bitmaps are mostly zeros: looked at in strides of a cache line.
constexpr size_t kStride = 8;

/// Whether the stride that begins at `words` has a bit set. Bits set meanwhile by others may or may not be seen.
bool AnySet(const uint64_t* words) {
  uint64_t any = 0;
  for (size_t i = 0; i < kStride; i++) any |= __atomic_load_n(&words[i], __ATOMIC_RELAXED);
  return any != 0;
}

}  // namespace

uint64_t TakeDirtyLog(uint64_t* log, uint64_t* target, size_t words) {
  uint64_t fresh = 0;
  for (size_t i = 0; i < words; i++) {
    if (i % kStride == 0) {
      while (i + kStride <= words && !AnySet(&log[i])) i += kStride;
      if (i == words) break;
    }
    if (__atomic_load_n(&log[i], __ATOMIC_RELAXED) == 0) continue;
    // Acquire: the pages are read after their bits were taken, never before. A write in between sets its bit again.
    const uint64_t taken = __atomic_exchange_n(&log[i], 0, __ATOMIC_ACQUIRE);
    fresh += static_cast<uint64_t>(__builtin_popcountll(taken & ~target[i]));
    target[i] |= taken;
  }
  return fresh;
}

uint64_t CountBits(const uint64_t* bitmap, size_t words) {
  uint64_t count = 0;
  for (size_t i = 0; i < words; i++) {
    if (bitmap[i] != 0) count += static_cast<uint64_t>(__builtin_popcountll(bitmap[i]));
  }
  return count;
}

size_t FindBits(const uint64_t* bitmap, size_t words, uint64_t from, uint32_t* out, size_t capacity) {
  size_t found = 0;
  size_t i = static_cast<size_t>(from / 64);
  uint64_t keep = ~uint64_t{0} << (from % 64);
  for (; i < words; i++, keep = ~uint64_t{0}) {
    if (i % kStride == 0) {
      while (i + kStride <= words && !AnySet(&bitmap[i])) {
        i += kStride;
        keep = ~uint64_t{0};
      }
      if (i == words) break;
    }
    for (uint64_t word = bitmap[i] & keep; word != 0; word &= word - 1) {
      if (found == capacity) return found;
      out[found++] = static_cast<uint32_t>(i * 64 + static_cast<size_t>(__builtin_ctzll(word)));
    }
  }
  return found;
}

uint64_t SetBits(uint64_t* bitmap, size_t words, uint64_t first, uint64_t count) {
  const uint64_t bits = static_cast<uint64_t>(words) * 64;
  if (first >= bits) return 0;
  uint64_t left = count < bits - first ? count : bits - first;
  uint64_t fresh = 0;
  while (left > 0) {
    const uint64_t offset = first % 64;
    const uint64_t here = left < 64 - offset ? left : 64 - offset;
    const uint64_t mask = (here == 64 ? ~uint64_t{0} : (uint64_t{1} << here) - 1) << offset;
    uint64_t& word = bitmap[first / 64];
    fresh += static_cast<uint64_t>(__builtin_popcountll(mask & ~word));
    word |= mask;
    first += here;
    left -= here;
  }
  return fresh;
}

}  // namespace vhost_net
