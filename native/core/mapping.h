#ifndef VHOST_NET_CORE_MAPPING_H_
#define VHOST_NET_CORE_MAPPING_H_

#include <cstddef>
#include <cstdint>
#include <memory>

#include "core/result.h"
#include "core/unique_fd.h"

namespace vhost_net {

/// One mmap between two PROT_NONE guard areas, so that an access just outside of it faults instead of hitting a
/// neighbour. Shared by reference count; the destructor unmaps.
class Mapping {
 public:
  /// Maps `length` bytes of `fd` from `offset` (MAP_SHARED), or anonymous memory (MAP_PRIVATE) when fd is -1. The
  /// address is a multiple of `align` (0 or a power of two) and of the huge page size of a hugetlbfs file. -EINVAL also
  /// when a regular file ends before offset + length, where touching the mapping would be SIGBUS.
  static Result Create(int fd, uint64_t offset, uint64_t length, uint64_t align, int prot,
                       std::shared_ptr<Mapping>* out);

  Mapping(const Mapping&) = delete;
  Mapping& operator=(const Mapping&) = delete;
  ~Mapping();

  uint8_t* data() const { return data_; }
  uint64_t address() const { return reinterpret_cast<uint64_t>(data_); }
  /// Bytes asked for; what follows up to the page's end is mapped too.
  uint64_t length() const { return length_; }
  int prot() const { return prot_; }
  bool Contains(uint64_t address) const { return address >= this->address() && address - this->address() < length_; }

  /// madvise(2) on [offset, offset + length). -EINVAL outside of the mapping.
  Result Advise(uint64_t offset, uint64_t length, int advice) const;

  /// Mappings of this process that are mapped now.
  static int64_t Live();

 private:
  Mapping(void* reserved, size_t reserved_length, uint8_t* data, uint64_t length, int prot);

  void* reserved_;
  size_t reserved_length_;
  uint8_t* data_;
  uint64_t length_;
  int prot_;
};

/// memfd_create(2), ftruncate and F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL, so that no mapping of it can meet SIGBUS.
/// huge_page_size 0 (normal pages) or a power of two that hugetlb knows, in bytes.
Result CreateMemfd(const char* name, uint64_t size, uint64_t huge_page_size, UniqueFd* out);

}  // namespace vhost_net

#endif
