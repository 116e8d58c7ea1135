#include <unistd.h>

#include <vector>

#include "core/mapping.h"
#include "core/page_io.h"
#include "fuzz/input.h"

/// A sparse file written at random places: its data ranges cover every byte that is not zero, and its page hashes are
/// those of its bytes.
extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace vhost_net;
  constexpr uint64_t kPages = 16, kBytes = kPages * kPageSize;
  Input input(data, size);
  UniqueFd fd;
  MUST(CreateMemfd("fuzz", kBytes, 0, &fd) == 0);
  std::vector<uint8_t> model(kBytes);
  for (int writes = input.Take<uint8_t>() % 8; writes > 0; writes--) {
    const uint64_t at = input.Take<uint16_t>() % kBytes;
    model[at] = input.Take<uint8_t>();
    MUST(pwrite(fd.get(), &model[at], 1, static_cast<off_t>(at)) == 1);
  }
  const uint64_t from = input.Take<uint16_t>(), to = input.Take<uint32_t>() % (2 * kBytes);
  std::vector<FileRange> ranges;
  MUST(FindDataRanges(fd.get(), from, to, &ranges) == 0);
  std::vector<bool> covered(kBytes);
  uint64_t end = from;
  for (const FileRange& range : ranges) {
    MUST(range.offset >= end && range.length > 0);
    end = range.offset + range.length;
    MUST(end <= to && end <= kBytes);
    for (uint64_t i = range.offset; i < end; i++) covered[i] = true;
  }
  for (uint64_t i = from; i < to && i < kBytes; i++) MUST(covered[i] || model[i] == 0);

  uint64_t hashes[kPages];
  const uint64_t first = input.Take<uint8_t>() % kPages;
  MUST(HashPages(fd.get(), first * kPageSize, (kPages - first) * kPageSize, hashes) == 0);
  for (uint64_t i = first; i < kPages; i++) MUST(hashes[i - first] == HashPage(&model[i * kPageSize]));
  return 0;
}
