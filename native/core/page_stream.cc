#include "core/page_stream.h"

#include <cstring>

namespace vhost_net {
namespace {

constexpr uint32_t kMaxRunPages = 0xffff;

struct WireRun {
  uint32_t page;
  uint16_t pages;
  uint16_t kind;
};
static_assert(sizeof(WireRun) == kRunSize);

uint32_t Load32(const uint8_t* bytes) {
  uint32_t word;
  memcpy(&word, bytes, sizeof word);
  return word;
}

uint64_t Load64(const uint8_t* bytes) {
  uint64_t word;
  memcpy(&word, bytes, sizeof word);
  return word;
}

WireRun RunAt(const uint8_t* payload, uint32_t index) {
  WireRun run;
  memcpy(&run, payload + kPagesFixed + index * kRunSize, sizeof run);
  return run;
}

/// Asks for a page, so that it comes from memory while another is hashed. A page that was never touched stays so.
void Prefetch(const uint8_t* page) {
  for (size_t line = 0; line < kPageSize; line += 64) __builtin_prefetch(page + line, 0, 2);
}

/// Run entries as they are written: pages of one region that follow one another and are of one kind share an entry.
class RunTable {
 public:
  explicit RunTable(uint8_t* at) : at_(at) {}

  uint32_t count() const { return count_; }
  /// Regions may touch, runs do not cross from one into the next.
  void NextRegion() { open_ = false; }
  void Add(uint32_t page, uint16_t kind) {
    if (open_ && last_.kind == kind && last_.page + last_.pages == page && last_.pages < kMaxRunPages) {
      last_.pages++;
    } else {
      last_ = {page, 1, kind};
      count_++;
      open_ = true;
    }
    memcpy(at_ + (count_ - 1) * kRunSize, &last_, sizeof last_);
  }

 private:
  uint8_t* at_;
  WireRun last_ = {};
  uint32_t count_ = 0;
  bool open_ = false;
};

}  // namespace

PackedPages PackPages(const PageStore& store, RunCursor* cursor, uint32_t round, size_t most_data_pages, uint8_t* head,
                      uint8_t* data) {
  PackedPages packed;
  RunTable table(head + kPagesFixed);
  uint64_t hashes[kMaxDataPages];
  size_t data_pages = 0;
  const PageRegion* region = nullptr;
  while (!cursor->end() && data_pages < most_data_pages && table.count() < kMaxRuns) {
    const PageRun& wanted = cursor->runs[cursor->at];
    if (cursor->done == wanted.pages) {
      cursor->at++;
      cursor->done = 0;
      continue;
    }
    const uint64_t page = uint64_t{wanted.page} + cursor->done++;
    if (region == nullptr || page - region->first_page >= region->pages) {
      region = store.Find(page, 1);
      table.NextRegion();
      if (region == nullptr) continue;
    }
    uint8_t* copy = data + data_pages * kPageSize;
    const uint8_t* original = region->data + (page - region->first_page) * kPageSize;
    memcpy(copy, original, kPageSize);
    if (cursor->done < wanted.pages && page + 1 - region->first_page < region->pages) Prefetch(original + kPageSize);
    packed.counts.pages++;
    if (IsZero(copy, kPageSize)) {
      packed.counts.zero_pages++;
      table.Add(static_cast<uint32_t>(page), kKindZero);
    } else {
      hashes[data_pages++] = HashPage(copy);
      table.Add(static_cast<uint32_t>(page), kKindData);
    }
  }
  packed.data = data_pages * kPageSize;
  packed.head = kPagesFixed + table.count() * kRunSize + data_pages * sizeof(uint64_t);
  const uint32_t fixed[4] = {round, table.count(), static_cast<uint32_t>(packed.data), kEncodingPlain};
  memcpy(head, fixed, sizeof fixed);
  memcpy(head + kPagesFixed + table.count() * kRunSize, hashes, data_pages * sizeof(uint64_t));
  return packed;
}

PageViolation ReadPagesShape(const uint8_t* payload, size_t length, PagesShape* shape) {
  if (length < kPagesFixed) return {PageViolation::kShort, 0, length, kPagesFixed};
  shape->runs = Load32(payload + 4);
  shape->stored = Load32(payload + 8);
  shape->encoding = Load32(payload + 12);
  if (shape->runs > kMaxRuns) return {PageViolation::kRuns, 4, shape->runs, kMaxRuns};
  const size_t table = kPagesFixed + shape->runs * kRunSize;
  if (table > length) return {PageViolation::kTable, 4, shape->runs, table};
  if (shape->encoding >= kEncodings) return {PageViolation::kEncoding, 12, shape->encoding, kEncodings - 1};
  uint64_t data_pages = 0;
  for (uint32_t i = 0; i < shape->runs; i++) {
    const WireRun run = RunAt(payload, i);
    if (run.kind != kKindZero && run.kind != kKindData) {
      return {PageViolation::kKind, kPagesFixed + i * kRunSize + 6, run.kind, kKindData};
    }
    if (run.kind == kKindData) data_pages += run.pages;
  }
  if (data_pages > kMaxDataPages) return {PageViolation::kDataPages, kPagesFixed, data_pages, kMaxDataPages};
  const uint64_t bytes = data_pages * kPageSize;
  if (shape->encoding == kEncodingPlain ? shape->stored != bytes : shape->stored > bytes) {
    return {PageViolation::kStored, 8, shape->stored, bytes};
  }
  shape->data_pages = static_cast<uint32_t>(data_pages);
  shape->head = table + data_pages * sizeof(uint64_t);
  if (shape->head + shape->stored != length) return {PageViolation::kLength, 0, length, shape->head + shape->stored};
  return {};
}

Result UnpackPages(PageStore* store, const uint8_t* payload, const PagesShape& shape, const uint8_t* data,
                   uint32_t round, PageCounts* counts, PageViolation* violation) {
  const uint32_t said = Load32(payload);
  if (said != round) {
    *violation = {PageViolation::kRound, 0, said, round};
    return 0;
  }
  for (uint32_t i = 0; i < shape.runs; i++) {
    const WireRun run = RunAt(payload, i);
    if (run.pages == 0 || store->Find(run.page, run.pages) == nullptr) {
      *violation = {PageViolation::kRun, kPagesFixed + i * kRunSize, run.page, run.pages};
      return 0;
    }
  }
  const size_t table = kPagesFixed + shape.runs * kRunSize;
  uint64_t hashes[kMaxDataPages];
  for (uint32_t i = 0; i < shape.data_pages; i++) {
    hashes[i] = Load64(payload + table + i * sizeof(uint64_t));
    if (HashPage(data + i * kPageSize) != hashes[i]) {
      *violation = {PageViolation::kHash, table + i * sizeof(uint64_t), i, 0};
      return 0;
    }
  }
  uint32_t at = 0;
  for (uint32_t i = 0; i < shape.runs; i++) {
    const WireRun run = RunAt(payload, i);
    const bool zero = run.kind == kKindZero;
    const Result put = zero ? store->Zero(run.page, run.pages)
                            : store->Write(run.page, run.pages, data + at * kPageSize, hashes + at);
    if (put < 0) return put;
    if (zero) counts->zero_pages += run.pages;
    else at += run.pages;
    counts->pages += run.pages;
  }
  return 0;
}

}  // namespace vhost_net
