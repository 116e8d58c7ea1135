#include "core/dirty_log.h"

#include <atomic>
#include <thread>
#include <vector>

#include "test/check.h"

namespace vhost_net {
namespace {

constexpr size_t kWords = 256;
constexpr uint64_t kBits = kWords * 64;
using Take = uint64_t (*)(uint64_t*, uint64_t*, size_t);

/// Sets every bit exactly once, in an order that spreads over all words, while another thread takes them: how many
/// arrived.
uint64_t Race(Take take) {
  std::vector<uint64_t> log(kWords), target(kWords);
  std::atomic<bool> writing{true};
  std::thread writer([&] {
    for (uint64_t i = 0; i < kBits; i++) {
      const uint64_t bit = i * 4099 % kBits;
      __atomic_fetch_or(&log[bit / 64], uint64_t{1} << (bit % 64), __ATOMIC_RELEASE);
    }
    writing = false;
  });
  uint64_t fresh = 0;
  while (writing) fresh += take(log.data(), target.data(), kWords);
  writer.join();
  fresh += take(log.data(), target.data(), kWords);
  const uint64_t counted = CountBits(target.data(), kWords);
  return fresh == counted ? counted : ~uint64_t{0};
}

#ifndef __SANITIZE_THREAD__
/// The fault that the race is there to find: looks and clears in two steps.
uint64_t TakeInTwoSteps(uint64_t* log, uint64_t* target, size_t words) {
  uint64_t fresh = 0;
  for (size_t i = 0; i < words; i++) {
    const uint64_t taken = __atomic_load_n(&log[i], __ATOMIC_RELAXED);
    __atomic_store_n(&log[i], 0, __ATOMIC_RELAXED);
    fresh += static_cast<uint64_t>(__builtin_popcountll(taken & ~target[i]));
    target[i] |= taken;
  }
  return fresh;
}
#endif

}  // namespace

TEST(dirty_log_take) {
  uint64_t log[3] = {0b1011, 0, uint64_t{1} << 63};
  uint64_t target[3] = {0b0001, 0b1, 0};
  CHECK_EQUAL(TakeDirtyLog(log, target, 3), 3u);
  CHECK(log[0] == 0 && log[1] == 0 && log[2] == 0);
  CHECK(target[0] == 0b1011 && target[1] == 0b1 && target[2] == uint64_t{1} << 63);
  CHECK_EQUAL(TakeDirtyLog(log, target, 3), 0u);
  log[2] = 1;
  CHECK_EQUAL(TakeDirtyLog(log, target, 2), 0u);
  CHECK_EQUAL(log[2], 1u);
}

TEST(dirty_log_concurrent_set_and_take) {
  for (int i = 0; i < 100; i++) {
    if (!CHECK_EQUAL(Race(TakeDirtyLog), kBits)) return;
  }
}

#ifndef __SANITIZE_THREAD__
TEST(dirty_log_race_finds_a_lost_bit) {
  bool lost = false;
  for (int i = 0; i < 500 && !lost; i++) lost = Race(TakeInTwoSteps) < kBits;
  CHECK(lost);
}
#endif

TEST(bitmap_find_and_count) {
  uint64_t bitmap[4] = {1, 0, uint64_t{1} << 63 | 2, 0};
  uint32_t out[8] = {};
  CHECK_EQUAL(CountBits(bitmap, 4), 3u);
  CHECK_EQUAL(FindBits(bitmap, 4, 0, out, 8), 3u);
  CHECK(out[0] == 0 && out[1] == 129 && out[2] == 191);
  CHECK_EQUAL(FindBits(bitmap, 4, 1, out, 8), 2u);
  CHECK_EQUAL(out[0], 129u);
  CHECK_EQUAL(FindBits(bitmap, 4, 130, out, 8), 1u);
  CHECK_EQUAL(FindBits(bitmap, 4, 192, out, 8), 0u);
  CHECK_EQUAL(FindBits(bitmap, 4, 256, out, 8), 0u);
  CHECK_EQUAL(FindBits(bitmap, 4, ~uint64_t{0}, out, 8), 0u);
  CHECK_EQUAL(FindBits(bitmap, 4, 0, out, 2), 2u);
  CHECK_EQUAL(FindBits(bitmap, 4, 0, out, 0), 0u);
}

TEST(bitmap_set) {
  uint64_t bitmap[3] = {};
  CHECK_EQUAL(SetBits(bitmap, 3, 62, 70), 70u);
  CHECK(bitmap[0] == uint64_t{3} << 62 && bitmap[1] == ~uint64_t{0} && bitmap[2] == 0xf);
  CHECK_EQUAL(SetBits(bitmap, 3, 0, 64), 62u);
  CHECK_EQUAL(SetBits(bitmap, 3, 190, ~uint64_t{0}), 2u);
  CHECK_EQUAL(SetBits(bitmap, 3, 192, 1), 0u);
  CHECK_EQUAL(SetBits(bitmap, 3, ~uint64_t{0}, 5), 0u);
}

}  // namespace vhost_net
