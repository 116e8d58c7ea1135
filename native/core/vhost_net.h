#ifndef VHOST_NET_CORE_VHOST_NET_H_
#define VHOST_NET_CORE_VHOST_NET_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>
#include <vector>

#include "core/mapping.h"
#include "core/result.h"
#include "core/unique_fd.h"

namespace vhost_net {

struct MemoryRegion {
  uint64_t guest_phys_addr;
  uint64_t memory_size;
  uint64_t userspace_addr;
};

struct VringAddr {
  uint32_t index;
  uint32_t flags;
  uint64_t desc_user_addr;
  uint64_t used_user_addr;
  uint64_t avail_user_addr;
  uint64_t log_guest_addr;
};

/// An open /dev/vhost-net: one method per ioctl, named after it, each answering a value or a negative errno.
///
/// The kernel keeps plain addresses of this process, so the object holds the mappings they lie in: those of the memory
/// table, of the dirty log, and those the rings were in when their addresses were set. A mapping is let go only after
/// the ioctl that replaces it has returned, and all of them only after the descriptor is closed. Methods may be called
/// from several threads.
class VhostNet {
 public:
  explicit VhostNet(UniqueFd fd) : fd_(std::move(fd)) {}
  VhostNet(const VhostNet&) = delete;
  VhostNet& operator=(const VhostNet&) = delete;
  ~VhostNet() { Close(); }

  /// Closes the descriptor, then lets the mappings go. No other method may be running.
  void Close();
  int fd() const { return fd_.get(); }

  Result SetOwner();
  Result ResetOwner();
  Result GetFeatures(uint64_t* features);
  Result SetFeatures(uint64_t features);
  Result GetFeaturesArray(uint64_t* words);
  Result SetFeaturesArray(const uint64_t* words);
  Result GetBackendFeatures(uint64_t* features);
  Result SetBackendFeatures(uint64_t features);
  Result SetForkFromOwner(uint8_t value);
  Result GetForkFromOwner();
  /// `padding` is the header's padding word, 0 but in tests.
  Result SetMemTable(const std::vector<MemoryRegion>& regions, std::vector<std::shared_ptr<Mapping>> mappings,
                     uint32_t padding);
  Result SetLogBase(uint64_t hva, std::shared_ptr<Mapping> mapping);
  Result SetLogFd(int fd);
  Result SetVringNum(uint32_t index, uint32_t num);
  Result SetVringBase(uint32_t index, uint32_t num);
  Result GetVringBase(uint32_t index);
  Result SetVringAddr(const VringAddr& addr);
  Result SetVringKick(uint32_t index, int fd);
  Result SetVringCall(uint32_t index, int fd);
  Result SetVringErr(uint32_t index, int fd);
  Result SetVringEndian(uint32_t index, uint32_t num);
  Result GetVringEndian(uint32_t index);
  Result SetVringBusyloopTimeout(uint32_t index, uint32_t microseconds);
  Result GetVringBusyloopTimeout(uint32_t index);
  Result NetSetBackend(uint32_t index, int fd);
  Result NewWorker();
  Result FreeWorker(uint32_t worker_id);
  Result AttachVringWorker(uint32_t index, uint32_t worker_id);
  Result GetVringWorker(uint32_t index);
  /// Any request. The argument is handed over so that its last byte is the last before a guard page: a request that
  /// wants more than `length` bytes meets -EFAULT instead of foreign memory. Written back afterwards. A null argument
  /// stays null.
  Result Ioctl(unsigned long request, uint8_t* argument, size_t length);

 private:
  using Mappings = std::vector<std::shared_ptr<Mapping>>;
  static constexpr uint32_t kRings = 2;

  Result SetState(unsigned long request, uint32_t index, uint32_t num);
  Result GetState(unsigned long request, uint32_t index);
  Result SetFile(unsigned long request, uint32_t index, int fd);

  // Held before the descriptor, which is therefore destroyed first.
  std::mutex mutex_;
  Mappings table_;
  Mappings log_;
  Mappings rings_[kRings];
  UniqueFd fd_;
};

/// open(2) of the device node, O_RDWR | O_CLOEXEC. -ENODEV and the like; -ENOTTY is left to the first ioctl.
Result OpenVhostNet(const char* path, UniqueFd* out);

}  // namespace vhost_net

#endif
