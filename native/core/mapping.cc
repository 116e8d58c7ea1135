#include "core/mapping.h"

#include <fcntl.h>
#include <linux/magic.h>
#include <linux/memfd.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#include <atomic>
#include <new>

namespace vhost_net {
namespace {

constexpr uint64_t kLargest = uint64_t{1} << 46;

std::atomic<int64_t> live{0};

bool IsPowerOfTwo(uint64_t n) { return n != 0 && (n & (n - 1)) == 0; }
uint64_t RoundUp(uint64_t n, uint64_t unit) { return (n + unit - 1) & ~(unit - 1); }

/// What the file says of itself: the page size its mappings need in *unit, -EINVAL when it ends before `end`.
Result Inspect(int fd, uint64_t end, uint64_t* unit) {
  struct stat status;
  if (fstat(fd, &status) < 0) return -errno;
  if (S_ISREG(status.st_mode) && end > static_cast<uint64_t>(status.st_size)) return -EINVAL;
  struct statfs file_system;
  if (fstatfs(fd, &file_system) < 0) return -errno;
  if (file_system.f_type == HUGETLBFS_MAGIC) *unit = static_cast<uint64_t>(file_system.f_bsize);
  return 0;
}

}  // namespace

Result Mapping::Create(int fd, uint64_t offset, uint64_t length, uint64_t align, int prot,
                       std::shared_ptr<Mapping>* out) {
  const uint64_t page = static_cast<uint64_t>(sysconf(_SC_PAGESIZE));
  if (length == 0 || length > kLargest || offset > kLargest || offset % page != 0) return -EINVAL;
  if (align != 0 && (!IsPowerOfTwo(align) || align > kLargest)) return -EINVAL;
  if ((prot & ~(PROT_READ | PROT_WRITE)) != 0) return -EINVAL;
  uint64_t unit = page;
  if (fd >= 0) {
    Result inspected = Inspect(fd, offset + length, &unit);
    if (inspected < 0) return inspected;
  }

  const uint64_t start_align = align > unit ? align : unit;
  const uint64_t body = RoundUp(length, unit);
  const uint64_t total = body + 2 * start_align;
  void* reserved = mmap(nullptr, total, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (reserved == MAP_FAILED) return -errno;
  const uint64_t start = RoundUp(reinterpret_cast<uint64_t>(reserved) + 1, start_align);

  // Huge pages are reserved now: a pool that is short fails here with ENOMEM, and not with SIGBUS at the first touch.
  const bool huge = unit != page;
  const int flags = MAP_FIXED | (huge ? 0 : MAP_NORESERVE) | (fd >= 0 ? MAP_SHARED : MAP_PRIVATE | MAP_ANONYMOUS);
  void* data = mmap(reinterpret_cast<void*>(start), body, prot, flags, fd, static_cast<off_t>(offset));
  if (data == MAP_FAILED) {
    Result error = -errno;
    munmap(reserved, total);
    return error;
  }
  auto* mapping = new (std::nothrow) Mapping(reserved, total, static_cast<uint8_t*>(data), length, prot);
  if (mapping == nullptr) {
    munmap(reserved, total);
    return -ENOMEM;
  }
  out->reset(mapping);
  return 0;
}

Mapping::Mapping(void* reserved, size_t reserved_length, uint8_t* data, uint64_t length, int prot)
    : reserved_(reserved), reserved_length_(reserved_length), data_(data), length_(length), prot_(prot) {
  live.fetch_add(1, std::memory_order_relaxed);
}

Mapping::~Mapping() {
  munmap(reserved_, reserved_length_);
  live.fetch_sub(1, std::memory_order_relaxed);
}

Result Mapping::Advise(uint64_t offset, uint64_t length, int advice) const {
  if (offset > length_ || length > length_ - offset) return -EINVAL;
  return FromCall(madvise(data_ + offset, length, advice));
}

int64_t Mapping::Live() { return live.load(std::memory_order_relaxed); }

Result CreateMemfd(const char* name, uint64_t size, uint64_t huge_page_size, UniqueFd* out) {
  if (size == 0 || size > kLargest) return -EINVAL;
  if (huge_page_size != 0 && (!IsPowerOfTwo(huge_page_size) || size % huge_page_size != 0)) return -EINVAL;
  unsigned int flags = MFD_CLOEXEC | MFD_ALLOW_SEALING;
  if (huge_page_size != 0) {
    const auto log2 = static_cast<unsigned int>(__builtin_ctzll(huge_page_size));
    flags |= MFD_HUGETLB | (log2 << MFD_HUGE_SHIFT);
  }
  UniqueFd fd(memfd_create(name, flags));
  if (!fd) return -errno;
  if (ftruncate(fd.get(), static_cast<off_t>(size)) < 0) return -errno;
  if (fcntl(fd.get(), F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) < 0) return -errno;
  *out = std::move(fd);
  return 0;
}

}  // namespace vhost_net
