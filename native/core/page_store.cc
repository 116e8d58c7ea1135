#include "core/page_store.h"

#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <new>

#include "core/page_io.h"

namespace vhost_net {
namespace {

constexpr uint64_t kPagesEnd = uint64_t{1} << 32;
/// Pages that one call of mincore(2) is asked for.
constexpr uint64_t kMostAsked = 256;
constexpr uint8_t kZeroPage[kPageSize] = {};

Result WriteAt(int fd, const uint8_t* bytes, size_t length, uint64_t position) {
  size_t done = 0;
  while (done < length) {
    const ssize_t put = pwrite(fd, bytes + done, length - done, static_cast<off_t>(position + done));
    if (put < 0 && errno == EINTR) continue;
    if (put < 0) return -errno;
    if (put == 0) return -EIO;
    done += static_cast<size_t>(put);
  }
  return 0;
}

}  // namespace

Result PageStore::Create(std::vector<PageRegion> regions, std::unique_ptr<PageStore>* out) {
  std::sort(regions.begin(), regions.end(),
            [](const PageRegion& a, const PageRegion& b) { return a.first_page < b.first_page; });
  uint64_t end = 0, pages = 0;
  for (PageRegion& region : regions) {
    if (region.pages == 0 || region.first_page < end || region.first_page > kPagesEnd ||
        region.pages > kPagesEnd - region.first_page) {
      return -EINVAL;
    }
    region.before = pages;
    pages += region.pages;
    end = region.first_page + region.pages;
  }
  if (regions.empty()) return -EINVAL;
  std::unique_ptr<PageStore> store(new (std::nothrow) PageStore(std::move(regions)));
  if (store == nullptr) return -ENOMEM;
  store->pages_ = pages;
  store->zero_hash_ = HashPage(kZeroPage);
  store->written_.reset(static_cast<uint64_t*>(calloc(pages / 64 + 1, sizeof(uint64_t))));
  store->hashes_.reset(static_cast<uint64_t*>(calloc(pages, sizeof(uint64_t))));
  if (store->written_ == nullptr || store->hashes_ == nullptr) return -ENOMEM;
  *out = std::move(store);
  return 0;
}

const PageRegion* PageStore::Find(uint64_t page, uint64_t pages) const {
  auto next = std::upper_bound(regions_.begin(), regions_.end(), page,
                               [](uint64_t at, const PageRegion& region) { return at < region.first_page; });
  if (next == regions_.begin()) return nullptr;
  const PageRegion& region = *(next - 1);
  const uint64_t at = page - region.first_page;
  return at < region.pages && pages <= region.pages - at ? &region : nullptr;
}

/// A new page by pwrite where the file can, which neither zeroes it first nor faults it in; one that is there already by
/// a copy, which is four times as fast. Whoever makes or frees pages meanwhile changes only what it costs.
Result PageStore::Put(const PageRegion& region, uint64_t page, uint64_t pages, const uint8_t* data) {
  uint64_t at = page - region.first_page;
  for (const uint64_t end = at + pages; at < end;) {
    unsigned char resident[kMostAsked];
    const uint64_t asked = std::min<uint64_t>(end - at, kMostAsked);
    if (region.fd < 0 || mincore(region.data + at * kPageSize, asked * kPageSize, resident) < 0) {
      memset(resident, region.fd < 0, asked);
    }
    for (uint64_t i = 0; i < asked;) {
      const bool there = (resident[i] & 1) != 0;
      uint64_t next = i + 1;
      while (next < asked && ((resident[next] & 1) != 0) == there) next++;
      const size_t length = (next - i) * kPageSize;
      if (there) memcpy(region.data + (at + i) * kPageSize, data, length);
      else if (const Result put = WriteAt(region.fd, data, length, (at + i) * kPageSize); put < 0) return put;
      data += length;
      i = next;
    }
    at += asked;
  }
  return 0;
}

Result PageStore::Write(uint64_t page, uint64_t pages, const uint8_t* data, const uint64_t* hashes) {
  const PageRegion& region = *Find(page, pages);
  const uint64_t index = region.before + (page - region.first_page);
  for (uint64_t i = index; i < index + pages; i++) {
    __atomic_fetch_or(&written_[i / 64], uint64_t{1} << i % 64, __ATOMIC_RELAXED);
    // Relaxed: nobody reads a hash before the call that wrote it has returned to the thread that asks.
    __atomic_store_n(&hashes_[i], hashes[i - index] ^ zero_hash_, __ATOMIC_RELAXED);
  }
  return Put(region, page, pages, data);
}

Result PageStore::Zero(uint64_t page, uint64_t pages) {
  const PageRegion& region = *Find(page, pages);
  const uint64_t index = region.before + (page - region.first_page);
  for (uint64_t i = 0; i < pages; i++) {
    const uint64_t word = __atomic_load_n(&written_[(index + i) / 64], __ATOMIC_RELAXED);
    if ((word >> (index + i) % 64 & 1) == 0) continue;
    __atomic_store_n(&hashes_[index + i], uint64_t{0}, __ATOMIC_RELAXED);
    const Result put = Put(region, page + i, 1, kZeroPage);
    if (put < 0) return put;
  }
  return 0;
}

void PageStore::Keep(const PageStore& before) {
  for (const PageRegion& region : regions_) {
    const PageRegion* old = before.Find(region.first_page, region.pages);
    if (old == nullptr || old->first_page != region.first_page || old->pages != region.pages) continue;
    for (uint64_t i = 0; i < region.pages; i++) {
      const uint64_t from = old->before + i, to = region.before + i;
      hashes_[to] = before.hashes_[from];
      written_[to / 64] |= (before.written_[from / 64] >> from % 64 & 1) << to % 64;
    }
  }
}

void PageStore::Hashes(uint64_t first, uint64_t count, uint64_t* out) const {
  for (uint64_t i = 0; i < count; i++) out[i] = __atomic_load_n(&hashes_[first + i], __ATOMIC_RELAXED) ^ zero_hash_;
}

}  // namespace vhost_net
