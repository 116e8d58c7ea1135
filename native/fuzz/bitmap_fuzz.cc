#include <vector>

#include "core/dirty_log.h"
#include "fuzz/input.h"

/// Bitmaps against a vector of bools.
extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace vhost_net;
  Input input(data, size);
  const size_t words = 1 + input.Take<uint8_t>() % 8;
  std::vector<uint64_t> bitmap(words), log(words);
  std::vector<bool> model(words * 64);
  while (!input.empty()) {
    const uint64_t first = input.Take<uint16_t>() % (words * 64 + 70);
    const uint64_t count = input.Take<uint8_t>() % 200;
    uint64_t fresh = 0;
    for (uint64_t bit = first; bit < first + count && bit < model.size(); bit++) {
      fresh += model[bit] ? 0 : 1;
      model[bit] = true;
    }
    if (input.Take<uint8_t>() % 2 == 0) {
      MUST(SetBits(bitmap.data(), words, first, count) == fresh);
    } else {
      SetBits(log.data(), words, first, count);
      MUST(TakeDirtyLog(log.data(), bitmap.data(), words) == fresh);
      MUST(CountBits(log.data(), words) == 0);
    }
  }
  const uint64_t from = size == 0 ? 0 : data[size - 1];
  std::vector<uint32_t> expected;
  for (uint64_t bit = from; bit < model.size(); bit++) {
    if (model[bit]) expected.push_back(static_cast<uint32_t>(bit));
  }
  const size_t capacity = size % 100;
  std::vector<uint32_t> found(capacity);
  const size_t count = FindBits(bitmap.data(), words, from, found.data(), capacity);
  MUST(count == (expected.size() < capacity ? expected.size() : capacity));
  for (size_t i = 0; i < count; i++) MUST(found[i] == expected[i]);
  return 0;
}
