#ifndef VHOST_NET_CORE_TAP_H_
#define VHOST_NET_CORE_TAP_H_

#include <cstddef>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "core/result.h"
#include "core/unique_fd.h"

namespace vhost_net {

struct TunInterface {
  std::string name;
  /// IFF_TAP, IFF_VNET_HDR and so on, 16 bits.
  int flags = 0;
};

/// Opens `device` inside the namespace at `netns` (null: the current one), attaches to or creates the interface
/// (TUNSETIFF) and brings it up. *chosen is the name the kernel settled on. -EINVAL for a name of 16 bytes or more.
Result OpenTap(const char* device, const char* netns, const char* name, int flags, UniqueFd* out, std::string* chosen);

Result TunGetIff(int fd, TunInterface* out);
Result TunGetFeatures(int fd);
Result TunSetPersist(int fd, int on);
Result TunSetOwner(int fd, uint32_t uid);
Result TunSetGroup(int fd, uint32_t gid);
Result TunSetOffload(int fd, unsigned int flags);
/// `macs` is count * 6 bytes. Answers how many are matched exactly.
Result TunSetTxFilter(int fd, int flags, const uint8_t* macs, size_t count);
Result TunGetSndbuf(int fd);
Result TunSetSndbuf(int fd, int bytes);
Result TunGetVnetHdrSz(int fd);
Result TunSetVnetHdrSz(int fd, int bytes);
Result TunGetVnetLe(int fd);
Result TunSetVnetLe(int fd, int on);
Result TunGetVnetBe(int fd);
Result TunSetVnetBe(int fd, int on);
/// IFF_ATTACH_QUEUE or IFF_DETACH_QUEUE.
Result TunSetQueue(int fd, int flags);
/// -1 removes the program.
Result TunSetSteeringEbpf(int fd, int program);
Result TunSetFilterEbpf(int fd, int program);
Result TunSetCarrier(int fd, int on);
Result TunGetDevNetns(int fd, UniqueFd* out);
/// 6 bytes.
Result TapGetHwaddr(int fd, uint8_t* mac);
Result TapSetHwaddr(int fd, const uint8_t* mac);

/// The classic BPF program of a tap. TUNGETFILTER gives back the address the program was attached from and never its
/// content, so the instructions must stay where they were, and an address of somebody else must not be followed.
class TapFilter {
 public:
  /// `program` is struct sock_filter, 8 bytes each.
  Result Attach(int fd, const uint8_t* program, size_t instructions);
  Result Detach(int fd);
  /// Empty when none is attached. -ENODATA when the program was attached through something else than this object.
  Result Get(int fd, std::vector<uint8_t>* out);

 private:
  std::mutex mutex_;
  std::vector<uint64_t> program_;
  bool attached_ = false;
};

/// Reads up to `max` frames until the tap is empty: frame i to arena + i * stride, its length to lengths[i]. How many,
/// or the errno when there was not even one.
Result ReadFrames(int fd, uint8_t* arena, size_t stride, size_t max, int32_t* lengths);
/// Writes likewise and stops at the first that fails. -EINVAL for a length below 0 or above stride.
Result WriteFrames(int fd, const uint8_t* arena, size_t stride, size_t count, const int32_t* lengths);

}  // namespace vhost_net

#endif
