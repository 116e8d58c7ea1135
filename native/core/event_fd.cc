#include "core/event_fd.h"

#include <poll.h>
#include <sys/eventfd.h>
#include <sys/uio.h>
#include <unistd.h>

namespace vhost_net {

Result CreateEventFd(unsigned int initial, int flags, UniqueFd* out) {
  int fd = eventfd(initial, flags | EFD_CLOEXEC | EFD_NONBLOCK);
  if (fd < 0) return -errno;
  *out = UniqueFd(fd);
  return 0;
}

Result SignalEventFd(int fd) {
  const uint64_t one = 1;
  ssize_t written;
  do {
    written = write(fd, &one, sizeof one);
  } while (written < 0 && errno == EINTR);
  return written < 0 ? -errno : 0;
}

Result DrainEventFd(int fd, uint64_t* value) {
  iovec vector = {value, sizeof *value};
  ssize_t got;
  do {
    got = preadv2(fd, &vector, 1, -1, RWF_NOWAIT);
  } while (got < 0 && errno == EINTR);
  if (got < 0 && (errno == EOPNOTSUPP || errno == ENOSYS)) {
    pollfd readable = {fd, POLLIN, 0};
    if (poll(&readable, 1, 0) != 1) return -EAGAIN;
    got = read(fd, value, sizeof *value);
  }
  if (got < 0) return -errno;
  return got == sizeof *value ? 0 : -EINVAL;
}

}  // namespace vhost_net
