#include "core/unique_fd.h"

#include <fcntl.h>
#include <unistd.h>

namespace vhost_net {

void UniqueFd::Reset(int fd) {
  if (fd_ >= 0) close(fd_);
  fd_ = fd;
}

Result AdoptFd(int fd, UniqueFd* out) {
  int flags = fcntl(fd, F_GETFD);
  if (flags < 0) return -errno;
  if (fcntl(fd, F_SETFD, flags | FD_CLOEXEC) < 0) return -errno;
  *out = UniqueFd(fd);
  return 0;
}

Result DuplicateFd(int fd, UniqueFd* out) {
  int copy = fcntl(fd, F_DUPFD_CLOEXEC, 0);
  if (copy < 0) return -errno;
  *out = UniqueFd(copy);
  return 0;
}

Result OpenFd(const char* path, int flags, UniqueFd* out) {
  int fd = open(path, flags | O_CLOEXEC, 0600);
  if (fd < 0) return -errno;
  *out = UniqueFd(fd);
  return 0;
}

Result SetNonblocking(int fd, bool on) {
  int flags = fcntl(fd, F_GETFL);
  if (flags < 0) return -errno;
  int wanted = on ? flags | O_NONBLOCK : flags & ~O_NONBLOCK;
  return wanted == flags ? 0 : FromCall(fcntl(fd, F_SETFL, wanted));
}

}  // namespace vhost_net
