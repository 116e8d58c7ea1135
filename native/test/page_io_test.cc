#include "core/page_io.h"

#include <sys/stat.h>
#include <unistd.h>

#include <cstring>
#include <set>
#include <vector>

#include "core/mapping.h"
#include "core/write_witness.h"
#include "test/check.h"

namespace vhost_net {
namespace {

constexpr uint64_t kPages = 600;
constexpr int kReadWrite = 3;

uint64_t Allocated(int fd) {
  struct stat status;
  fstat(fd, &status);
  return static_cast<uint64_t>(status.st_blocks) * 512;
}

}  // namespace

TEST(pages_holes_are_found_and_stay) {
  UniqueFd fd;
  CHECK_EQUAL(CreateMemfd("m", kPages * kPageSize, 0, &fd), 0);
  CHECK_EQUAL(pwrite(fd.get(), "x", 1, 5 * kPageSize + 17), 1);
  CHECK_EQUAL(pwrite(fd.get(), "xy", 2, 300 * kPageSize - 1), 2);
  std::vector<FileRange> ranges;
  CHECK_EQUAL(FindDataRanges(fd.get(), 0, kPages * kPageSize, &ranges), 0);
  CHECK_EQUAL(ranges.size(), 2u);
  CHECK(ranges[0].offset == 5 * kPageSize && ranges[0].length == kPageSize);
  CHECK(ranges[1].offset == 299 * kPageSize && ranges[1].length == 2 * kPageSize);
  CHECK_EQUAL(FindDataRanges(fd.get(), 5 * kPageSize + 100, 300 * kPageSize, &ranges), 0);
  CHECK(ranges.size() == 2 && ranges[0].offset == 5 * kPageSize + 100 && ranges[1].length == kPageSize);
  CHECK_EQUAL(FindDataRanges(fd.get(), 400 * kPageSize, kPages * kPageSize, &ranges), 0);
  CHECK_EQUAL(ranges.size(), 0u);

  const uint64_t before = Allocated(fd.get());
  std::vector<uint64_t> hashes(kPages);
  CHECK_EQUAL(HashPages(fd.get(), 0, kPages * kPageSize, hashes.data()), 0);
  std::vector<uint8_t> page(kPageSize, 1);
  CHECK_EQUAL(ReadAt(fd.get(), page.data(), kPageSize, 100 * kPageSize), static_cast<Result>(kPageSize));
  CHECK(IsZero(page.data(), kPageSize));
  CHECK_EQUAL(Allocated(fd.get()), before);

  const uint64_t zero = HashPage(page.data());
  for (uint64_t i = 0; i < kPages; i++) {
    const bool data = i == 5 || i == 299 || i == 300;
    if (!CHECK_EQUAL(hashes[i] != zero, data)) return;
  }
  std::vector<uint64_t> part(2);
  CHECK_EQUAL(HashPages(fd.get(), 299 * kPageSize, 2 * kPageSize, part.data()), 0);
  CHECK(part[0] == hashes[299] && part[1] == hashes[300]);
}

TEST(pages_refuse) {
  UniqueFd fd;
  uint64_t out[8];
  uint8_t byte;
  std::vector<FileRange> ranges;
  CHECK_EQUAL(CreateMemfd("m", 4 * kPageSize, 0, &fd), 0);
  CHECK_EQUAL(HashPages(fd.get(), 1, kPageSize, out), -EINVAL);
  CHECK_EQUAL(HashPages(fd.get(), 0, kPageSize + 1, out), -EINVAL);
  CHECK_EQUAL(HashPages(fd.get(), 0, 5 * kPageSize, out), -ENODATA);
  CHECK_EQUAL(HashPages(-1, 0, kPageSize, out), -EBADF);
  CHECK_EQUAL(ReadAt(-1, &byte, 1, 0), -EBADF);
  CHECK_EQUAL(ReadAt(fd.get(), &byte, 1, 4 * kPageSize), 0);
  CHECK_EQUAL(FindDataRanges(-1, 0, 1, &ranges), -EBADF);
  int pipes[2];
  CHECK_EQUAL(pipe(pipes), 0);
  CHECK_EQUAL(FindDataRanges(pipes[0], 0, 1, &ranges), -ESPIPE);
  close(pipes[0]);
  close(pipes[1]);
}

TEST(page_hash_sees_every_bit) {
  std::vector<uint8_t> page(kPageSize);
  for (size_t i = 0; i < page.size(); i++) page[i] = static_cast<uint8_t>(i * 7 + i / 256);
  std::set<uint64_t> hashes = {HashPage(page.data())};
  for (size_t bit = 0; bit < kPageSize * 8; bit++) {
    page[bit / 8] ^= static_cast<uint8_t>(1 << (bit % 8));
    hashes.insert(HashPage(page.data()));
    page[bit / 8] ^= static_cast<uint8_t>(1 << (bit % 8));
  }
  CHECK_EQUAL(hashes.size(), kPageSize * 8 + 1);
  // Words that change places must show too.
  std::vector<uint8_t> swapped = page;
  memcpy(swapped.data(), page.data() + 64, 8);
  memcpy(swapped.data() + 64, page.data(), 8);
  CHECK(HashPage(swapped.data()) != HashPage(page.data()));
}

TEST(is_zero_at_every_length) {
  std::vector<uint8_t> bytes(200);
  for (size_t length = 0; length < bytes.size(); length++) {
    if (!CHECK(IsZero(bytes.data(), length))) return;
    if (length == 0) continue;
    bytes[length - 1] = 1;
    if (!CHECK(!IsZero(bytes.data(), length)) || !CHECK(IsZero(bytes.data(), length - 1))) return;
    bytes[length - 1] = 0;
  }
}

TEST(write_witness_sees_only_its_mapping) {
  UniqueFd fd, witness;
  std::shared_ptr<Mapping> watched, other;
  CHECK_EQUAL(CreateMemfd("m", kPages * kPageSize, 0, &fd), 0);
  CHECK_EQUAL(Mapping::Create(fd.get(), 0, kPages * kPageSize, 0, kReadWrite, &watched), 0);
  CHECK_EQUAL(Mapping::Create(fd.get(), 0, kPages * kPageSize, 0, kReadWrite, &other), 0);
  watched->data()[3 * kPageSize] = 1;
  const Result started = StartWriteWitness(*watched, &witness);
  if (started < 0) {
    CHECK(started == -EINVAL || started == -ENOTTY || started == -ENOSYS || started == -EPERM);
    return SKIP("no asynchronous write protection");
  }
  std::vector<FileRange> written;
  CHECK_EQUAL(TakeWritten(*watched, &written), 0);
  CHECK_EQUAL(written.size(), 0u);
  other->data()[7 * kPageSize] = 1;
  CHECK_EQUAL(watched->data()[7 * kPageSize], 1);
  watched->data()[8 * kPageSize] = 1;
  watched->data()[9 * kPageSize + 100] = 1;
  CHECK_EQUAL(TakeWritten(*watched, &written), 0);
  CHECK(written.size() == 1 && written[0].offset == 8 * kPageSize && written[0].length == 2 * kPageSize);
  CHECK_EQUAL(TakeWritten(*watched, &written), 0);
  CHECK_EQUAL(written.size(), 0u);
  // More separate ranges than one scan answers.
  for (uint64_t page = 0; page < kPages; page += 2) watched->data()[page * kPageSize] = 2;
  CHECK_EQUAL(TakeWritten(*watched, &written), 0);
  uint64_t pages = 0;
  for (const FileRange& range : written) pages += range.length / kPageSize;
  CHECK_EQUAL(pages, kPages / 2);
}

}  // namespace vhost_net
