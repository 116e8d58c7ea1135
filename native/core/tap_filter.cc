#include <linux/filter.h>
#include <linux/if_tun.h>
#include <sys/ioctl.h>

#include <cstring>

#include "core/tap.h"

namespace vhost_net {

static_assert(sizeof(sock_filter) == 8 && sizeof(sock_fprog) == 16 && offsetof(sock_fprog, filter) == 8);
static_assert(TUNATTACHFILTER == 0x401054D5 && TUNDETACHFILTER == 0x401054D6 && TUNGETFILTER == 0x801054DB);

Result TapFilter::Attach(int fd, const uint8_t* program, size_t instructions) {
  if (instructions > 0xffff) return -EINVAL;
  std::vector<uint64_t> copy(instructions);
  if (instructions > 0) memcpy(copy.data(), program, instructions * sizeof(sock_filter));
  sock_fprog argument = {static_cast<unsigned short>(instructions), reinterpret_cast<sock_filter*>(copy.data())};
  std::lock_guard<std::mutex> lock(mutex_);
  if (ioctl(fd, TUNATTACHFILTER, &argument) < 0) return -errno;
  program_ = std::move(copy);
  attached_ = true;
  return 0;
}

Result TapFilter::Detach(int fd) {
  std::lock_guard<std::mutex> lock(mutex_);
  if (ioctl(fd, TUNDETACHFILTER, 0) < 0) return -errno;
  attached_ = false;
  return 0;
}

Result TapFilter::Get(int fd, std::vector<uint8_t>* out) {
  out->clear();
  std::lock_guard<std::mutex> lock(mutex_);
  sock_fprog answer = {};
  if (ioctl(fd, TUNGETFILTER, &answer) < 0) return -errno;
  if (answer.len == 0) return 0;
  const bool ours = answer.filter == reinterpret_cast<sock_filter*>(program_.data()) && answer.len == program_.size();
  if (!ours) return -ENODATA;
  if (!attached_) return 0;
  const auto* bytes = reinterpret_cast<const uint8_t*>(program_.data());
  out->assign(bytes, bytes + program_.size() * sizeof(sock_filter));
  return 0;
}

}  // namespace vhost_net
