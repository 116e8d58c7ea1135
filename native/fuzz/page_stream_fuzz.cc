#include <vector>

#include "core/mapping.h"
#include "core/page_stream.h"
#include "fuzz/input.h"

/// Payloads of any bytes, with sizes made to fit now and then: what is refused leaves memory alone, what is taken lies
/// inside of it.
extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace vhost_net;
  constexpr uint64_t kFirst = 2, kPages = 8;
  Input input(data, size);
  std::shared_ptr<Mapping> mapping;
  std::unique_ptr<PageStore> store;
  MUST(Mapping::Create(-1, 0, kPages * kPageSize, 0, 3, &mapping) == 0);
  MUST(PageStore::Create({{kFirst, kPages, mapping->data(), -1, 0}}, &store) == 0);

  const uint32_t runs = input.Take<uint8_t>() % 4;
  std::vector<uint8_t> payload(kPagesFixed + runs * kRunSize);
  size_t data_pages = 0;
  for (uint32_t i = 0; i < runs; i++) {
    const uint32_t page = input.Take<uint8_t>() % 2 == 0 ? input.Take<uint8_t>() % 12 : input.Take<uint32_t>();
    const uint16_t pages = input.Take<uint8_t>() % 2 == 0 ? input.Take<uint8_t>() % 10 : input.Take<uint16_t>();
    const uint16_t kind = input.Take<uint8_t>() % 3;
    const uint16_t rest[2] = {pages, kind};
    memcpy(&payload[kPagesFixed + i * kRunSize], &page, sizeof page);
    memcpy(&payload[kPagesFixed + i * kRunSize + 4], rest, sizeof rest);
    if (kind == kKindData && pages <= kPages) data_pages += pages;
  }
  const uint32_t fixed[4] = {input.Take<uint8_t>() % 2u, runs, static_cast<uint32_t>(data_pages * kPageSize),
                             input.Take<uint8_t>() % 8 == 0 ? 1u : 0u};
  memcpy(payload.data(), fixed, sizeof fixed);
  std::vector<uint8_t> page(kPageSize, input.Take<uint8_t>());
  const uint64_t hash = HashPage(page.data()) + input.Take<uint8_t>() % 2;
  for (size_t i = 0; i < data_pages; i++) {
    const auto* bytes = reinterpret_cast<const uint8_t*>(&hash);
    payload.insert(payload.end(), bytes, bytes + sizeof hash);
  }
  for (size_t i = 0; i < data_pages; i++) payload.insert(payload.end(), page.begin(), page.end());
  if (input.Take<uint8_t>() % 4 == 0) payload.resize(input.Take<uint16_t>() % (payload.size() + 1));

  // An exact allocation, so that a read behind it is found.
  const std::vector<uint8_t> exact(payload);
  PagesShape shape;
  if (ReadPagesShape(exact.data(), exact.size(), &shape).code != PageViolation::kNone) return 0;
  MUST(shape.head <= exact.size());
  if (shape.encoding != kEncodingPlain) return 0;
  PageCounts counts;
  PageViolation violation;
  MUST(UnpackPages(store.get(), exact.data(), shape, exact.data() + shape.head, 0, &counts, &violation) == 0);
  const bool touched = !IsZero(mapping->data(), kPages * kPageSize);
  if (violation.code != PageViolation::kNone) MUST(!touched && counts.pages == 0);
  if (touched) MUST(shape.data_pages > 0 && counts.pages <= runs * kPages);
  return 0;
}
