#include <unistd.h>

#include "core/tap.h"

namespace vhost_net {

Result ReadFrames(int fd, uint8_t* arena, size_t stride, size_t max, int32_t* lengths) {
  for (size_t i = 0; i < max;) {
    const ssize_t got = read(fd, arena + i * stride, stride);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return i > 0 ? static_cast<Result>(i) : -errno;
    lengths[i++] = static_cast<int32_t>(got);
  }
  return static_cast<Result>(max);
}

Result WriteFrames(int fd, const uint8_t* arena, size_t stride, size_t count, const int32_t* lengths) {
  for (size_t i = 0; i < count;) {
    if (lengths[i] < 0 || static_cast<size_t>(lengths[i]) > stride) return i > 0 ? static_cast<Result>(i) : -EINVAL;
    const ssize_t written = write(fd, arena + i * stride, static_cast<size_t>(lengths[i]));
    if (written < 0 && errno == EINTR) continue;
    if (written < 0) return i > 0 ? static_cast<Result>(i) : -errno;
    i++;
  }
  return static_cast<Result>(count);
}

}  // namespace vhost_net
