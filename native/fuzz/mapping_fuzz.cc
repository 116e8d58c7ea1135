#include <vector>

#include "core/mapping.h"
#include "fuzz/input.h"

/// Any arguments: a mapping is made right or refused, and nothing stays behind.
extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace vhost_net;
  Input input(data, size);
  const int64_t live = Mapping::Live();
  UniqueFd fd;
  const uint64_t file_size = input.Take<uint32_t>() % (1 << 20);
  const bool has_file = CreateMemfd("fuzz", file_size, 0, &fd) == 0;
  MUST(has_file == (file_size > 0));
  while (!input.empty()) {
    const uint8_t kind = input.Take<uint8_t>();
    const uint64_t offset = kind & 1 ? input.Take<uint64_t>() : input.Take<uint8_t>() * uint64_t{4096};
    const uint64_t length = kind & 2 ? input.Take<uint64_t>() : input.Take<uint16_t>();
    const uint64_t align = kind & 4 ? input.Take<uint64_t>() : uint64_t{1} << (input.Take<uint8_t>() % 31);
    std::shared_ptr<Mapping> mapping;
    const Result result = Mapping::Create(kind & 8 ? fd.get() : -1, offset, length, align, 3, &mapping);
    MUST((result == 0) == (mapping != nullptr));
    if (result < 0) continue;
    MUST(mapping->length() == length && mapping->address() % 4096 == 0);
    MUST(align == 0 || mapping->address() % align == 0);
    mapping->data()[0] = 1;
    if (length < (1 << 20)) mapping->data()[length - 1] = 2;
    const uint64_t from = input.Take<uint32_t>(), bytes = input.Take<uint32_t>();
    if (from > length || bytes > length - from) MUST(mapping->Advise(from, bytes, 4) == -EINVAL);
  }
  MUST(Mapping::Live() == live);
  return 0;
}
