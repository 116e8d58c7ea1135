#ifndef VHOST_NET_CORE_PAGE_IO_H_
#define VHOST_NET_CORE_PAGE_IO_H_

#include <cstddef>
#include <cstdint>
#include <vector>

#include "core/result.h"

namespace vhost_net {

/// VHOST_PAGE_SIZE: the granularity of dirty logs and page hashes on every host.
constexpr uint64_t kPageSize = 4096;

struct FileRange {
  uint64_t offset;
  uint64_t length;
};

/// The ranges of [from, to) that hold data, by SEEK_DATA and SEEK_HOLE. Moves the file offset, which memory files do
/// not use.
Result FindDataRanges(int fd, uint64_t from, uint64_t to, std::vector<FileRange>* out);
/// pread(2) until `length` bytes or the end of the file; a hole reads as zeros without being allocated. Bytes read.
Result ReadAt(int fd, uint8_t* target, size_t length, uint64_t position);
/// Whether all bytes are zero.
bool IsZero(const uint8_t* bytes, size_t length);
/// A hash of one page. Not cryptographic: it finds accidents, not forgeries. Two pages that differ have the same one with
/// a probability of about 2^-64, whatever the difference.
uint64_t HashPage(const uint8_t* page);
/// Hashes every page of [offset, offset + length) of the file, holes as zero pages without allocating them. -EINVAL
/// unless both are multiples of kPageSize; -ENODATA when the file ends earlier.
Result HashPages(int fd, uint64_t offset, uint64_t length, uint64_t* out);

}  // namespace vhost_net

#endif
