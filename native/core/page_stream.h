#ifndef VHOST_NET_CORE_PAGE_STREAM_H_
#define VHOST_NET_CORE_PAGE_STREAM_H_

#include <cstddef>
#include <cstdint>

#include "core/page_io.h"
#include "core/page_store.h"

namespace vhost_net {

/// PAGES payloads of the migration stream, version 2 (docs/migration-stream.md):
///
///     u32 round, u32 runs, u32 stored bytes, u32 encoding, runs x { u32 first page, u16 pages, u16 kind },
///     one u64 hash for each data page, the data pages as stored
///
/// All of it before the data is the head, which the frame's checksum covers; the hashes cover the data.
constexpr size_t kPagesFixed = 16;
constexpr size_t kRunSize = 8;
constexpr size_t kMaxRuns = 1024;
constexpr size_t kMaxDataPages = 256;
constexpr size_t kMaxHead = kPagesFixed + kMaxRuns * kRunSize + kMaxDataPages * sizeof(uint64_t);
constexpr size_t kMaxPagesPayload = kMaxHead + kMaxDataPages * kPageSize;
constexpr uint16_t kKindZero = 0;
constexpr uint16_t kKindData = 1;
constexpr uint32_t kEncodingPlain = 0;
constexpr uint32_t kEncodings = 3;

/// Pages wanted, and where one has come to in them.
struct PageRun {
  uint32_t page;
  uint32_t pages;
};
struct RunCursor {
  const PageRun* runs;
  size_t count;
  size_t at = 0;
  /// Pages of runs[at] that are done.
  uint32_t done = 0;
  bool end() const { return at == count; }
};

struct PageCounts {
  uint64_t pages = 0;
  uint64_t zero_pages = 0;
};

/// What a payload has wrong; `offset` in the payload. The numbers are known to lib/migration/page-frame.ts.
struct PageViolation {
  enum Code : uint32_t {
    kNone = 0,
    kShort = 1,
    kRound = 2,
    kRuns = 3,
    kTable = 4,
    kEncoding = 5,
    kKind = 6,
    kRun = 7,
    kDataPages = 8,
    kStored = 9,
    kLength = 10,
    kChecksum = 11,
    kHash = 12,
  };
  Code code = kNone;
  uint64_t offset = 0;
  uint64_t found = 0;
  uint64_t wanted = 0;
};

struct PackedPages {
  /// Bytes of the head, of which `runs` are run entries.
  size_t head = 0;
  size_t data = 0;
  PageCounts counts;
};

/// Copies pages from the cursor on into `data` until it holds `most_data_pages`, there are kMaxRuns, or none is left,
/// and writes the head. A page is hashed in its copy, since whoever owns it goes on writing. Pages outside of the store
/// are left out. `head` has room for kMaxHead bytes, most_data_pages is at most kMaxDataPages.
PackedPages PackPages(const PageStore& store, RunCursor* cursor, uint32_t round, size_t most_data_pages, uint8_t* head,
                      uint8_t* data);

/// How a payload divides; valid once ReadPagesShape has found nothing wrong.
struct PagesShape {
  uint32_t runs = 0;
  uint32_t stored = 0;
  uint32_t encoding = 0;
  uint32_t data_pages = 0;
  size_t head = 0;
};

/// Looks at sizes and kinds only: enough to know where the head ends, before its checksum says whether to believe it.
PageViolation ReadPagesShape(const uint8_t* payload, size_t length, PagesShape* shape);

/// Puts a payload of that shape into the store. Everything is checked before a byte is written: the round, that every
/// run lies inside one region, and each page's hash. `data` has shape.data_pages pages, decoded. Answers 0 with
/// `violation` telling what is wrong, or the negative errno of a write.
Result UnpackPages(PageStore* store, const uint8_t* payload, const PagesShape& shape, const uint8_t* data,
                   uint32_t round, PageCounts* counts, PageViolation* violation);

}  // namespace vhost_net

#endif
