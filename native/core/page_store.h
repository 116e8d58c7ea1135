#ifndef VHOST_NET_CORE_PAGE_STORE_H_
#define VHOST_NET_CORE_PAGE_STORE_H_

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <memory>
#include <vector>

#include "core/result.h"

namespace vhost_net {

/// One region of guest memory, in pages of 4096 bytes.
struct PageRegion {
  /// GPA / 4096.
  uint64_t first_page;
  uint64_t pages;
  /// Where it is mapped.
  uint8_t* data;
  /// The file of the same content, or -1 where only the mapping can be written.
  int fd;
  /// Pages of the regions before it: set by PageStore.
  uint64_t before;
};

/// Guest memory as the page part of a migration sees it, and what of it has arrived. Does not own mappings or files.
/// Calls may run on several threads at once as long as no two write the same page; words that pages share are atomic.
class PageStore {
 public:
  /// -EINVAL for no region, an empty one, one that ends behind page 2^32, or two that share a page.
  static Result Create(std::vector<PageRegion> regions, std::unique_ptr<PageStore>* out);

  /// The region that holds all of [page, page + pages), or null.
  const PageRegion* Find(uint64_t page, uint64_t pages) const;
  /// Pages of all regions.
  uint64_t pages() const { return pages_; }

  /// Puts pages that Find knows into guest memory and remembers their hashes.
  Result Write(uint64_t page, uint64_t pages, const uint8_t* data, const uint64_t* hashes);
  /// Writes zeros to those of the pages that ever held data; the others are zero already, and stay holes.
  Result Zero(uint64_t page, uint64_t pages);
  /// Takes over what another store remembers of regions that are in both, while nobody writes to either.
  void Keep(const PageStore& before);
  /// One hash for each of `count` pages from `first` on, region after region, that of a zero page where nothing came.
  void Hashes(uint64_t first, uint64_t count, uint64_t* out) const;

 private:
  struct Free {
    void operator()(uint64_t* words) const { free(words); }
  };
  using Words = std::unique_ptr<uint64_t[], Free>;

  explicit PageStore(std::vector<PageRegion> regions) : regions_(std::move(regions)) {}
  Result Put(const PageRegion& region, uint64_t page, uint64_t pages, const uint8_t* data);

  std::vector<PageRegion> regions_;
  uint64_t pages_ = 0;
  uint64_t zero_hash_ = 0;
  /// Both are zeroed lazily by the kernel: pages that never come cost nothing. A hash is stored xor that of a zero
  /// page, so that 0 means one.
  Words written_;
  Words hashes_;
};

}  // namespace vhost_net

#endif
