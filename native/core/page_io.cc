#include "core/page_io.h"

#include <unistd.h>

#include <cstring>
#include <memory>
#include <new>

namespace vhost_net {
namespace {

constexpr size_t kChunk = size_t{1} << 20;

uint64_t LoadWord(const uint8_t* bytes) {
  uint64_t word;
  memcpy(&word, bytes, sizeof word);
  return word;
}

constexpr uint64_t kSpread = 0xc2b2ae3d27d4eb4f;
constexpr uint64_t kMix = 0x9e3779b185ebca87;

__extension__ typedef unsigned __int128 DoubleWord;

/// The upper half of a product depends on all bits of both factors, the lower one on what a factor has in common with
/// powers of two: together they spread every bit over the word.
uint64_t Fold(uint64_t a, uint64_t b) {
  const DoubleWord product = static_cast<DoubleWord>(a) * b;
  return static_cast<uint64_t>(product) ^ static_cast<uint64_t>(product >> 64);
}

/// Two words, one of them against all that the lane has seen: one multiplication for both, which is what bounds the
/// speed.
uint64_t Absorb(uint64_t lane, const uint8_t* words) {
  return Fold(LoadWord(words) ^ lane, LoadWord(words + 8) ^ kMix);
}

Result HashData(int fd, FileRange data, uint64_t offset, uint8_t* chunk, uint64_t* out) {
  const uint64_t end = (data.offset + data.length + kPageSize - 1) & ~(kPageSize - 1);
  for (uint64_t at = data.offset & ~(kPageSize - 1); at < end;) {
    const size_t want = end - at < kChunk ? static_cast<size_t>(end - at) : kChunk;
    Result got = ReadAt(fd, chunk, want, at);
    if (got < 0) return got;
    if (static_cast<size_t>(got) != want) return -ENODATA;
    for (size_t i = 0; i < want; i += kPageSize) out[(at + i - offset) / kPageSize] = HashPage(chunk + i);
    at += want;
  }
  return 0;
}

}  // namespace

Result FindDataRanges(int fd, uint64_t from, uint64_t to, std::vector<FileRange>* out) {
  out->clear();
  while (from < to) {
    const off_t data = lseek(fd, static_cast<off_t>(from), SEEK_DATA);
    if (data < 0) return errno == ENXIO ? 0 : -errno;
    if (static_cast<uint64_t>(data) >= to) return 0;
    const off_t hole = lseek(fd, data, SEEK_HOLE);
    if (hole < 0) return errno == ENXIO ? 0 : -errno;
    const uint64_t end = static_cast<uint64_t>(hole) < to ? static_cast<uint64_t>(hole) : to;
    out->push_back({static_cast<uint64_t>(data), end - static_cast<uint64_t>(data)});
    from = static_cast<uint64_t>(hole);
  }
  return 0;
}

Result ReadAt(int fd, uint8_t* target, size_t length, uint64_t position) {
  size_t done = 0;
  while (done < length) {
    const ssize_t got = pread(fd, target + done, length - done, static_cast<off_t>(position + done));
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return -errno;
    if (got == 0) break;
    done += static_cast<size_t>(got);
  }
  return static_cast<Result>(done);
}

bool IsZero(const uint8_t* bytes, size_t length) {
  size_t i = 0;
  for (; i + 64 <= length; i += 64) {
    uint64_t any = 0;
    for (size_t j = 0; j < 64; j += 8) any |= LoadWord(bytes + i + j);
    if (any != 0) return false;
  }
  for (; i < length; i++) {
    if (bytes[i] != 0) return false;
  }
  return true;
}

uint64_t HashPage(const uint8_t* page) {
  uint64_t a = 0x6d0f27bd3a1f9c45, b = 0x91e10da5c79e7b1d, c = 0xd1b54a32d192ed03, d = 0x2545f4914f6cdd1d;
  for (size_t i = 0; i < kPageSize; i += 64) {
    a = Absorb(a, page + i);
    b = Absorb(b, page + i + 16);
    c = Absorb(c, page + i + 32);
    d = Absorb(d, page + i + 48);
  }
  return Fold(Fold(a ^ kSpread, b) ^ kMix, Fold(c ^ kMix, d) ^ kSpread);
}

Result HashPages(int fd, uint64_t offset, uint64_t length, uint64_t* out) {
  if (offset % kPageSize != 0 || length % kPageSize != 0) return -EINVAL;
  const off_t size = lseek(fd, 0, SEEK_END);
  if (size < 0) return -errno;
  if (offset + length > static_cast<uint64_t>(size)) return -ENODATA;
  std::vector<FileRange> ranges;
  Result found = FindDataRanges(fd, offset, offset + length, &ranges);
  if (found < 0) return found;
  std::unique_ptr<uint8_t[]> chunk(new (std::nothrow) uint8_t[kChunk]);
  if (chunk == nullptr) return -ENOMEM;
  memset(chunk.get(), 0, kPageSize);
  const uint64_t zero = HashPage(chunk.get());
  for (uint64_t page = 0; page < length / kPageSize; page++) out[page] = zero;
  for (const FileRange& range : ranges) {
    Result hashed = HashData(fd, range, offset, chunk.get(), out);
    if (hashed < 0) return hashed;
  }
  return 0;
}

}  // namespace vhost_net
